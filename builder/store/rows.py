"""Values that only the database gives out."""

from __future__ import annotations

from dataclasses import dataclass

from builder.records import Hookpoint


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
