"""Which findings does a site show, and does everything they cite exist?

A finding is evidence only as long as its citations lead where they did. So every one is looked up
in the runs of the site, and what is not there, or is no longer the direction of the content hash
that was cited, stops the build, all of it at once.
"""

from __future__ import annotations

import difflib
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.errors import shown
from builder.findings.body import Body, SiteLink
from builder.findings.finding import (
    SEVERITIES,
    Citation,
    Fault,
    Finding,
    Severity,
    in_order,
    refuse,
)
from builder.findings.reading import read_folder
from builder.pages import links
from builder.pages.example_view import anchor_of
from builder.pages.views import DirectionView, RunView
from builder.records import ANY_ROLE, CONTENT_ROLES, Example
from builder.store import RunStore

#: Path of the page that lists all findings.
PAGE = "findings/index.html"
#: Pages of the site that are of no run and of no finding.
SHARED = frozenset(
    {
        "index.html",
        "search.html",
        "directions.html",
        "tokens.html",
        "methods.html",
        "triage.html",
        "downloads.html",
        PAGE,
    }
)
#: Findings on the page of a model and on the home page.
LISTED = 5
#: Ids or documents that a message about an unknown one names.
_NAMED = 8


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a site, the worst first, and warnings about what was not read.

    Templates have them as ``all_findings``: the home page and the pages of models and directions
    list those that are of them.
    """

    items: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()

    def of(self, run: str, direction: str | None = None) -> tuple[Finding, ...]:
        """Those that cite a run, or one direction of it; ``run`` is its name in addresses."""
        return tuple(item for item in self.items if item.cites(run, direction))

    def counts(self, run: str | None = None) -> tuple[tuple[Severity, int], ...]:
        """How many there are of each severity, the worst first; of one run where it is named.

        Rejected ones are not counted.
        """
        found = Counter(
            item.severity
            for item in (self.items if run is None else self.of(run))
            if item.status != "rejected"
        )
        return tuple((name, found[name]) for name in SEVERITIES if found[name])

    def top(self, run: str | None = None) -> tuple[Finding, ...]:
        """The worst that are not rejected, at most LISTED; of one run where it is named."""
        own = self.items if run is None else self.of(run)
        return tuple(item for item in own if item.status != "rejected")[:LISTED]


@dataclass(frozen=True, slots=True)
class Cited:
    """A finding with everything it cites: what its page is made from.

    ``directions`` are by (run, id); ``examples`` by the citation as it is written.
    """

    finding: Finding
    body: Body
    directions: Mapping[tuple[str, str], tuple[RunView, DirectionView]]
    examples: Mapping[str, Example]


def read_findings(
    folder: Path | None, opened: Sequence[tuple[RunView, RunStore]]
) -> tuple[Findings, tuple[Cited, ...]]:
    """The findings in a folder, and each with what it cites in these runs; none without a folder.

    Raises SiteError with every fault of every file, if there is any: see
    :mod:`builder.findings.reading` and :meth:`_Runs.fault`.
    """
    if folder is None:
        return Findings(), ()
    read, faults, warnings = read_folder(folder)
    runs = _Runs(opened)
    names = {finding.name for finding, _ in read} | {fault.file.stem.lower() for fault in faults}
    pages = SHARED | runs.pages | {f"findings/{name}.html" for name in names}
    found: list[Cited] = []
    for finding, body in read:
        own = [
            Fault(finding.file, item.line, said)
            for item in finding.citations
            if (said := runs.fault(item))
        ]
        own += [
            Fault(finding.file, link.line, said)
            for link in body.links
            if (said := _link_fault(link, pages))
        ]
        faults += own
        if not own:
            found.append(runs.cited(finding, body))
    refuse(faults)
    by_name = {item.finding.name: item for item in found}
    ordered = in_order(item.finding for item in found)
    return (
        Findings(ordered, tuple(warnings)),
        tuple(by_name[item.name] for item in ordered),
    )


def address_of(link: str) -> str:
    """What a relative link in a body is on the finding's page: the page of a file of findings."""
    path, sharp, fragment = link.partition("#")
    stem, ends, _ = path.rpartition(".md")
    return f"{stem.lower()}.html{sharp}{fragment}" if ends and path.endswith(".md") else link


def _link_fault(link: SiteLink, pages: Iterable[str]) -> str:
    parts = urlsplit(address_of(link.address))
    target = posixpath.normpath(posixpath.join("findings", unquote(parts.path)))
    if parts.query and posixpath.basename(target) == f"{links.SHELL}.html":
        target = f"{target}?{unquote(parts.query)}"
    if target not in pages:
        return f"link to {shown(repr(link.address))}: the site has no such page"
    if parts.fragment and not (target.startswith("m/") and parts.fragment in ("max", "min")):
        return (
            f"link to {shown(repr(link.address))}: of places in a page only the poles of a "
            "direction are linked to (#max, #min); cite examples as [[run/direction#pole/document]]"
        )
    return ""


class _Runs:
    """The runs of a site, as citations name them."""

    def __init__(self, opened: Sequence[tuple[RunView, RunStore]]) -> None:
        self._runs = {run.name: (run, store) for run, store in opened}
        self._items = {
            (run.name, item.row.id): (run, item) for run, _ in opened for item in run.directions
        }
        self._examples: dict[tuple[str, str], list[Example]] = {}

    @property
    def pages(self) -> frozenset[str]:
        """The pages of the runs and of their directions."""
        items = {item.page for _, item in self._items.values()}
        return frozenset(items | {run.page for run, _ in self._runs.values()})

    def fault(self, citation: Citation) -> str:
        """Why a citation leads nowhere; empty if it does not."""
        written = shown(citation.written)
        if citation.run not in self._runs:
            known = ", ".join(sorted(self._runs))
            return f"{written}: the site has no run {citation.run!r}; it has {shown(known)}"
        found = self._items.get((citation.run, citation.direction))
        if found is None:
            return f"{written}: the run has no such direction{self._near(citation)}"
        content_hash = found[1].row.content_hash
        if not content_hash.startswith(citation.content_hash):
            return (
                f"{written}: its weights are not those that were cited (hash {content_hash}, "
                f"cited {citation.content_hash}); look at it again, then cite the new hash"
            )
        if citation.document is not None and self.example(citation) is None:
            documents = self._documents(citation)
            named = ", ".join(map(str, documents[:_NAMED])) or "none"
            more = " ..." if len(documents) > _NAMED else ""
            return (
                f"{written}: document {citation.document} is not among the examples at that pole; "
                f"those are of {named}{more}"
            )
        return ""

    def example(self, citation: Citation) -> Example | None:
        """The example that a citation pins; of several of a document the one that reaches farthest.

        What somebody wrote goes before the words of the chat template.
        """
        found = [
            item
            for item in self._of(citation)
            if item.pole == citation.pole and item.window.doc_id == citation.document
        ]
        sign = -1 if citation.pole == "min" else 1
        return max(
            found,
            key=lambda item: (item.role in CONTENT_ROLES, sign * item.value),
            default=None,
        )

    def cited(self, finding: Finding, body: Body) -> Cited:
        """A finding whose citations have no fault, with what they cite."""
        examples = {item.written: self.example(item) for item in finding.examples}
        return Cited(
            finding,
            body,
            {
                (item.run, item.direction): self._items[item.run, item.direction]
                for item in finding.directions
            },
            {written: example for written, example in examples.items() if example is not None},
        )

    def _of(self, citation: Citation) -> list[Example]:
        """All examples of the cited direction, those of the list over all roles first."""
        key = (citation.run, citation.direction)
        if key not in self._examples:
            store = self._runs[citation.run][1]
            self._examples[key] = [
                *store.examples(citation.direction, role=ANY_ROLE),
                *store.examples(citation.direction),
            ]
        return self._examples[key]

    def _documents(self, citation: Citation) -> list[int]:
        pole = [item for item in self._of(citation) if item.pole == citation.pole]
        return list(dict.fromkeys(item.window.doc_id for item in pole))

    def _near(self, citation: Citation) -> str:
        ids = {item.casefold(): item for run, item in self._items if run == citation.run}
        near = difflib.get_close_matches(citation.direction.casefold(), ids, n=1)
        return f"; did you mean {ids[near[0]]}?" if near else ""


def example_lists(
    store: RunStore, direction: str, shown_at_each: int
) -> tuple[list[Example], Iterator[str]]:
    """The examples that the page of a direction shows, and the anchors they have there."""
    each = max(1, shown_at_each // 2)
    kept = [
        *(item for item in store.examples(direction, role=ANY_ROLE) if item.place < shown_at_each),
        *(item for item in store.examples(direction) if item.place < each),
    ]
    return kept, map(anchor_of, kept)
