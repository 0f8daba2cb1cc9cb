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
from builder.pages.compare.view import NamedGroup, entry, pair_addresses
from builder.pages.direction_view import PageReader
from builder.pages.findings import Findings
from builder.pages.links import api_file, direction_script
from builder.pages.nearby import Comparison, Neighbourhood
from builder.pages.origin_view import origin
from builder.pages.render import Renderer
from builder.pages.views import RunView, database, read_run
from builder.store import AT_ONCE, Mask, RunStore

#: Below so many pages, starting processes takes longer than making the pages.
ALONE = 150

#: A run by its place, and the places of some of its directions.
Task = tuple[int, tuple[int, ...]]


#: What the database itself may take in a worker; it is read once, from front to back.
_MEMORY = "200MB"


class DirectionJob:
    """Makes the files of directions of these runs; in another process it reads them again.

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
        """From a task to the files of its directions; ``on_batch`` is told of each page."""
        opened = self._opened or [
            _open(folder, threads, mask)
            for folder, mask in zip(self._folders, self._masks, strict=True)
        ]
        runs = [run for run, _ in opened]
        settings = self._settings
        renderer = Renderer(
            settings.title,
            settings.url,
            self._findings,
            settings.authors,
            settings.warning,
            settings.blur,
            self._entry,
        )
        nearby = Neighbourhood(runs, self._comparisons, self._compared)
        readers: dict[int, PageReader] = {}

        def work(task: Task) -> Files:
            at, places = task
            run = runs[at]
            if at not in readers:
                readers[at] = PageReader(run, opened[at][1], settings)
            files: Files = {}
            items = [run.directions[place] for place in places]
            for place, item, view in zip(places, items, readers[at].pages(items), strict=True):
                near = nearby.of(run, item)
                files[item.page] = renderer.page(
                    "direction.html",
                    item.page,
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
                files[direction_script(run.name, item.name)] = view.script
                files[api_file(run.name, item.name)] = direction_json(
                    run, item, near, view.examples.joint(), view.corpus.tail()
                )
                on_batch(1, 0)
            return files

        return work


def direction_files(
    job: DirectionJob,
    wanted: Sequence[Sequence[int]],
    on_page: Callable[[int], None],
    *,
    workers: int | None = None,
) -> Iterator[Files]:
    """The files of the directions at these places of each run, a unit at a time, in any order.

    ``on_page`` is told how many more pages are done. ``workers`` None: one a processor core, or
    this process alone where there are few pages.
    """
    tasks: list[Task] = [
        (at, tuple(places[first : first + AT_ONCE]))
        for at, places in enumerate(wanted)
        for first in range(0, len(places), AT_ONCE)
    ]
    if workers is None:
        workers = usable_cores() if sum(map(len, wanted)) > ALONE else 1
    workers = min(workers, len(tasks))
    if workers < 2:
        work = job.worker("cpu", None, lambda pages, _: on_page(pages))
        yield from map(work, tasks)
        return
    units = [Unit(number, "pages", len(places)) for number, (_, places) in enumerate(tasks)]
    told: dict[int, int] = {}

    def tell(unit: Unit, pages: int, _: int) -> None:
        on_page(pages - told.get(unit.number, 0))
        told[unit.number] = pages

    executor = Processes(workers, ("cpu",), 1, retries=1)
    try:
        for unit, files in executor.results(units, job, lambda unit: tasks[unit.number], tell):
            tell(unit, unit.size, 0)
            yield files
    except ScanError as error:
        raise SiteError(f"pages could not be made: {error}") from error


def _open(folder: Path, threads: int | None, mask: Mask | None) -> tuple[RunView, RunStore]:
    store = RunStore(database(folder), memory=_MEMORY, threads=threads, mask=mask)
    return read_run(folder, store), store


def _same(task: Task) -> Task:
    return task
