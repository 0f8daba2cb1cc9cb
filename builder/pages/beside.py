"""What does a site hold beside its pages? Data for programs, downloads, and what tells of the site.

Made once all pages are there, in one go that the build of the site hands its folder to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from builder.config import SiteSettings
from builder.findings.finding import Finding
from builder.pages import links
from builder.pages.api import as_json, run_json, schema_files, site_file, without_nothing
from builder.pages.api.run_form import File
from builder.pages.card import model_card, site_card
from builder.pages.cite import citation_cff
from builder.pages.downloads import described, download_files, downloads
from builder.pages.feed import FEED, NOT_FOUND, Entry, feed, sitemap_files
from builder.pages.findings import Findings
from builder.pages.folder import SiteFolder
from builder.pages.redaction import Redacted
from builder.pages.render import Renderer
from builder.pages.views import RunView
from builder.store import RunStore

DOWNLOADS = "downloads.html"
#: Pages among what :func:`put_beside` puts.
PAGES = 2


def put_beside(
    folder: SiteFolder,
    renderer: Renderer,
    opened: Sequence[tuple[RunView, RunStore]],
    settings: SiteSettings,
    covered: Mapping[str, Redacted],
    findings: Findings,
    on_page: Callable[[], object],
) -> None:
    """Puts all of it into the folder of the site; the last thing before it is finished.

    ``covered`` says by the run's name what no file may show. Calls ``on_page`` after each of PAGES.
    """
    runs = [run for run, _ in opened]
    files: dict[str, list[File]] = {}
    for run in runs:
        held = files[run.name] = []
        path, content = links.api_file(run.name, "index"), run_json(run)
        folder.put(path, content)
        held.append(described(path, content, "every direction in brief, as JSON"))
        mask = covered[run.name].mask
        for file, made in download_files(run, settings.downloads, folder.scratch(), mask):
            folder.put_file(file["path"], made)
            held.append(file)
    for path, content in schema_files():
        folder.put(path, content)
    index = site_file(runs, files, settings.title, settings.url)
    folder.put("api/index.json", as_json(without_nothing(index)))
    shown = downloads(runs, files, covered)
    for path, content in _furniture(runs, settings, findings):
        folder.put(path, content)
    folder.put(DOWNLOADS, renderer.page(DOWNLOADS, DOWNLOADS, downloads=shown, site=settings))
    on_page()
    # Shown at any depth, so that nothing relative leads anywhere.
    template = NOT_FOUND if settings.url else "404-plain.html"
    folder.put(NOT_FOUND, renderer.page(template, NOT_FOUND, root=settings.url))
    on_page()
    if settings.url:
        for path, content in sitemap_files(folder.paths, settings.url):
            folder.put(path, content)


def missing(settings: SiteSettings) -> list[str]:
    """What a site is without, by its settings, and what would give it that."""
    found = []
    if not settings.url:
        found.append("no site map, cards or feed: they need the address of the site (site.url)")
    if not settings.authors:
        found.append("no CITATION.cff: it needs authors (site.authors)")
    return found


def _furniture(
    runs: Sequence[RunView], settings: SiteSettings, findings: Findings
) -> Iterator[tuple[str, bytes]]:
    """What tells of the site elsewhere, as far as its settings allow."""
    if settings.authors:
        yield "CITATION.cff", citation_cff(runs, settings.title, settings.authors, settings.url)
    if settings.url:
        yield "card.png", site_card(runs, settings.title)
        if findings.items:
            newest_first = sorted(findings.items, key=lambda item: item.date, reverse=True)
            yield FEED, feed([*map(_entry, newest_first)], settings.title, settings.url)
        for run in runs:
            yield f"m/{run.name}/card.png", model_card(run)


def _entry(finding: Finding) -> Entry:
    by = f", by {finding.reviewer}" if finding.reviewer else ""
    told = f"{finding.severity}, {finding.status}{by}"
    return Entry(finding.name, finding.claim, told, finding.page, finding.date)
