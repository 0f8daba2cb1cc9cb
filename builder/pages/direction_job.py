"""How do the pages of thousands of directions get made? In units, by this process or several.

A worker opens the runs' databases for itself, reading only, and gives the files of a unit's
directions back; the process that asked writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.config import SiteSettings
from builder.errors import ScanError, SiteError
from builder.execute import Files, Processes, Unit, usable_cores
from builder.pages.api import direction_json
from builder.pages.collecting import collect_seldom
from builder.pages.compare.view import NamedGroup, entry, pair_addresses
from builder.pages.direction_view import PageReader
from builder.pages.findings import Findings
from builder.pages.layout import Made, files, placed, shard_of
from builder.pages.links import direction_page
from builder.pages.nearby import Comparison, Neighbourhood
from builder.pages.origin_view import origin
from builder.pages.render import Renderer
from builder.pages.views import RunView, open_run, read_run
from builder.store import AT_ONCE, Mask, RunStore

#: Below so many pages, starting processes takes longer than making the pages.
ALONE = 150

#: A run by its place, and some of its units: the places of their directions.
Task = tuple[int, tuple[range, ...]]


class DirectionJob:
    """Makes the files of directions of these runs; in another process it reads them again.

    The layout is that of the settings, which must be decided.

    Reading a run takes half the time that unpacking all that was read of it takes.
    """

    def __init__(
        self,
        opened: Sequence[tuple[RunView, RunStore]],
        settings: SiteSettings,
        comparisons: Mapping[Path, Sequence[Comparison]],
        findings: Findings | None = None,
        masks: Sequence[Mask | None] = (),
        groups: Sequence[NamedGroup] = (),
    ) -> None:
        """``masks`` are what each run's texts are read through; without any, as they are."""
        self._compared, self._entry = pair_addresses(groups), entry(groups)
        self._findings = findings or Findings()
        self._masks = tuple(masks) or (None,) * len(opened)
        self._folders = tuple(run.folder for run, _ in opened)
        self._opened: Sequence[tuple[RunView, RunStore]] | None = opened
        self._settings, self._comparisons = settings, comparisons

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def preparer(self) -> Callable[[Task], Task]:
        """Nothing is to be prepared."""
        return _same

    def worker(
        self, device: str, threads: int | None, on_batch: Callable[[int, int], None]
    ) -> Callable[[Task], Files]:
        """From a task to the files of its units; ``on_batch`` is told of each direction."""
        if self._opened is None:
            collect_seldom()
        opened = self._opened or [
            _open(folder, threads, mask, self._settings)
            for folder, mask in zip(self._folders, self._masks, strict=True)
        ]
        runs = [run for run, _ in opened]
        settings = self._settings
        renderer = Renderer(settings, self._findings, self._entry)
        nearby = Neighbourhood(runs, self._comparisons, self._compared)
        readers: dict[int, PageReader] = {}

        def work(task: Task) -> Files:
            at, units = task
            run = runs[at]
            if at not in readers:
                readers[at] = PageReader(run, opened[at][1], settings)
            places = [place for unit in units for place in unit]
            items = [run.directions[place] for place in places]
            made: dict[int, Made] = {}
            for place, item, view in zip(places, items, readers[at].pages(items), strict=True):
                near = nearby.of(run, item)
                page = renderer.page(
                    "direction.html",
                    direction_page(run.name, item.name),
                    shard=shard_of(place) if run.is_sharded else None,
                    run=run,
                    item=item,
                    view=view,
                    origin=origin(run, item),
                    near=near,
                    alike=view.alike,
                    site=settings,
                    before=run.directions[place - 1] if place else None,
                    after=run.directions[place + 1] if place + 1 < len(run.directions) else None,
                )
                data = direction_json(run, item, near, view.examples.joint(), view.corpus.tail())
                made[place] = Made(page, view.content, data)
                on_batch(1, 0)
            found: Files = {}
            for unit in units:
                found |= files(run, unit, [made[place] for place in unit])
            return found

        return work


def direction_files(
    job: DirectionJob,
    wanted: Sequence[Sequence[range]],
    on_page: Callable[[int], object],
    *,
    workers: int | None = None,
) -> Iterator[Files]:
    """The files of these units of each run, some units at a time, in any order.

    ``on_page`` is told how many more directions are done. ``workers`` None: one a processor
    core, or this process alone where there are few pages.
    """
    tasks: list[Task] = []
    for at, units in enumerate(wanted):
        several = max(1, AT_ONCE // max(map(len, units), default=1))
        tasks += [
            (at, tuple(units[first : first + several])) for first in range(0, len(units), several)
        ]
    sizes = [sum(map(len, units)) for _, units in tasks]
    if workers is None:
        workers = usable_cores() if sum(sizes) > ALONE else 1
    workers = min(workers, len(tasks))
    if workers < 2:

        def each(pages: int, _: int) -> None:
            on_page(pages)

        work = job.worker("cpu", None, each)
        yield from map(work, tasks)
        return
    work_units = [Unit(number, "pages", size) for number, size in enumerate(sizes)]
    told: dict[int, int] = {}

    def tell(unit: Unit, pages: int, _: int) -> None:
        on_page(pages - told.get(unit.number, 0))
        told[unit.number] = pages

    executor = Processes(workers, ("cpu",), 1, retries=1)
    try:
        for unit, made in executor.results(work_units, job, lambda unit: tasks[unit.number], tell):
            tell(unit, unit.size, 0)
            yield made
    except ScanError as error:
        raise SiteError(f"pages could not be made: {error}") from error


def _open(
    folder: Path, threads: int | None, mask: Mask | None, settings: SiteSettings
) -> tuple[RunView, RunStore]:
    store = open_run(folder, mask=mask, threads=threads)
    return placed(read_run(folder, store), settings), store


def _same(task: Task) -> Task:
    return task
