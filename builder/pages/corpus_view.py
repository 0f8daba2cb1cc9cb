"""What does the whole corpus say of a direction, beyond its strongest examples?

Where the most extreme documents come from, whether more text would reach farther, what random
documents look like, and how far tuning moved the tokens where the base was scanned as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.pages.example_view import role_runs
from builder.pages.packed import Packer
from builder.pages.spans import near_peak
from builder.pages.views import DirectionView
from builder.records import POLES, ROLES, Example, Pole, Range, Shift
from builder.store import Saturation, SourceShare

#: Sources listed at each pole.
LISTED_SOURCES = 5
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


@dataclass(frozen=True, slots=True)
class Growth:
    """How a pole's extreme grew with the corpus; the page's script draws it."""

    held: Saturation
    rising: bool


@dataclass(frozen=True, slots=True)
class CorpusView:
    """All of it, by pole; ``moved`` are (role's range in the base, shift) where it was scanned."""

    sources: dict[Pole, tuple[SourceRow, ...]]
    further_sources: dict[Pole, int]
    growth: dict[Pole, Growth]
    #: How many random documents the page's script shows at each pole.
    between: dict[Pole, int]
    moved: tuple[tuple[Range, Shift], ...]

    def tail(self) -> list[SourceShare]:
        """The sources of the most extreme documents of both poles that are listed."""
        return [row.held for pole in POLES for row in self.sources[pole]]


def corpus_view(
    item: DirectionView,
    sources: Sequence[SourceShare],
    saturation: Sequence[Saturation],
    between: Sequence[Example],
) -> CorpusView:
    """What the corpus says of a direction, from what was read of it."""
    rows = {pole: [_row(held) for held in sources if held.pole == pole] for pole in POLES}
    base = {extent.role: extent for extent in item.base_ranges}
    return CorpusView(
        sources={pole: tuple(rows[pole][:LISTED_SOURCES]) for pole in POLES},
        further_sources={pole: len(rows[pole][LISTED_SOURCES:]) for pole in POLES},
        growth={held.pole: _growth(held) for held in saturation},
        between={pole: sum(example.pole == pole for example in between) for pole in POLES},
        moved=tuple((base[shift.role], shift) for shift in item.shifts if shift.role in base),
    )


def _row(held: SourceShare) -> SourceRow:
    share, corpus = held.n / held.tail, held.documents / held.all_documents
    return SourceRow(
        held=held,
        share=share,
        corpus_share=corpus,
        enriched=held.q_value < ENRICHED,
    )


def _growth(held: Saturation) -> Growth:
    return Growth(held, rising=held.gain is not None and held.gain > RISING)


def growth_rows(saturation: Sequence[Saturation]) -> list[list[Any]]:
    """Rows of [pole, documents, extremes] over growing shares of the corpus, for the script."""
    return [
        [POLES.index(held.pole), list(held.documents), [round(x, 4) for x in held.extremes]]
        for held in saturation
    ]


def pack_between(
    examples: Sequence[Example],
    places: Mapping[tuple[int, int], int],
    packer: Packer,
    context: int,
) -> list[list[Any]]:
    """Adds random documents' activations to a page's file; gives their part of its header.

    Rows of [pole, share of the reservoir it goes beyond, value, place in the run's file of random
    documents, near-duplicates, peak, role, first token of those that are shown, how many they are,
    their roles as :func:`role_runs` gives them], the one nearest the pole first, as among the
    examples. ``places`` are those in that file by document and first token; ``context`` tokens are
    shown on each side of the peak.
    """
    counts = {pole: sum(example.pole == pole for example in examples) for pole in POLES}
    rows = []
    for example in sorted(examples, key=lambda held: (POLES.index(held.pole), -held.place)):
        shown = near_peak(example, context)
        packer.values(shown.activations, shown.base_activations)
        rows.append(
            [
                POLES.index(example.pole),
                round((example.place + 0.5) / counts[example.pole], 3),
                round(example.value, 4),
                places[example.window.doc_id, example.window.start],
                example.duplicates,
                example.peak,
                ROLES.index(example.role),
                shown.window.start - example.window.start,
                len(shown.activations),
                role_runs(shown.roles.tolist()),
            ]
        )
    return rows
