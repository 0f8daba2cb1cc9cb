"""Which poles' labels say much the same as this one's? The stored neighbours, as links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.pages.label_view import PoleView
from builder.pages.views import DirectionView, RunView
from builder.records import POLES, Pole, Similar
from builder.store import RunStore


@dataclass(frozen=True, slots=True)
class SimilarRow:
    """A pole whose label is like another's: ``similarity`` from 0 to 1."""

    item: DirectionView
    pole: PoleView
    similarity: float


@dataclass(frozen=True, slots=True)
class SimilarView:
    """The similar labels of one direction's poles, and what they were measured by."""

    rows: dict[Pole, tuple[SimilarRow, ...]]
    by: str

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return any(self.rows.values())


class SimilarLabels:
    """The similar labels of a run, read for many directions at once."""

    def __init__(self, run: RunView, store: RunStore) -> None:
        self._items = {item.row.id: item for item in run.directions}
        self._store = store
        self._held: dict[str, list[Similar]] = {}

    def read(self, directions: Sequence[str]) -> None:
        """Reads those of these directions, in place of those read before, unless they are there."""
        if self._held.keys() >= set(directions):
            return
        self._held = self._store.similar_of(directions)

    def places(self) -> list[list[int]]:
        """For each pole of the run (two a direction, max first) the places of those like it."""
        self.read(list(self._items))
        starts = {key: 2 * at for at, key in enumerate(self._items)}
        return [
            [starts[row.item.row.id] + POLES.index(row.pole.pole) for row in rows]
            for item in self._items.values()
            for rows in self.of(item).rows.values()
        ]

    def of(self, item: DirectionView) -> SimilarView:
        """Those of one direction that was read, by pole, nearest first.

        Poles that have no label any more, on either side, are left out.
        """
        held = self._held[item.row.id]
        rows: dict[Pole, list[SimilarRow]] = {pole: [] for pole in POLES}
        for found in held:
            other = self._items.get(found.other)
            if other and other.poles[found.other_pole].text and item.poles[found.pole].text:
                row = SimilarRow(other, other.poles[found.other_pole], found.similarity)
                rows[found.pole].append(row)
        return SimilarView(
            {pole: tuple(own) for pole, own in rows.items()}, held[0].by if held else ""
        )
