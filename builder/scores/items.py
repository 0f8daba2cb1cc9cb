"""On which texts is a label of a pole judged, what is true of them, and what do they stand for?

*Positive* are documents at least as extreme as the last example kept at the pole (value v): the
held-out half of the examples. *Negative* are texts that reach at most half-way from m, the median
over random documents, to v. What lies between is neither, and its share is told.

Four strata make up all distinct documents: ``pole``, which the examples kept and their repeats
stand for (or more, see :func:`_shares`); ``other``, the same of the other pole; ``random`` and
``middle``, random documents that reach at most m, and from m to half-way. What a random text
reaches is over its window, of which a stretch is judged (:mod:`builder.scores.stretches`).

Nobody who labels may have seen what a label is judged on: documents in the labelers' half of either
pole's examples, and near-duplicates of them, are never taken. Which texts are taken follows from
the direction's content hash and the text alone, whatever the numbers of the documents and in
whatever order they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from builder.labels.prompts import marked_tokens
from builder.labels.split import split_examples, with_near_duplicates
from builder.records import ACTIVATION_SCALE, CONTENT_ROLES, STRATA, Example, Pole, Stratum, Window
from builder.scores.stretches import number_of, numbers_after, stretch

Quantized = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """The tokens that carry the activation in a window of so many ``tokens``, and its peak."""

    tokens: int
    peak: int
    marked: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One text that a label may be judged on.

    ``place`` as in :class:`builder.records.Judged`. ``window`` is the stretch that is judged,
    ``first`` its first token in the window that is kept. ``peak``, a token of the stretch, is where
    a text that is too long is cut; in a random text it is any token. ``marks``, of the pole's own
    texts only, are those of the window that is kept.
    """

    stratum: Stratum
    place: int
    window: Window
    peak: int
    first: int = 0
    marks: Marks | None = None

    @property
    def truth(self) -> bool:
        """Whether a label that fits the pole fits this text."""
        return self.stratum == "pole"


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """All texts that a pole's labels may be judged on, by stratum in the order they are taken.

    ``shares``: of all distinct documents, those that each stratum stands for; ``between``: the
    share of those that are neither positive nor negative.
    """

    direction: str
    pole: Pole
    seed: int
    items: Mapping[Stratum, tuple[Item, ...]]
    shares: Mapping[Stratum, float]
    between: float

    @property
    def base_rate(self) -> float:
        """The share of the positive documents among positive and negative ones."""
        total = sum(self.shares.values())
        return self.shares.get("pole", 0.0) / total if total else 0.0

    def take(self, most: Mapping[Stratum, int], part: int = 0, parts: int = 1) -> list[Item]:
        """At most so many texts of each stratum, of every ``parts``-th from ``part`` on.

        Different parts share no text. In the order of the strata.
        """
        return [
            item
            for stratum in STRATA
            for item in self.items.get(stratum, ())[part::parts][: most.get(stratum, 0)]
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The random documents of a run, as all poles share them, and the ``length`` of all texts.

    ``windows`` are those held out for scores, ``reservoir_docs`` the documents of the others, both
    in the order of the peaks; ``documents`` counts the distinct documents of the corpus. A text has
    ``length`` tokens, ``stretches`` are those of the windows and their first tokens, and
    ``centres`` the tokens around which texts that are too long are cut; ``alike`` as
    ``RunStore.near_duplicates`` gives it.
    """

    windows: tuple[Window, ...]
    reservoir_docs: tuple[int, ...]
    documents: int
    length: int
    alike: Mapping[int, frozenset[int]] = field(default_factory=dict)
    held_out_docs: frozenset[int] = field(init=False)
    stretches: tuple[tuple[int, Window], ...] = field(init=False)
    centres: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        held = self.with_alike(window.doc_id for window in self.windows)
        stretches = tuple(stretch(window, self.length) for window in self.windows)
        object.__setattr__(self, "held_out_docs", held)
        object.__setattr__(self, "stretches", stretches)
        object.__setattr__(self, "centres", tuple(_any_token(part) for _, part in stretches))

    def with_alike(self, documents: Iterable[int]) -> frozenset[int]:
        """The documents and their near-duplicates."""
        return with_near_duplicates(documents, self.alike)


def make_pool(
    direction: str,
    pole: Pole,
    content_hash: str,
    examples: Iterable[Example],
    sample: Sample,
    peaks: tuple[Quantized, Quantized],
) -> Pool:
    """The texts of one pole; ``examples`` are those of both poles, role "any", with every document.

    ``peaks`` as ``RunStore.sample_peaks`` gives them for the pole. Without random documents or
    examples there is nothing to compare, and the pool has no negative texts.
    """
    by_pole: dict[bool, list[Example]] = {True: [], False: []}
    for example in examples:
        by_pole[example.pole == pole].append(example)
    own, other = by_pole[True], by_pole[False]
    sign = 1 if pole == "max" else -1
    reach = [sign * found.astype(np.int64) for found in peaks]
    bar = min((sign * _quantized(example.value) for example in own), default=ACTIVATION_SCALE)
    middle = float(np.median(np.concatenate(reach))) if sum(map(len, reach)) else float(bar)
    low = (middle + bar) / 2 if middle < bar else -np.inf
    chosen, explained = _held_out(own, other, sample)
    own_docs = sample.with_alike(example.window.doc_id for example in own)
    opposite = [
        example
        for example in other
        if example.window.doc_id not in own_docs and _reach(example, sign) <= low
    ]
    found: dict[Stratum, list[Item]] = {
        "pole": [_item(example, "pole", sample.length) for example in chosen],
        "other": [
            _item(example, "other", sample.length)
            for example in _held_out(other, own, sample)[0]
            if example.window.doc_id not in explained and example in opposite
        ],
        "middle": [],
        "random": [],
    }
    taken = own_docs | sample.with_alike(example.window.doc_id for example in other)
    values = reach[1].tolist()
    for place, (window, value) in enumerate(zip(sample.windows, values, strict=True)):
        if window.doc_id not in taken and value <= low:
            stratum: Stratum = "random" if value <= middle else "middle"
            first, part = sample.stretches[place]
            found[stratum].append(Item(stratum, place, part, sample.centres[place], first))
    shares, between = _shares(own, opposite, other, taken, sample, reach, (middle, low, bar))
    order = _order(content_hash, pole)
    return Pool(
        direction=direction,
        pole=pole,
        seed=number_of(content_hash, pole),
        items={stratum: tuple(sorted(items, key=order)) for stratum, items in found.items()},
        shares=shares,
        between=between,
    )


def _held_out(
    own: Sequence[Example], other: Sequence[Example], sample: Sample
) -> tuple[list[Example], frozenset[int]]:
    """The examples of a pole that no labeler saw, and the documents that some labeler may have."""
    halves = [
        split_examples([e for e in found if e.window.doc_id not in sample.held_out_docs])
        for found in (own, other)
    ]
    shown = [example.window for explained, _ in halves for example in explained]
    texts = {window.text for window in shown}
    seen = sample.with_alike(window.doc_id for window in shown)
    unseen = [
        example
        for example in halves[0][1]
        if example.window.doc_id not in seen and example.window.text not in texts
    ]
    return unseen, seen


def _shares(
    own: Sequence[Example],
    opposite: Sequence[Example],
    other: Sequence[Example],
    taken: frozenset[int],
    sample: Sample,
    reach: Sequence[npt.NDArray[np.int64]],
    levels: tuple[float, float, float],
) -> tuple[dict[Stratum, float], float]:
    """The shares of the strata, and of what is between; ``levels``: median, half-way and bar.

    Repeats are counted up to the length of a list only. Where more documents may share a beginning,
    the share of the pole is that of random windows that reach the bar, if that is larger; elsewhere
    the count is exact, and the larger of it and a sample's share would be too large on average.
    """
    middle, low, bar = levels
    total = max(1, sample.documents)
    own_docs = sample.with_alike(example.window.doc_id for example in own)
    opposed = _documents(opposite) / total
    kept = _documents(e for e in other if e.window.doc_id not in own_docs) / total
    docs = [*sample.reservoir_docs, *(window.doc_id for window in sample.windows)]
    values = np.concatenate(reach)
    pole = _documents(own) / total
    # A list has at most as many examples as it is long.
    if len(values) and any(1 + example.repeats >= len(own) for example in own):
        pole = max(pole, min(float((values >= bar).mean()), 1 - kept))
    rest = values[[doc not in taken for doc in docs]] if docs else values
    rest = rest[rest < bar]
    each = max(0.0, 1 - pole - kept) / len(rest) if len(rest) else 0.0
    shares: dict[Stratum, float] = {
        "pole": pole,
        "other": opposed,
        "middle": float(((rest > middle) & (rest <= low)).sum()) * each,
        "random": float(((rest <= middle) & (rest <= low)).sum()) * each,
    }
    return shares, float((rest > low).sum()) * each + kept - opposed


def _documents(examples: Iterable[Example]) -> int:
    """The documents that examples stand for, one of each cluster of near-duplicates."""
    return sum(1 + example.repeats for example in examples)


def _item(example: Example, stratum: Stratum, length: int) -> Item:
    first, part = stretch(example.window, length, example.peak)
    marks = None
    if stratum == "pole":
        strong = marked_tokens(example)
        marks = Marks(len(strong), example.peak, tuple(np.flatnonzero(strong).tolist()))
    return Item(stratum, example.place, part, example.peak - first, first, marks)


def _reach(example: Example, sign: int) -> int:
    """How far an example's window reaches to a pole, over its content tokens, as peaks are."""
    own = example.roles < len(CONTENT_ROLES)
    values = example.activations[own] if own.any() else example.activations
    return int((sign * values.astype(np.int64)).max())


def _quantized(value: float) -> int:
    return round(value * ACTIVATION_SCALE)


def _order(content_hash: str, pole: Pole) -> Callable[[Item], int]:
    number = numbers_after(content_hash, pole)
    return lambda item: number(item.window.text)


def _any_token(window: Window) -> int:
    n = len(window.token_ends)
    return number_of("centre", window.text) % n if n else 0
