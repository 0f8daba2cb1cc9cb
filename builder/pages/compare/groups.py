"""Which models can be compared, and what was found between each two of them? Plain values.

Models belong together when they have one base, or when one was tuned from another. What a direction
is called within its run (id and content hash) is its key here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.pages.nearby import FLOOR, Key

#: From this |cosine| on two directions are called the same; below it, down to the level of a match,
#: one is the other turned. At 0.9 four fifths of the length squared are in common.
SAME = 0.9
#: Why a run cannot be compared whose folder holds only its database.
NO_FILE = "has no directions.safetensors"


@dataclass(frozen=True, slots=True)
class Match:
    """A direction of one run and the direction of another that it belongs to."""

    one: Key
    two: Key
    cosine: float

    @property
    def is_same(self) -> bool:
        """Whether the two point the same way, or opposite ways, and are not merely near."""
        return abs(self.cosine) >= SAME


@dataclass(frozen=True, slots=True)
class Side:
    """What one run of a pair has in the other.

    ``nearest`` is the largest |cosine| of each direction with any of the other run; ``energy`` the
    share of all its singular values squared that directions with one at the level hold.
    ``controls`` has, by kind of control, the same |cosine| of each control of this run.
    """

    run: Path
    nearest: Mapping[Key, float]
    energy: float
    controls: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs of a group: one-to-one matches of their directions, nearest first.

    No match is below ``level``, which matching as many random directions would hardly reach once.
    """

    one: Side
    two: Side
    level: float
    matches: tuple[Match, ...]

    def turned(self) -> Pair:
        """The same with the two sides exchanged."""
        matches = tuple(Match(match.two, match.one, match.cosine) for match in self.matches)
        return Pair(self.two, self.one, self.level, matches)

    def covered(self, side: Side) -> list[Key]:
        """Directions of a side with any of the other at the level or beyond."""
        return [key for key, size in side.nearest.items() if size >= self.level]

    def share(self, side: Side) -> float:
        """Their share of the side's directions."""
        return len(self.covered(side)) / len(side.nearest) if side.nearest else 0.0

    def only(self, side: Side) -> list[Key]:
        """Directions of a side that have none of the other side near them."""
        return [key for key, size in side.nearest.items() if size < self.level]

    def beside(self, side: Side) -> int:
        """How many directions of a side lie near one that a nearer one is matched with."""
        return len(self.covered(side)) - len(self.matches)

    def control_matches(self, side: Side) -> dict[str, tuple[int, int]]:
        """By kind: how many controls of a side reach the level, of how many."""
        return {
            kind: (sum(size >= self.level for size in sizes), len(sizes))
            for kind, sizes in side.controls.items()
        }


@dataclass(frozen=True, slots=True)
class Line:
    """Runs in the order in which one was tuned from the other, first to last.

    ``known_by``: their recipes number them (``setting``), or each one's base is the tuned model of
    the one before (``weights``). With ``one_base`` all are compared with the same base, so that a
    stage holds what those before it wrote; else each has its own step alone.
    """

    runs: tuple[Path, ...]
    known_by: Literal["setting", "weights"]
    one_base: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that belong together, two at least, in the order in which they were given.

    ``missing`` are runs of the same base that could not be compared, each with the reason.
    ``pairs`` are all of them, the run given first as ``one``.
    """

    runs: tuple[Path, ...]
    missing: tuple[tuple[Path, str], ...]
    pairs: tuple[Pair, ...]
    lines: tuple[Line, ...]

    def pair(self, one: Path, two: Path) -> Pair:
        """The pair of two runs, with ``one`` as its first side."""
        for pair in self.pairs:
            if (pair.one.run, pair.two.run) == (one, two):
                return pair
            if (pair.one.run, pair.two.run) == (two, one):
                return pair.turned()
        raise KeyError((one, two))


def match_level(one: int, two: int, width: int) -> float:
    """Least |cosine| of a match between so many directions of two runs, of ``width`` numbers each.

    sqrt(2 ln(2 n m) / d), or FLOOR if that is more: of all n m cosines between random unit vectors
    less than one reaches it, so that matching two sets of random directions finds none. Beyond what
    one direction's nearest reaches (``nearby.chance_cosine``), since here all look at once.
    """
    if not one or not two:
        return 1.0
    return max(FLOOR, min(1.0, math.sqrt(2 * math.log(2 * one * two) / width)))
