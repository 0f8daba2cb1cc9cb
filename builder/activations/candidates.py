"""Which documents are a direction's most extreme ones so far? The running lists, on the host.

A list belongs to a direction, a role and a pole and holds the ``top`` documents. Two kinds of
documents stand for one: those that are the same up to the peak, where the model has read the same
and the activation is the same (the lowest document id stands for them, ``repeats`` counts the
others), and near-duplicates by the corpus's own clusters (the most extreme stands for them). Both
are relations that nothing about batches, shards or order changes, so the lists of any parts merge
to the lists of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from builder.records import ROLES

_R = len(ROLES)


@dataclass(slots=True, eq=False)
class Candidates:
    """Windows that may belong to the best, as parallel arrays of one length.

    ``group`` = (direction * R + role) * 2 + pole. ``position`` is the peak's place in the piece.
    ``windows`` int16 [n, M, 2w + 1] hold the activations around the peak, the peak in the middle,
    of the tuned model and, if M is 2, of the base; places outside the piece hold 0.
    """

    group: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]
    doc_id: npt.NDArray[np.int64]
    piece: npt.NDArray[np.int32]
    cluster: npt.NDArray[np.uint64]
    prefix: npt.NDArray[np.uint64]
    position: npt.NDArray[np.int32]
    repeats: npt.NDArray[np.int32]
    windows: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.group)

    def at(self, where: npt.NDArray[np.integer]) -> Candidates:
        """Those at these places."""
        return Candidates(*(getattr(self, field.name)[where] for field in fields(self)))


def joined(parts: Sequence[Candidates]) -> Candidates:
    """All of them, one part after the other."""
    return Candidates(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Candidates)
        )
    )


def no_candidates(models: int, width: int) -> Candidates:
    """None, for windows of ``width`` tokens of ``models`` models."""
    return Candidates(
        group=np.zeros(0, dtype=np.int64),
        value=np.zeros(0, dtype=np.float32),
        doc_id=np.zeros(0, dtype=np.int64),
        piece=np.zeros(0, dtype=np.int32),
        cluster=np.zeros(0, dtype=np.uint64),
        prefix=np.zeros(0, dtype=np.uint64),
        position=np.zeros(0, dtype=np.int32),
        repeats=np.zeros(0, dtype=np.int32),
        windows=np.zeros((0, models, width), dtype=np.int16),
    )


def best_candidates(parts: Sequence[Candidates], top: int) -> Candidates:
    """The ``top`` candidates of each group, those that stand for one collapsed, best first.

    Ties are broken by document id, then position.
    """
    merged = joined(parts)
    if not len(merged):
        return merged
    # Alike up to the peak: the lowest document id.
    order = np.lexsort((merged.piece, merged.doc_id, merged.prefix, merged.group))
    new = _starts(merged.group[order], merged.prefix[order])
    repeats = np.add.reduceat(merged.repeats[order] + 1, np.nonzero(new)[0]) - 1
    leaders = order[new]
    # Near-duplicates: the most extreme.
    group, value = merged.group[leaders], merged.value[leaders]
    signed = np.where(group % 2 == 0, -value, value)
    doc_id, position = merged.doc_id[leaders], merged.position[leaders]
    order = np.lexsort((position, doc_id, signed, merged.cluster[leaders], group))
    chosen = order[_starts(group[order], merged.cluster[leaders][order])]
    # Best first, and no more than ``top`` of a group.
    order = chosen[np.lexsort((position[chosen], doc_id[chosen], signed[chosen], group[chosen]))]
    starts = np.nonzero(_starts(group[order]))[0]
    place = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    kept = order[place < top]
    found = merged.at(leaders[kept])
    found.repeats = repeats[kept].astype(np.int32)
    return found


def _starts(*keys: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Where a sorted array of keys begins with another key than before."""
    new = np.ones(len(keys[0]), dtype=np.bool_)
    new[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    return new


class Shortlist:
    """The best candidates so far, and the bar that a newcomer has to clear."""

    def __init__(self, top: int, models: int, width: int) -> None:
        """Lists of ``top`` windows of ``width`` tokens."""
        self._top = top
        self._kept = no_candidates(models, width)
        self._pending: list[Candidates] = []
        self._held = 0

    def add(self, candidates: Candidates) -> bool:
        """Takes candidates in; says whether the bar has moved.

        Sorting is put off until there is as much new as old, so that it stays a small part.
        """
        self._pending.append(candidates)
        self._held += len(candidates)
        if self._held < max(len(self._kept), 1024):
            return False
        self._settle()
        return True

    def bar(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Groups whose lists are full, and the value of the last in each."""
        group, first, size = np.unique(self._kept.group, return_index=True, return_counts=True)
        full = size >= self._top
        return group[full], self._kept.value[first[full] + self._top - 1]

    def finish(self) -> Candidates:
        """The lists."""
        self._settle()
        return self._kept

    def _settle(self) -> None:
        self._kept = best_candidates([self._kept, *self._pending], self._top)
        self._pending = []
        self._held = 0
