"""How does a whole site come about from run folders?

Everything is read and rendered before the first file of the site changes; direction pages go
through one at a time, so memory does not grow with their number. The same runs give the same bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from builder.assets import asset_dir
from builder.config import SiteSettings
from builder.errors import DiskFullError, SiteError, is_disk_full
from builder.pages import links, model_view
from builder.pages.chance_view import chance
from builder.pages.direction_view import PeakStats, Shared, read_page
from builder.pages.folder import SiteFolder
from builder.pages.labels_view import labels_view
from builder.pages.nearby import FLOOR, Comparison, Neighbourhood
from builder.pages.origin_view import origin
from builder.pages.render import Renderer
from builder.pages.search_data import search_script
from builder.pages.similar_view import SimilarLabels
from builder.pages.spans import LONGEST_TOKEN, NEUTRAL
from builder.pages.spectra_view import spectra
from builder.pages.views import MIN_TOKENS, RunView, database, read_run
from builder.records import POLES, Pole
from builder.store import RunStore

#: Findings of each model on the home page.
FINDINGS = 5

Peaks = dict[tuple[str, Pole], PeakStats | None]


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What a build did: pages in the site, files written and removed, bytes in all, warnings."""

    home: Path
    pages: int
    written: int
    removed: int
    bytes: int
    warnings: tuple[str, ...]


def build_site(
    runs: Sequence[Path],
    out: Path,
    settings: SiteSettings,
    comparisons: Mapping[Path, Sequence[Comparison]] | None = None,
) -> SiteReport:
    """Builds the site of these run folders in ``out`` and says what was done.

    ``comparisons`` say for a run folder which of its directions lie near those of other runs.
    Files of earlier builds that are no more are removed; what no build has written is left alone.
    Raises SiteError if ``out`` holds other things, if two runs have one name or a file cannot be
    written, DiskFullError if the disk is full, StoreError or ConfigError if a run cannot be read.
    Then nothing in ``out`` has changed.
    """
    if not runs:
        raise SiteError("no runs to build a site from; run `weightatlas scan` first")
    with contextlib.ExitStack() as stack:
        opened = []
        for folder in runs:
            store = stack.enter_context(RunStore(database(folder)))
            opened.append((read_run(folder, store), store))
        _refuse_equal_names([run for run, _ in opened])
        try:
            return _build(opened, out, settings, comparisons or {})
        except OSError as error:
            if is_disk_full(error):
                raise DiskFullError(
                    f"{out}: no space left for the site; free some and render again"
                ) from error
            raise SiteError(f"{out}: the site could not be written: {error}") from error


def _build(
    opened: Sequence[tuple[RunView, RunStore]],
    out: Path,
    settings: SiteSettings,
    comparisons: Mapping[Path, Sequence[Comparison]],
) -> SiteReport:
    folder = SiteFolder(out)
    renderer = Renderer(settings.title)
    runs = [run for run, _ in opened]
    shared = _shared_pages(runs)
    nearby = Neighbourhood(runs, comparisons)
    pages = sum(len(run.directions) + 1 for run in runs) + len(shared)
    try:
        with tqdm(None, "site", total=pages, unit=" pages", delay=1, disable=None) as bar:
            for run, store in opened:
                alike = SimilarLabels(run, store)
                peaks = _put_directions(
                    folder, renderer, run, store, settings, nearby, alike, bar.update
                )
                _put_model(folder, renderer, run, peaks)
                script = search_script(run, alike.places()).encode("utf-8")
                folder.put(links.search_shard(run.name), script)
                bar.update()
            for template, values in shared.items():
                folder.put(template, renderer.page(template, template, site=settings, **values))
                bar.update()
        for path, content in _static_files():
            folder.put(path, content)
        folder.put(".nojekyll", b"")
        written, removed, size = folder.finish()
    except BaseException:
        # Also when interrupted: what was rendered so far must not stay behind.
        folder.give_up()
        raise
    return SiteReport(
        home=out / "index.html",
        pages=pages,
        written=written,
        removed=removed,
        bytes=size,
        warnings=tuple(_warnings(runs)),
    )


def _put_directions(
    folder: SiteFolder,
    renderer: Renderer,
    run: RunView,
    store: RunStore,
    settings: SiteSettings,
    nearby: Neighbourhood,
    alike: SimilarLabels,
    on_page: Callable[[], object],
) -> Peaks:
    """Renders every direction of a run, calling ``on_page`` after each; returns their peaks."""
    peaks: Peaks = {}
    count = len(run.directions)
    shared = Shared.of(run, store)
    for index, item in enumerate(run.directions):
        page = read_page(store, item, shared, settings)
        for pole in POLES:
            peaks[item.row.id, pole] = page.peaks[pole]
        content = renderer.page(
            "direction.html",
            item.page,
            run=run,
            item=item,
            view=page,
            origin=origin(run, item),
            near=nearby.of(run, item),
            alike=alike.of(item),
            site=settings,
            before=run.directions[index - 1] if index else None,
            after=run.directions[index + 1] if index + 1 < count else None,
        )
        folder.put(item.page, content)
        on_page()
    return peaks


def _put_model(folder: SiteFolder, renderer: Renderer, run: RunView, peaks: Peaks) -> None:
    content = renderer.page(
        "model.html",
        run.page,
        run=run,
        map=model_view.direction_map(run),
        legends=model_view.legends(run),
        labels=labels_view(run),
        spectra=spectra(run),
        strongest=model_view.strongest(run),
        triggers=model_view.trigger_like(run, peaks),
        concentrated=model_view.CONCENTRATED,
        chance=chance(run, peaks),
        by_source=model_view.coverage(run, ("distinct", "documents", "tokens")),
        by_role=model_view.coverage(run, ("roles",)),
        dropped=model_view.coverage(run, ("dropped",)),
        noted=model_view.coverage(run, ("noted",)),
        excluded=model_view.exclusions(run),
        sources=model_view.sources(run),
    )
    folder.put(run.page, content)


def _shared_pages(runs: Sequence[RunView]) -> dict[str, dict[str, Any]]:
    """The pages that are not of one run, each with what its template needs."""
    return {
        "index.html": {
            "cards": [
                (
                    run,
                    model_view.findings(run, FINDINGS),
                    model_view.thumbnail(run),
                    labels_view(run),
                )
                for run in runs
            ]
        },
        "search.html": {"runs": runs},
        "directions.html": {"runs": runs},
        "methods.html": {
            "runs": runs,
            "settings": _settings_table(runs),
            "min_tokens": MIN_TOKENS,
            "neutral": NEUTRAL,
            "longest_token": LONGEST_TOKEN,
            "concentrated": model_view.CONCENTRATED,
            "near_floor": FLOOR,
        },
    }


def _settings_table(runs: Sequence[RunView]) -> list[tuple[str, list[str | None]]]:
    """Every setting with its value in each run, in the order in which runs first name them."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [(name, [run.settings.get(name) for run in runs]) for name in names]


def _static_files() -> Iterator[tuple[str, bytes]]:
    folder = asset_dir() / "static"
    for path in sorted(folder.rglob("*")):
        # Editors and systems leave hidden files behind; they are no part of the site.
        if path.is_file() and not path.name.startswith("."):
            yield f"static/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _refuse_equal_names(runs: Sequence[RunView]) -> None:
    seen: dict[str, Path] = {}
    for run in runs:
        if run.name in seen:
            raise SiteError(
                f"{seen[run.name]} and {run.folder} are both named {run.name!r}; "
                "give one of them another `name` in its recipe"
            )
        seen[run.name] = run.folder


def _warnings(runs: Sequence[RunView]) -> Iterator[str]:
    for run in runs:
        states = run.states()
        if not run.own:
            yield f"{run.title}: the run has no directions"
        elif not run.total("documents"):
            yield f"{run.title}: the run scanned no documents, so pages show no examples"
        elif states["label"] + states["none"] + states["failed"] == 0:
            yield f"{run.title}: no pole is labelled; run `weightatlas label` for search by label"
        if run.own and not run.chance:
            yield (
                f"{run.title}: no random or shuffled controls scanned, so nothing shows what "
                "chance gives"
            )
        if states["failed"]:
            yield f"{run.title}: the labeler failed on {states['failed']} poles"
