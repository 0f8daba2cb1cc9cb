"""What does a direction's own page hold? Its examples, histograms and numbers, as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from builder.config import SiteSettings
from builder.pages import charts
from builder.pages.corpus_view import CorpusView, corpus_view
from builder.pages.label_view import Chance, chance_of
from builder.pages.score_view import PoleScores, pole_scores
from builder.pages.spans import STEPS, Pieces, Scale, highlight, is_cut
from builder.pages.views import DirectionView, RunView
from builder.records import ANY_ROLE, CONTENT_ROLES, POLES, ROLES, Example, Pole, Range, Window
from builder.store import RunStore


@dataclass(frozen=True, slots=True)
class ExampleView:
    """One max-activating example as its article shows it."""

    #: Place in the page (``max-user-3``) and the lists it belongs to (``any user``).
    anchor: str
    lists: str
    role: str
    value: float
    #: Standard deviations of its role from its role's mean; None where they are not known.
    distance: float | None
    peak: str
    html: Markup
    #: Activations of the coloured tokens, for the page's script.
    values: str
    cut: bool
    #: First and last token of the window within the document, from 1.
    first: int
    last: int
    earlier: bool
    doc_id: int
    source: str
    duplicates: int
    repeats: int


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

    examples: dict[Pole, tuple[ExampleView, ...]]
    #: Lists one can switch to, with how many examples each has; the first one is shown at first.
    lists: tuple[tuple[str, int], ...]
    peaks: dict[Pole, PeakStats | None]
    scale: Scale
    legend: tuple[tuple[str, float], ...]
    histograms: tuple[tuple[Range, Markup], ...]
    corpus: CorpusView
    #: How the label that stands for each pole was scored; None where it was not.
    scores: dict[Pole, PoleScores | None]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the pages of all directions of a run are made with.

    ``documents`` are the sources' shares of the corpus, to hold the examples' sources against;
    ``held_out`` the random texts that labels are scored on, by place.
    """

    documents: Mapping[str, float]
    held_out: Sequence[Window]
    chance: Chance

    @classmethod
    def of(cls, run: RunView, store: RunStore) -> Shared:
        """That of a run."""
        return cls(run.document_shares(), store.held_out(), run.control_scores)


def read_page(
    store: RunStore, item: DirectionView, shared: Shared, site: SiteSettings
) -> DirectionPage:
    """The examples and histograms of one direction; ``site`` says how many and how much text.

    The joint list has ``site.examples`` at each pole and ``site.context`` tokens on each side of
    the peak; the lists of single roles have half of both, for they are many and rarely read.
    """
    each = max(1, site.examples // 2)
    ranked = [example for example in store.examples(item.row.id) if example.place < each]
    every = store.examples(item.row.id, role=ANY_ROLE)
    best = [example for example in every if example.place < site.examples]
    scale = colour_scale([*best, *ranked], item.ranges)
    extents = {extent.role: extent for extent in item.ranges}
    in_any, in_role = {_key(example) for example in best}, {_key(example) for example in ranked}
    unique = {_key(example): example for example in (*best, *ranked)}
    views: dict[Pole, list[ExampleView]] = {pole: [] for pole in POLES}
    for key, example in unique.items():
        lists = " ".join([ANY_ROLE] * (key in in_any) + [example.role] * (key in in_role))
        context = site.context if key in in_any else max(1, site.context // 2)
        views[example.pole].append(_example_view(example, extents, scale, context, lists))
    examples: dict[Pole, tuple[ExampleView, ...]] = {
        "max": tuple(sorted(views["max"], key=lambda view: (-view.value, view.doc_id, view.role))),
        "min": tuple(sorted(views["min"], key=lambda view: (view.value, view.doc_id, view.role))),
    }
    return DirectionPage(
        examples=examples,
        lists=_lists(examples),
        peaks={
            pole: peak_stats(
                [view for view in examples[pole] if ANY_ROLE in view.lists.split()],
                shared.documents,
            )
            for pole in POLES
        },
        scale=scale,
        legend=tuple(
            (f"n{-step}" if step < 0 else f"p{step}" if step else "z", scale.value_at(step))
            for step in range(-STEPS, STEPS + 1)
        ),
        histograms=_histograms(store, item, examples, extents),
        corpus=corpus_view(store, item, scale, max(1, site.context // 2)),
        scores=_scores(store, item, every, examples, shared),
    )


def _scores(
    store: RunStore,
    item: DirectionView,
    examples: Sequence[Example],
    shown: Mapping[Pole, Sequence[ExampleView]],
    shared: Shared,
) -> dict[Pole, PoleScores | None]:
    held = store.scores(item.row.id, judged=True, candidates=True)
    lists = {pole: [example for example in examples if example.pole == pole] for pole in POLES}
    anchors = {view.anchor for views in shown.values() for view in views}
    found: dict[Pole, PoleScores | None] = {}
    for pole in POLES:
        view = item.poles[pole]
        chance = chance_of(shared.chance, view.score.score) if view.score else ()
        found[pole] = pole_scores(view, held, lists, shared.held_out, anchors, chance)
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


def peak_stats(examples: Sequence[ExampleView], documents: Mapping[str, float]) -> PeakStats | None:
    """What most of these examples share; None without any.

    Peak tokens are compared without case and surrounding space.
    """
    if not examples:
        return None
    n = len(examples)
    token, peaking = _commonest([example.peak.strip().casefold() for example in examples])
    source, own = _commonest([example.source for example in examples])
    return PeakStats(token, peaking / n, n, source, own / n, documents.get(source))


def _commonest(texts: Sequence[str]) -> tuple[str, int]:
    return min(Counter(texts).items(), key=lambda pair: (-pair[1], pair[0]))


def _key(example: Example) -> tuple[str, str, int]:
    return (example.pole, example.role, example.window.doc_id)


def _example_view(
    example: Example, extents: dict[str, Range], scale: Scale, context: int, lists: str
) -> ExampleView:
    extent = extents.get(example.role)
    known = extent is not None and extent.std > 0
    window = example.window
    pieces = Pieces.of(window)
    highlighted = highlight(example, pieces, scale, context)
    return ExampleView(
        anchor=f"{example.pole}-{example.role}-{window.doc_id}",
        lists=lists,
        role=example.role,
        value=example.value,
        distance=(example.value - extent.mean) / extent.std if extent and known else None,
        peak=pieces.text_of(example.peak),
        html=highlighted.html,
        values=highlighted.values,
        cut=is_cut(example, context),
        first=window.start + 1,
        last=window.start + len(example.activations),
        earlier=window.start + max(0, example.peak - context) > 0,
        doc_id=window.doc_id,
        source=window.source,
        duplicates=example.duplicates,
        repeats=example.repeats,
    )


def _lists(examples: dict[Pole, tuple[ExampleView, ...]]) -> tuple[tuple[str, int], ...]:
    held = Counter(
        name for views in examples.values() for view in views for name in view.lists.split()
    )
    return tuple((name, held[name]) for name in (ANY_ROLE, *ROLES) if held[name])


def _histograms(
    store: RunStore,
    item: DirectionView,
    examples: dict[Pole, tuple[ExampleView, ...]],
    extents: dict[str, Range],
) -> tuple[tuple[Range, Markup], ...]:
    """One chart per role that had tokens, all over the same stretch of activations."""
    held = [item for item in store.histograms(item.row.id) if item.role in extents]
    if not held:
        return ()
    low = min(extents[histogram.role].minimum for histogram in held)
    high = max(extents[histogram.role].maximum for histogram in held)
    drawn = []
    for histogram in held:
        spans = {
            pole: [view.value for view in examples[pole] if view.role == histogram.role]
            for pole in POLES
        }
        chart = charts.histogram(
            histogram.counts, (low, high), spans, mean=extents[histogram.role].mean
        )
        drawn.append((extents[histogram.role], chart))
    return tuple(drawn)
