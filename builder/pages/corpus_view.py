"""What does the whole corpus say of a direction, beyond its strongest examples?

Where the most extreme documents come from, whether more text would reach farther, what random
documents look like, and how far tuning moved the tokens where the base was scanned as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from builder.pages import charts
from builder.pages.spans import Pieces, Scale, highlight
from builder.pages.views import DirectionView
from builder.records import POLES, Pole, Range, Shift
from builder.store import RunStore, Saturation, SourceShare

#: Sources listed at each pole.
LISTED_SOURCES = 8
#: A source is called enriched at a q-value below this.
ENRICHED = 0.05
#: An extreme is called still rising if the last doubling of the corpus added more than this many
#: standard deviations. A normal distribution's maximum over a million tokens gains about 0.14.
RISING = 0.25


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One source among the most extreme documents, with its shares of them and of the corpus."""

    held: SourceShare
    share: float
    corpus_share: float
    enriched: bool
    bar: Markup


@dataclass(frozen=True, slots=True)
class Growth:
    """How a pole's extreme grew with the corpus, in numbers and drawn."""

    held: Saturation
    rising: bool
    chart: Markup


@dataclass(frozen=True, slots=True)
class RandomView:
    """A window of a random document; ``reach`` is the share of the reservoir it goes beyond."""

    reach: float
    value: float
    role: str
    source: str
    doc_id: int
    duplicates: int
    html: Markup
    values: str
    earlier: bool


@dataclass(frozen=True, slots=True)
class CorpusView:
    """All of it, by pole; ``moved`` are (role's range in the base, shift) where it was scanned."""

    sources: dict[Pole, tuple[SourceRow, ...]]
    further_sources: dict[Pole, int]
    growth: dict[Pole, Growth]
    between: dict[Pole, tuple[RandomView, ...]]
    moved: tuple[tuple[Range, Shift], ...]


def corpus_view(store: RunStore, item: DirectionView, scale: Scale, context: int) -> CorpusView:
    """What the corpus says of a direction; ``context`` tokens are quoted around a random peak."""
    sources = store.sources(item.row.id)
    rows = {pole: tuple(_row(s) for s in sources if s.pole == pole) for pole in POLES}
    base = {extent.role: extent for extent in item.base_ranges}
    return CorpusView(
        sources={pole: rows[pole][:LISTED_SOURCES] for pole in POLES},
        further_sources={pole: len(rows[pole][LISTED_SOURCES:]) for pole in POLES},
        growth={held.pole: _growth(held) for held in store.saturation(item.row.id)},
        between=_between(store, item, scale, context),
        moved=tuple((base[shift.role], shift) for shift in item.shifts if shift.role in base),
    )


def _row(held: SourceShare) -> SourceRow:
    share, corpus = held.n / held.tail, held.documents / held.all_documents
    return SourceRow(
        held=held,
        share=share,
        corpus_share=corpus,
        enriched=held.q_value < ENRICHED,
        bar=charts.bar([("fill", share)], f"{share:.0%} of the tail, {corpus:.0%} of the corpus"),
    )


def _growth(held: Saturation) -> Growth:
    return Growth(
        held=held,
        rising=held.gain is not None and held.gain > RISING,
        chart=charts.growth(held.documents, held.extremes, held.pole),
    )


def _between(
    store: RunStore, item: DirectionView, scale: Scale, context: int
) -> dict[Pole, tuple[RandomView, ...]]:
    found: dict[Pole, list[RandomView]] = {pole: [] for pole in POLES}
    examples = store.quantile_examples(item.row.id)
    counts = {pole: sum(example.pole == pole for example in examples) for pole in POLES}
    for example in examples:
        window = example.window
        highlighted = highlight(example, Pieces.of(window), scale, context)
        found[example.pole].append(
            RandomView(
                reach=(example.place + 0.5) / counts[example.pole],
                value=example.value,
                role=example.role,
                source=window.source,
                doc_id=window.doc_id,
                duplicates=example.duplicates,
                html=highlighted.html,
                values=highlighted.values,
                earlier=window.start + max(0, example.peak - context) > 0,
            )
        )
    # The one nearest the pole first, as among the examples.
    return {pole: tuple(reversed(views)) for pole, views in found.items()}
