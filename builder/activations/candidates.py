"""Which documents are a direction's most extreme ones so far? The running lists, on the host.

A list belongs to a direction, a role and a pole. Its places are *readings*: what the model has read
up to a peak, where the activation is the same but for rounding, whatever document it stands in. A
document is one of a cluster of near-duplicates, and each cluster counts where it is most extreme:

1. a reading is worth the most that any of its rows is;
2. of each cluster one row stays, at the best of its readings, that of the lowest document id;
3. readings are ranked, and the first row of each (again by document id) stands for it.

To merge lists, all three steps are taken again over the rows of both; so a part keeps, of the
first ``top`` readings and half as many to spare, up to ``top`` rows each: a reading leaves the
list only when all its clusters are more extreme elsewhere, and one that is needed then is there.
Batches, shards and their order change nothing (but where a list loses more than all it has to
spare).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from builder.records import SPARE_PLACES


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
        windows=np.zeros((0, models, width), dtype=np.int16),
    )


def pool_size(top: int) -> int:
    """How many readings a list holds while it is merged."""
    return top + math.ceil(top * SPARE_PLACES)


def best_candidates(parts: Sequence[Candidates], top: int) -> Candidates:
    """What a list of ``top`` is made of: rows by group, reading and document id, best first."""
    merged = joined(parts)
    if not len(merged):
        return merged
    group, prefix, doc_id = merged.group, merged.prefix, merged.doc_id
    signed = np.where(group % 2 == 0, -merged.value, merged.value)
    order = np.lexsort((prefix, group))
    new = _starts(group[order], prefix[order])
    starts = np.nonzero(new)[0]
    worth = np.empty_like(signed)
    worth[order] = np.minimum.reduceat(signed[order], starts)[np.cumsum(new) - 1]
    order = np.lexsort((merged.piece, doc_id, prefix, worth, merged.cluster, group))
    kept = order[_starts(group[order], merged.cluster[order])]
    order = kept[np.lexsort((doc_id[kept], prefix[kept], worth[kept], group[kept]))]
    first_of_group = _starts(group[order])
    first_of_reading = _starts(group[order], prefix[order])
    reading = first_of_reading.cumsum(dtype=np.int64)
    reading -= _at_start(reading, first_of_group)
    row = np.arange(len(order))
    row -= _at_start(row, first_of_reading)
    return merged.at(order[(reading < pool_size(top)) & (row < top)])


def _at_start(
    values: npt.NDArray[np.int64], starts: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """The value at the start of the run that each place belongs to."""
    found: npt.NDArray[np.int64] = values[np.nonzero(starts)[0]][np.cumsum(starts) - 1]
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
        """Groups whose lists are full, and the value of the last row in each."""
        kept = self._kept
        new = _starts(kept.group, kept.prefix)
        group, readings = np.unique(kept.group[new], return_counts=True)
        last = np.searchsorted(kept.group, group, side="right") - 1
        full = readings >= pool_size(self._top)
        return group[full], kept.value[last[full]]

    def finish(self) -> Candidates:
        """The lists."""
        self._settle()
        return self._kept

    def _settle(self) -> None:
        self._kept = best_candidates([self._kept, *self._pending], self._top)
        self._pending = []
        self._held = 0
