"""What does a direction's own page hold? Its examples, histograms and numbers, as plain values.

Many directions are read from the database at once: one query for each of them would look through
whole tables every time, and take longer than making the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.config import SiteSettings
from builder.pages import charts
from builder.pages.corpus_view import CorpusView, corpus_view, growth_rows, pack_between
from builder.pages.example_view import Examples, ExampleView, examples_view, opening, pack
from builder.pages.label_view import chance_of
from builder.pages.packed import Packer
from builder.pages.score_view import STRATUM_NAMES, PoleScores, Texts, pole_scores
from builder.pages.similar_view import SimilarLabels, SimilarView
from builder.pages.spans import STEPS, Pieces, Scale
from builder.pages.veils import veiled_by, veiled_places
from builder.pages.views import DirectionView, RunView
from builder.records import (
    ANY_ROLE,
    CONTENT_ROLES,
    POLES,
    ROLES,
    Example,
    Histogram,
    Pole,
    Range,
    Score,
    Window,
)
from builder.store import AT_ONCE, ListedExample, RunStore, Saturation, SourceShare

#: The part of the examples that a single role has, by layout. These lists overlap little, so that
#: in shards they would take most of the room.
OF_ROLE = {"pages": 2, "shards": 5}


@dataclass(frozen=True, slots=True)
class PeakStats:
    """How much a pole's examples agree: the commonest peak token and its share, and the source."""

    token: str
    share: float
    n: int
    #: The commonest source of the examples, its share of them, and its share of the documents.
    source: str
    source_share: float
    corpus_share: float | None


@dataclass(frozen=True, slots=True)
class DirectionPage:
    """Everything on a direction's page that is not in its :class:`DirectionView`."""

    examples: Examples
    peaks: dict[Pole, PeakStats | None]
    scale: Scale
    legend: tuple[tuple[str, float], ...]
    corpus: CorpusView
    #: How the label that stands for each pole was scored; None where it was not.
    scores: dict[Pole, PoleScores | None]
    alike: SimilarView
    #: Tokens on each side of the peak that are shown at first.
    context: int
    #: Whether the base's activations are known at all tokens of the examples and random documents.
    has_base: bool
    #: What the page's script gets, before it is packed: all examples and all judged texts.
    content: bytes


@dataclass(frozen=True, slots=True)
class _Read:
    """What the database holds of one direction."""

    listed: Sequence[ListedExample]
    between: Sequence[Example]
    histograms: Sequence[Histogram]
    sources: Sequence[SourceShare]
    saturation: Sequence[Saturation]
    scores: Sequence[Score]


class PageReader:
    """The pages of a run's directions, read in batches; ``site`` says how much each shows.

    The joint list has ``site.examples`` at each pole and ``site.context`` tokens on each side of
    the peak, half of which are shown at first; the lists of single roles have half of both, for
    they are many and rarely read.
    """

    def __init__(self, run: RunView, store: RunStore, site: SiteSettings) -> None:
        self._run, self._store, self._site = run, store, site
        self._documents = run.document_shares()
        self._veiled = veiled_by(site.blur)
        reservoir, held_out = store.reservoir(), store.held_out()
        #: The random documents of the run, in the order of their file.
        self.texts: list[Window] = [*reservoir, *held_out]
        self._places = {(w.doc_id, w.start): at for at, w in enumerate(self.texts)}
        self._held_out = len(reservoir)
        self._alike = SimilarLabels(run, store)
        self._of_role = max(1, site.examples // OF_ROLE.get(site.layout, OF_ROLE["pages"]))

    def pages(self, items: Sequence[DirectionView]) -> Iterator[DirectionPage]:
        """The page of each direction, in order; AT_ONCE of them are in memory."""
        for first in range(0, len(items), AT_ONCE):
            own = items[first : first + AT_ONCE]
            ids = [item.row.id for item in own]
            store = self._store
            listed = store.listed_examples_of(ids, within=self._of_role)
            between, histograms = store.quantile_examples_of(ids), store.histograms_of(ids)
            sources, saturation = store.sources_of(ids), store.saturation_of(ids)
            scores = store.judged_scores_of(ids)
            self._alike.read(ids)
            for item, key in zip(own, ids, strict=True):
                yield self._page(
                    item,
                    _Read(listed[key], between[key], histograms[key], sources[key],
                          saturation[key], scores[key]),
                )  # fmt: skip

    def _page(self, item: DirectionView, read: _Read) -> DirectionPage:
        site = self._site
        every = [held.example for held in read.listed if held.any_place is not None]
        best = [example for example in every if example.place < site.examples]
        ranked = [
            held.example
            for held in read.listed
            if held.place is not None and held.place < self._of_role
        ]
        scale = colour_scale([*best, *ranked], item.ranges)
        extents = {extent.role: extent for extent in item.ranges}
        examples = examples_view(best, ranked, extents, scale, site.context)
        packer = Packer()
        header: dict[str, Any] = {
            "scale": [round(value, 5) for value in (scale.low, scale.centre, scale.high)],
            "context": opening(site.context),
            **pack(examples, packer),
            "between": pack_between(read.between, self._places, packer, opening(site.context)),
        }
        header |= veiled_places(header["sources"], self._veiled)
        scores = self._scores(item, read.scores, every, examples)
        header["judged"] = {pole: held.judged for pole, held in scores.items() if held}
        header["histograms"] = _histograms(read.histograms, extents)
        header["growth"] = growth_rows(read.saturation)
        header["strata"] = STRATUM_NAMES
        return DirectionPage(
            examples=examples,
            peaks={
                pole: peak_stats(
                    [view for view in examples.views[pole] if ANY_ROLE in view.lists],
                    self._documents,
                )
                for pole in POLES
            },
            scale=scale,
            legend=tuple(
                (f"n{-step}" if step < 0 else f"p{step}" if step else "z", scale.value_at(step))
                for step in range(-STEPS, STEPS + 1)
            ),
            corpus=corpus_view(item, read.sources, read.saturation, read.between),
            scores=scores,
            alike=self._alike.of(item),
            context=opening(site.context),
            has_base=packer.has_base,
            content=packer.content(header),
        )

    def _scores(
        self,
        item: DirectionView,
        held: Sequence[Score],
        every: Sequence[Example],
        examples: Examples,
    ) -> dict[Pole, PoleScores | None]:
        shown = list(examples.every())
        lists = {pole: [example for example in every if example.pole == pole] for pole in POLES}
        found: dict[Pole, PoleScores | None] = {}
        for pole in POLES:
            view = item.poles[pole]
            chance = chance_of(self._run.control_scores, view.score.score) if view.score else ()
            texts = Texts(pole, lists, shown, self.texts, self._held_out, self._veiled)
            found[pole] = pole_scores(view, held, texts, chance)
        return found


def colour_scale(examples: Sequence[Example], ranges: Sequence[Range]) -> Scale:
    """The colours' meaning for one direction: from its mean to its most extreme examples.

    Content roles decide; only where none has tokens the template's do. The mean, not zero, is
    without colour: a direction may lie at an angle to every residual stream of the model, and
    then all of its tokens would look alike.
    """
    content = [extent for extent in ranges if extent.role in CONTENT_ROLES] or list(ranges)
    n = sum(extent.n for extent in content)
    centre = sum(extent.mean * extent.n for extent in content) / n if n else 0.0
    own = [item for item in examples if item.role in CONTENT_ROLES] or list(examples)
    values = [example.value for example in own] + [centre]
    return Scale(low=min(values), centre=centre, high=max(values))


def peak_stats(views: Sequence[ExampleView], documents: Mapping[str, float]) -> PeakStats | None:
    """What most of these examples share; None without any."""
    windows = [(view.example.window, view.example.peak) for view in views]
    tokens = [Pieces.text_at(window, peak) for window, peak in windows]
    return common(tokens, [window.source for window, _ in windows], documents)


def common(
    tokens: Sequence[str], sources: Sequence[str], documents: Mapping[str, float]
) -> PeakStats | None:
    """What most examples share, by the tokens they peak on and the sources they come from.

    Tokens are compared without case and surrounding space. None without any.
    """
    if not tokens:
        return None
    n = len(tokens)
    token, peaking = _commonest([text.strip().casefold() for text in tokens])
    source, own = _commonest(sources)
    return PeakStats(token, peaking / n, n, source, own / n, documents.get(source))


def _commonest(texts: Sequence[str]) -> tuple[str, int]:
    return min(Counter(texts).items(), key=lambda pair: (-pair[1], pair[0]))


def _histograms(read: Sequence[Histogram], extents: Mapping[str, Range]) -> list[list[Any]]:
    """Rows of [role, tokens, mean, least, greatest, heights] for the page's script.

    One for every role that had tokens, all over the same stretch of activations.
    """
    held = [item for item in read if item.role in extents]
    if not held:
        return []
    low = min(extents[histogram.role].minimum for histogram in held)
    high = max(extents[histogram.role].maximum for histogram in held)
    rows: list[list[Any]] = []
    for histogram in held:
        extent = extents[histogram.role]
        least, greatest, heights = charts.histogram_heights(histogram.counts, (low, high))
        mean = round(extent.mean, 4)
        rows.append([ROLES.index(extent.role), extent.n, mean, least, greatest, heights])
    return rows
