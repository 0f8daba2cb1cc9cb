"""Which directions point the same way as this one, in this model and in others of the same base?

Takes cosines as they were computed and finds the pages and labels that they lead to. What a
comparison names and the database does not hold (it was made from other weights) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.pages.views import DirectionView, RunView

#: No nearest direction of another model is shown below this |cosine|. In the residual streams of
#: published models (d of 2000 and more) a thousand random directions reach about 0.09; 0.3 is a
#: tenth of the length squared in common, and where chance reaches more, chance is the floor.
FLOOR = 0.3

#: A direction by its id and the hash of what it was made from.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The directions of a run that lie near those of another, ``other`` (a run folder).

    ``compared`` of its directions were looked at; ``near`` holds, for each direction of the run,
    (direction of the other run, cosine), nearest first, none below ``floor`` in magnitude.
    """

    other: Path
    compared: int
    floor: float
    near: Mapping[Key, Sequence[tuple[Key, float]]]


@dataclass(frozen=True, slots=True)
class NearRow:
    """A direction that lies near another."""

    run: RunView
    item: DirectionView
    cosine: float
    #: Whether chance would bring one as near.
    by_chance: bool
    #: Where the two models are compared; empty within a model.
    compared: str = ""


@dataclass(frozen=True, slots=True)
class NearView:
    """What lies near one direction, as its page shows it."""

    own: tuple[NearRow, ...]
    #: |cosine| that chance reaches among the directions of the run; None for an unknown width.
    chance: float | None
    others: tuple[NearRow, ...]
    #: Runs that were compared and hold nothing near: how many directions, and above which floor.
    without: tuple[tuple[RunView, int, float], ...]


class Neighbourhood:
    """The runs of a site and how their directions lie to each other."""

    def __init__(
        self,
        runs: Sequence[RunView],
        comparisons: Mapping[Path, Sequence[Comparison]],
        compared: Mapping[tuple[Path, Path], str],
    ) -> None:
        """``compared`` says where on the site two run folders are compared, if anywhere."""
        self._compared = compared
        self._runs = {run.folder: run for run in runs}
        self._items = {run.folder: {item.row.id: item for item in run.directions} for run in runs}
        self._comparisons = comparisons

    def of(self, run: RunView, item: DirectionView) -> NearView:
        """What lies near one direction of a run."""
        chance = chance_cosine(len(run.own), run.d_model) if run.d_model else None
        items = self._items[run.folder]
        own = tuple(
            NearRow(run, items[name], cosine, chance is not None and abs(cosine) < chance)
            for name, cosine in item.row.neighbours
            if name in items
        )
        others: list[NearRow] = []
        without = []
        for comparison in self._comparisons.get(run.folder, ()):
            other = self._runs.get(comparison.other)
            if other is None or item.is_control:
                continue
            found = [
                NearRow(
                    other,
                    near,
                    cosine,
                    by_chance=False,
                    compared=self._compared.get((run.folder, other.folder), ""),
                )
                for key, cosine in comparison.near.get(_key(item), ())
                if (near := self._items[other.folder].get(key[0])) and _key(near) == key
            ]
            others += found
            if not found:
                without.append((other, comparison.compared, comparison.floor))
        others.sort(key=lambda row: -abs(row.cosine))
        return NearView(own, chance, tuple(others), tuple(without))


def chance_cosine(candidates: int, width: int) -> float:
    """|cosine| that the nearest of so many random unit vectors of ``width`` numbers reaches.

    sqrt(2 ln(2 n) / d): at most a share of 2 exp(-d c^2 / 2) of random unit vectors lies farther
    out than c, so that of n about one does. Directions of one model are not spread evenly over its
    residual stream, and chance may reach a little further. 0 without candidates.
    """
    return min(1.0, math.sqrt(2 * math.log(2 * candidates) / width)) if candidates else 0.0


def floor_of(candidates: int, width: int) -> float:
    """Least |cosine| at which one of so many directions of another run is called near."""
    return max(FLOOR, chance_cosine(candidates, width))


def _key(item: DirectionView) -> Key:
    return (item.row.id, item.row.content_hash)
