"""What does the page of a finding hold? Cards of its directions, its pinned examples, its body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from builder.config import SiteSettings
from builder.findings.finding import SEVERITIES, STATUSES, Citation, Finding
from builder.pages.direction_view import colour_scale
from builder.pages.example_view import anchor_of, distance_of
from builder.pages.findings import PAGE, Cited, Findings, address_of, example_lists
from builder.pages.links import root_of
from builder.pages.markdown import body_html
from builder.pages.render import Renderer
from builder.pages.spans import brief, highlight, near_peak, visible
from builder.pages.views import DirectionView, RunView
from builder.records import Example
from builder.store import RunStore


@dataclass(frozen=True, slots=True)
class Card:
    """A cited direction; ``content_hash`` is what was cited of its hash, empty if nothing was."""

    run: RunView
    item: DirectionView
    content_hash: str


@dataclass(frozen=True, slots=True)
class PinnedExample:
    """An example that a finding cites, as its article shows it.

    ``link`` leads to it on the direction's page, or to the pole where it is not shown there.
    ``distance`` is in standard deviations of its role from its role's mean, None if not known.
    """

    number: int
    run: RunView
    item: DirectionView
    example: Example
    link: str
    distance: float | None
    html: Markup
    earlier: bool


@dataclass(frozen=True, slots=True)
class FindingView:
    """Everything that a finding's page shows besides its front matter."""

    finding: Finding
    cards: tuple[Card, ...]
    pinned: tuple[PinnedExample, ...]
    body: Markup


def finding_pages(
    renderer: Renderer,
    findings: Findings,
    cited: Sequence[Cited],
    stores: Mapping[str, RunStore],
    site: SiteSettings,
) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the list of findings and of each one's page; nothing without findings.

    ``cited`` are in the order of the findings; ``stores`` are by the run's name in addresses.
    """
    if not findings.items:
        return
    yield (
        PAGE,
        renderer.page(
            "findings.html",
            PAGE,
            by_severity=findings.items,
            by_date=sorted(findings.items, key=lambda item: (-item.date.toordinal(), item.name)),
            severities=SEVERITIES,
            statuses=STATUSES,
        ),
    )
    count = len(findings.items)
    for index, one in enumerate(cited):
        yield (
            one.finding.page,
            renderer.page(
                "finding.html",
                one.finding.page,
                view=finding_view(one, stores, site),
                before=findings.items[index - 1] if index else None,
                after=findings.items[index + 1] if index + 1 < count else None,
            ),
        )


def finding_view(cited: Cited, stores: Mapping[str, RunStore], site: SiteSettings) -> FindingView:
    """The cards, pinned examples and body of a finding."""
    finding = cited.finding
    root = root_of(finding.page)
    pinned = tuple(
        _pinned(number, citation, cited, stores[citation.run], site)
        for number, citation in enumerate(finding.examples, 1)
    )
    numbers = {citation.written: at for at, citation in enumerate(finding.examples, 1)}

    def cite(at: int) -> Markup:
        return _cite(cited.body.citations[at], cited, numbers, root)

    hashes = {
        (item.run, item.direction): item.content_hash
        for item in finding.citations
        if item.content_hash
    }
    return FindingView(
        finding=finding,
        cards=tuple(
            Card(run, item, hashes.get(key, "")) for key, (run, item) in cited.directions.items()
        ),
        pinned=pinned,
        body=body_html(cited.body, cite, address_of),
    )


def _cite(citation: Citation, cited: Cited, numbers: Mapping[str, int], root: str) -> Markup:
    """A citation in the body: id and label of the pole, number of the example, or its own text."""
    _, item = cited.directions[citation.run, citation.direction]
    if citation.document is not None:
        number = numbers[citation.written]
        text = visible(citation.text) if citation.text else Markup("example {}").format(number)
        return Markup('<a class="cite" href="#example-{}">{}</a>').format(number, text)
    place = f"{root}{item.page}" + (f"#{citation.pole}" if citation.pole else "")
    if citation.text:
        return Markup('<a class="cite" href="{}">{}</a>').format(place, visible(citation.text))
    sign = {"max": " ▲ max", "min": " ▼ min", None: ""}[citation.pole]
    label = item.poles[citation.pole].text if citation.pole else None
    said = Markup(" (<bdi>{}</bdi>)").format(visible(brief(label))) if label else ""
    return Markup('<a class="cite" href="{}"><span class="id">{}</span>{}</a>{}').format(
        place, visible(item.row.id), sign, said
    )


def _pinned(
    number: int, citation: Citation, cited: Cited, store: RunStore, site: SiteSettings
) -> PinnedExample:
    run, item = cited.directions[citation.run, citation.direction]
    example = cited.examples[citation.written]
    shown, anchors = example_lists(store, item.row.id, site.examples)
    scale = colour_scale(shown, item.ranges)
    anchor = anchor_of(example)
    place = anchor if anchor in set(anchors) else example.pole
    extent = next((held for held in item.ranges if held.role == example.role), None)
    return PinnedExample(
        number=number,
        run=run,
        item=item,
        example=example,
        link=f"{root_of(cited.finding.page)}{item.page}#{place}",
        distance=distance_of(example, extent),
        html=highlight(near_peak(example, site.context), scale),
        earlier=example.window.start + max(0, example.peak - site.context) > 0,
    )
