"""Values that only the database gives out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from builder.records import Example, Hookpoint, Pole


@dataclass(frozen=True, slots=True)
class DirectionRow:
    """A direction as the database holds it: everything but the vector. NaN becomes None.

    Its fields mean what those of :class:`builder.records.Direction` do.
    """

    index: int
    id: str
    content_hash: str
    hookpoint: Hookpoint
    rank: int
    kind: str
    sigma: float | None
    energy: float | None
    residual: float | None
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    gap: float | None
    group: tuple[int, ...]
    reads: tuple[tuple[str, float], ...]
    neighbours: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Count:
    """How many of something, such as tokens excluded at a layer for a reason."""

    what: str
    name: str
    layer: int | None
    n: int


@dataclass(frozen=True, slots=True)
class SourceShare:
    """How much of a pole's most extreme documents one source holds, against the corpus.

    ``n`` of the ``tail`` most extreme distinct documents are of the source, which holds
    ``documents`` of the corpus' ``all_documents`` distinct ones. ``p_value``: the chance of ``n``
    or more, were documents drawn at random, or tokens (the larger of the two); ``q_value``: the
    least share of false finds at which it counts as one, over all tests of the run.
    """

    direction: str
    pole: Pole
    source: str
    n: int
    tail: int
    documents: int
    all_documents: int
    p_value: float
    q_value: float


@dataclass(frozen=True, slots=True)
class Saturation:
    """A pole's extreme over growing random shares of the corpus, the whole of it last.

    ``documents`` and ``extremes`` have one value per share, each share about twice the one before.
    ``gain`` is what the last doubling added, in standard deviations of content tokens; None where
    there is only one share.
    """

    direction: str
    pole: Pole
    documents: tuple[int, ...]
    extremes: tuple[float, ...]
    gain: float | None


@dataclass(frozen=True, slots=True)
class Bulk:
    """Where the bulk of a direction's content tokens ends: all but a share ``beyond`` at each pole.

    ``n`` tokens of all content roles together, their ``mean`` and standard deviation ``std``;
    ``low`` and ``high`` are the activations beyond which that share of them lies.
    """

    n: int
    mean: float
    std: float
    beyond: float
    low: float
    high: float


class Peak(NamedTuple):
    """The token on which an example peaks, as it stands in the text, and how far it reaches.

    ``source`` is that of the document. A tuple: a run has hundreds of thousands.
    """

    token: str
    source: str
    value: float


@dataclass(frozen=True, slots=True)
class ListedExample:
    """An example and its places in the lists it belongs to, from 0.

    ``place`` is that in the list of its role and ``any_place`` that in the joint list; None where
    it is not in it. ``example.place`` is the latter where there is one.
    """

    example: Example
    place: int | None
    any_place: int | None
