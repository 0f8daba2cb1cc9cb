"""Which documents are a direction's most extreme ones so far? The running lists, on the host.

A list belongs to a direction, a role and a pole. Its places are *readings*: what the model has read
up to a peak, where the activation is the same but for rounding, whatever document it stands in. A
document is one of a cluster of near-duplicates. Readings are gone through from the most extreme on;
what stands for one is its lowest document id whose cluster does not stand for a better one already,
and a reading without such a document is left out. So a list shows no text twice, and each ``top``
different ones if there are as many.

A part keeps what any whole may need. Of a cluster the ``top`` best readings: were it to stand for
none of them, the list would be full. Of a reading the ``top`` lowest ids, one of each cluster,
likewise. And readings up to the ``top``-th that holds a cluster which no better one holds, since
such a reading is in the list, and as many to spare: where further parts give a reading a lower id,
that one's cluster may be all that a later reading has. Twice ``top`` are enough. Whatever further
parts bring, each of these readings has something that stands for it, or its own cluster stands for
a better one; so something that stands answers for two of them at most, for its reading and for its
cluster. Batches, shards and their order change nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

#: Pieces of a document are told apart by so many bits; a document has fewer than 2^20.
_PIECE_BITS = 20
#: Spreads small numbers over all bits of a hash (2^64 over the golden ratio).
_ODD = np.uint64(0x9E3779B97F4A7C15)

#: A row of a list: what names it, its reading, and its cluster.
Row = tuple[Any, Hashable, Hashable]


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


def depth(top: int) -> int:
    """How many readings with a cluster of their own a part keeps for a list of ``top``."""
    return 2 * top


def best_candidates(parts: Sequence[Candidates], top: int) -> Candidates:
    """What lists of ``top`` may need: rows by group, reading and document id, best first."""
    merged = joined(parts)
    if not len(merged):
        return merged
    group = merged.group
    reading, cluster = _readings(merged), _numbered(merged.cluster)
    place = _numbered((merged.doc_id << _PIECE_BITS) + merged.piece)
    # By reading and document. Numbers without gaps make one key of two, which sorts fast.
    rows = np.argsort(reading * (place.max() + 1) + place)
    # The lowest document of each cluster in each reading.
    both = reading[rows] * (cluster.max() + 1) + cluster[rows]
    order = np.argsort(both, kind="stable")
    rows = rows[np.sort(order[_starts(both[order])])]
    # The best readings of each cluster.
    order = np.argsort(cluster[rows] * (reading.max() + 1) + reading[rows])
    of_cluster = np.empty(len(rows), dtype=np.int64)
    of_cluster[order] = _numbers(_starts(group[rows][order], cluster[rows][order]))
    rows, of_cluster = rows[of_cluster < top], of_cluster[of_cluster < top]
    # The lowest documents of each reading.
    of_reading = _numbers(_starts(reading[rows]))
    rows, of_cluster = rows[of_reading < top], of_cluster[of_reading < top]
    # Readings up to the last that holds a cluster which no better one holds.
    new = _starts(reading[rows])
    starts = np.nonzero(new)[0]
    brings = np.logical_or.reduceat(of_cluster == 0, starts)
    first_of_group = _starts(group[rows[starts]])
    before = np.cumsum(brings, dtype=np.int64) - brings
    before -= before[np.nonzero(first_of_group)[0]][_runs(first_of_group)]
    return merged.at(rows[(before < depth(top))[_runs(new)]])


def _readings(rows: Candidates) -> npt.NDArray[np.int64]:
    """The number of each row's reading, counted over all groups from the best of the first on."""
    signed = np.where(rows.group % 2 == 0, -rows.value, rows.value)
    # A prefix is a hash already: one of it and the group is as good.
    both = rows.prefix ^ (rows.group.astype(np.uint64) * _ODD)
    order = np.argsort(both)
    new = _starts(both[order])
    starts = np.nonzero(new)[0]
    worth, one_each = np.minimum.reduceat(signed[order], starts), order[starts]
    rank = np.empty(len(starts), dtype=np.int64)
    by_worth = np.lexsort((rows.prefix[one_each], worth, rows.group[one_each]))
    rank[by_worth] = np.arange(len(starts))
    found = np.empty(len(rows), dtype=np.int64)
    found[order] = rank[_runs(new)]
    return found


def _numbered(values: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Equal numbers from 0 on for equal values."""
    found: npt.NDArray[np.int64] = np.unique(values, return_inverse=True)[1]
    return found


def _runs(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Which run, counted from 0, each place belongs to."""
    found: npt.NDArray[np.int64] = np.cumsum(starts, dtype=np.int64) - 1
    return found


def _numbers(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The place of each in its run, from 0."""
    found: npt.NDArray[np.int64] = np.arange(len(starts)) - np.nonzero(starts)[0][_runs(starts)]
    return found


def standing(rows: Iterable[Row], top: int) -> list[tuple[Any, int]]:
    """Which rows of one list stand for its first ``top`` readings, and how many repeat each.

    ``rows`` are (key, reading, cluster) by reading, best first, and document id; the rest of a
    reading's rows repeat the one that stands for it.
    """
    found: list[tuple[Any, int]] = []
    used: set[Hashable] = set()
    for _, alike in itertools.groupby(rows, key=lambda row: row[1]):
        held = list(alike)
        stands = next((row for row in held if row[2] not in used), None)
        if stands is not None:
            used.add(stands[2])
            found.append((stands[0], len(held) - 1))
            if len(found) == top:
                break
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
        order = np.lexsort((np.arange(len(kept)), kept.cluster, kept.group))
        first = np.zeros(len(kept), dtype=np.bool_)
        first[order] = _starts(kept.group[order], kept.cluster[order])
        new = _starts(kept.group, kept.prefix)
        brings = np.logical_or.reduceat(first, np.nonzero(new)[0])
        group, where = np.unique(kept.group[new], return_inverse=True)
        full = np.bincount(where, weights=brings) >= depth(self._top)
        last = np.searchsorted(kept.group, group, side="right") - 1
        return group[full], kept.value[last[full]]

    def finish(self) -> Candidates:
        """The lists."""
        self._settle()
        return self._kept

    def _settle(self) -> None:
        self._kept = best_candidates([self._kept, *self._pending], self._top)
        self._pending = []
        self._held = 0
