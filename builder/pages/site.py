"""How does a whole site come about from run folders?

What every page needs is gathered first; then the pages that would differ from those that are there
are made, by several processes where they are many, and nothing of the site changes before all of
them are. The same runs give the same bytes.
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
from builder.errors import DiskFullError, SiteError, WarnedError, is_disk_full, shown
from builder.pages import beside, links
from builder.pages.api import sources as api_sources
from builder.pages.collecting import seldom_collected
from builder.pages.compare.groups import SAME, Group
from builder.pages.compare.view import (
    compare_pages,
    entry,
    named_groups,
    pair_addresses,
)
from builder.pages.direction_job import DirectionJob, direction_files
from builder.pages.example_view import texts_script
from builder.pages.finding_view import finding_pages
from builder.pages.findings import read_findings
from builder.pages.folder import SiteFolder
from builder.pages.forecast import Forecast, forecast, refuse_oversize
from builder.pages.home_view import home
from builder.pages.label_pages import label_pages
from builder.pages.layout import (
    PER_SHARD,
    decided,
    files_of,
    made_of,
    names_script,
    own_pages,
    placed,
    units,
)
from builder.pages.made_of import MadeOf, program
from builder.pages.model_view import model_page
from builder.pages.nearby import FLOOR, Comparison, Neighbourhood
from builder.pages.overview import Overview, overview
from builder.pages.redaction import Redacted, Redactor, redacted
from builder.pages.render import Renderer
from builder.pages.search_data import search_page, search_scripts
from builder.pages.similar_view import SimilarLabels
from builder.pages.spans import LONGEST_TOKEN, NEUTRAL
from builder.pages.token_data import TokenRow, commonest_tokens, token_scripts
from builder.pages.triage_data import ORDERS, triage_script
from builder.pages.veils import veiled_by
from builder.pages.views import MIN_TOKENS, RunView, open_run, read_run
from builder.store import LEAST_RARE, MOST_RARE, RARE, RunStore

#: What the script of a direction's page is put together from.
DIRECTION_SCRIPTS = ("load", "unpack", "direction", "charts", "tip", "examples", "copy")
#: Sources without a licence that a warning names.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What a build did: pages in the site and how many of them were made, files written and
    removed, bytes in all, warnings, and models that were in the site and no longer are.
    """

    home: Path
    pages: int
    made: int
    written: int
    removed: int
    bytes: int
    warnings: tuple[str, ...]
    left: tuple[str, ...] = ()


def build_site(
    runs: Sequence[Path],
    out: Path,
    settings: SiteSettings,
    comparisons: Mapping[Path, Sequence[Comparison]] | None = None,
    groups: Sequence[Group] = (),
    *,
    on_forecast: Callable[[Forecast], object] = lambda _: None,
    workers: int | None = None,
    warnings: Sequence[str] = (),
    strict: bool = False,
) -> SiteReport:
    """Builds the site of these run folders in ``out`` and says what was done.

    ``comparisons`` say for a run folder which of its directions lie near those of other runs,
    ``groups`` which runs belong together and how they match; each group has a page.
    Files of earlier builds that are no more are removed; what no build has written is left alone;
    pages that would be the same are not made again. ``on_forecast`` is told of the size before
    pages are made, by ``workers`` processes (None: as many as there are processor cores).
    ``warnings`` are those of the caller, before those of the site; ``strict`` makes any of them
    a WarnedError that names all.
    Raises SiteError if ``out`` holds other things, if two runs have one name, if the site would
    be larger than ``settings.largest_mb`` or a file cannot be written, DiskFullError if the disk is
    full, StoreError or ConfigError if a run cannot be read. Then nothing in ``out`` has changed.
    """
    if not runs:
        raise SiteError("no runs to build a site from; run `weightatlas scan` first")
    with contextlib.ExitStack() as stack:
        stack.enter_context(seldom_collected())
        redactor = Redactor.of(settings)
        opened, covered = [], {}
        for folder in runs:
            with open_run(folder) as bare:
                found = redacted(bare, redactor)
            store = stack.enter_context(open_run(folder, mask=found.mask))
            run = read_run(folder, store)
            opened.append((run, store))
            covered[run.name] = found
        _refuse_equal_names([run for run, _ in opened])
        settings = decided(settings, sum(len(run.directions) for run, _ in opened))
        opened = [(placed(run, settings), store) for run, store in opened]
        build = _Build(
            opened, settings, comparisons or {}, groups, workers, covered, redactor.digest
        )
        told = (*warnings, *build.warnings())
        if strict and told:
            raise WarnedError(
                "\n  ".join([f"{out}: nothing was changed, for there are warnings:", *told])
            )
        try:
            return build.into(out, on_forecast, told)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFullError(
                    f"{out}: no space left for the site; free some and render again"
                ) from error
            raise SiteError(f"{out}: the site could not be written: {error}") from error


class _Build:
    """One build: the runs with their databases, and what their pages are made from."""

    def __init__(
        self,
        opened: Sequence[tuple[RunView, RunStore]],
        settings: SiteSettings,
        comparisons: Mapping[Path, Sequence[Comparison]],
        groups: Sequence[Group],
        workers: int | None,
        covered: Mapping[str, Redacted],
        redaction: str,
    ) -> None:
        self._covered, self._redaction = covered, redaction
        self._opened, self._settings, self._workers = opened, settings, workers
        self._runs = [run for run, _ in opened]
        self._alike = {run.name: SimilarLabels(run, store) for run, store in opened}
        self._groups = named_groups(self._runs, groups)
        self._nearby = Neighbourhood(self._runs, comparisons, pair_addresses(self._groups))
        folder = Path(settings.findings) if settings.findings else None
        self._findings, self._cited = read_findings(folder, opened)
        masks = [covered[run.name].mask for run in self._runs]
        self._job = DirectionJob(opened, settings, comparisons, self._findings, masks, self._groups)
        self._entry = entry(self._groups)
        self._renderer = Renderer(settings, self._findings, self._entry)
        self._overviews: dict[str, Overview] = {}

    def warnings(self) -> Iterator[str]:
        """All that is to be said of the runs and findings, known before any page is made."""
        yield from _warnings(self._runs)
        yield from self._findings.warnings

    def into(
        self, out: Path, on_forecast: Callable[[Forecast], object], warnings: tuple[str, ...]
    ) -> SiteReport:
        """Makes what is not there already, and then puts it in its place."""
        folder = SiteFolder(out)
        commonest: dict[str, tuple[TokenRow, ...]] = {}
        shared = [*self._shared_pages(commonest), *label_pages(self._runs)]
        stores = {run.name: store for run, store in self._opened}
        told = list(
            finding_pages(self._renderer, self._findings, self._cited, stores, self._settings)
        )
        titles = {run.folder: run.title for run in self._runs}
        told += compare_pages(self._renderer, self._groups, titles)
        others = len(self._runs) + len(shared) + len(told) + beside.PAGES
        pages = sum(len(run.directions) for run in self._runs) + others
        try:
            by = f"{program()} {self._redaction}"
            known = [self._units(run, store, by) for run, store in self._opened]
            wanted = [
                [
                    unit
                    for unit, name in own.items()
                    if not folder.keep_all(files_of(run, unit), name)
                ]
                for run, own in zip(self._runs, known, strict=True)
            ]
            found = forecast(
                self._job,
                [own_pages(run, own) for run, own in zip(self._runs, wanted, strict=True)],
                directions=sum(len(run.directions) for run in self._runs),
                kept=folder.bytes,
            )
            on_forecast(found)
            refuse_oversize(found, self._settings)
            made = sum(len(unit) for own in wanted for unit in own) + others
            with tqdm(None, "site", total=made, unit=" pages", delay=1, disable=None) as bar:
                self._put_directions(folder, wanted, known, bar.update)
                for run, store in self._opened:
                    commonest[run.name] = self._put_run(folder, run, store)
                    bar.update()
                for path, template, values in shared:
                    page = self._renderer.page(template, path, site=self._settings, **values)
                    folder.put(path, page)
                    bar.update()
                for path, content in told:
                    folder.put(path, content)
                    bar.update()
                beside.put_beside(
                    folder,
                    self._renderer,
                    self._opened,
                    self._settings,
                    self._covered,
                    self._findings,
                    bar.update,
                )
            for path, content in _static_files():
                folder.put(path, content)
            folder.put(".nojekyll", b"")
            left = sorted(folder.models - {run.name for run in self._runs})
            written, removed, size = folder.finish()
        except BaseException:
            # Also when interrupted: what was rendered so far must not stay behind.
            folder.give_up()
            raise
        return SiteReport(
            home=out / "index.html",
            pages=pages,
            made=made,
            written=written,
            removed=removed,
            bytes=size,
            warnings=warnings,
            left=tuple(left),
        )

    def _units(self, run: RunView, store: RunStore, by: str) -> dict[range, str]:
        """The units of a run, and what each is made of; ``by`` is the hash of the program."""
        findings = bool(self._findings.items)
        pages = MadeOf(run, store, self._settings, by, findings, self._entry)
        alike = self._alike[run.name]
        alike.read([item.row.id for item in run.directions])
        items: list[Any] = [None, *run.directions, None]
        names = [
            pages.of(
                item,
                self._nearby.of(run, item),
                alike.of(item),
                (before, after),
                self._findings.of(run.name, item.row.id),
            )
            for before, item, after in zip(items, items[1:], items[2:], strict=False)
        ]
        return {unit: made_of(names[unit.start : unit.stop]) for unit in units(run)}

    def _put_directions(
        self,
        folder: SiteFolder,
        wanted: Sequence[Sequence[range]],
        known: Sequence[Mapping[range, str]],
        on_page: Callable[[int], object],
    ) -> None:
        names = {
            path: own[unit]
            for run, cut, own in zip(self._runs, wanted, known, strict=True)
            for unit in cut
            for path in files_of(run, unit)
        }
        if names:
            for files in direction_files(self._job, wanted, on_page, workers=self._workers):
                for path, content in files.items():
                    folder.put(path, content, names[path])

    def _put_run(self, folder: SiteFolder, run: RunView, store: RunStore) -> tuple[TokenRow, ...]:
        """Puts the files of a model that are not of one direction; gives its commonest peaks."""
        view = self._overview(run, store)
        values = model_page(run, view) | {
            "covered": self._covered[run.name],
            "groups": self._groups,
        }
        page = self._renderer.page("model.html", run.page, **values)
        folder.put(run.page, page)
        alike = self._alike[run.name].places()
        for path, script in (
            *search_scripts(run, alike, view.peaking),
            *token_scripts(run, view.peaking),
        ):
            folder.put(path, script)
        if run.is_sharded:
            shell = links.shell_page(run.name)
            page = self._renderer.page("shell.html", shell, run=run, per=PER_SHARD)
            folder.put(shell, page)
            folder.put(links.names_script(run.name), names_script(run))
        triage = triage_script(run, view.triggers).encode("utf-8")
        folder.put(links.triage_shard(run.name), triage)
        folder.put(
            links.texts_script(run.name),
            texts_script([*store.reservoir(), *store.held_out()], veiled_by(self._settings.blur)),
        )
        return commonest_tokens(run, view.peaking)

    def _overview(self, run: RunView, store: RunStore) -> Overview:
        """What is known of all directions of a run; read once, for its page and the home page."""
        if run.name not in self._overviews:
            self._overviews[run.name] = overview(run, store, self._settings.examples)
        return self._overviews[run.name]

    def _shared_pages(
        self, commonest: Mapping[str, tuple[TokenRow, ...]]
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(path, template, values) of the pages that are not of one run.

        ``commonest`` tokens by run need be there only when the pages are rendered.
        """
        runs = self._runs
        pages: dict[str, dict[str, Any]] = {
            "index.html": {
                "home": home(runs, [self._overview(run, store) for run, store in self._opened]),
                "groups": self._groups,
            },
            "search.html": search_page(runs),
            "tokens.html": {"runs": runs, "commonest": commonest, **search_page(runs)},
            "triage.html": {"orders": ORDERS, **search_page(runs)},
            "methods.html": {
                "runs": runs,
                "settings": _settings_table(runs),
                "min_tokens": MIN_TOKENS,
                "neutral": NEUTRAL,
                "longest_token": LONGEST_TOKEN,
                "near_floor": FLOOR,
                "same_from": SAME,
                "rare": RARE,
                "least_rare": LEAST_RARE,
                "most_rare": MOST_RARE,
            },
        }
        for path, values in pages.items():
            yield path, path, values


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
    # One file instead of several: each costs a page of a direction several milliseconds to load.
    parts = [(folder / f"{name}.js").read_bytes() for name in DIRECTION_SCRIPTS]
    yield "static/direction-page.js", b"".join(parts)


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
        without = [source["name"] for source in api_sources(run) if not source.get("licence")]
        if without:
            named = ", ".join(map(shown, without[:_NAMED])) + (" ..." if without[_NAMED:] else "")
            yield (
                f"{run.title}: no licence is stated for texts of {named} (corpus.sources.licence)"
            )
