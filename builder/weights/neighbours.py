"""Which directions point the same way? The nearest of a set by the magnitude of the cosine.

All cosines are computed, in blocks: the table of all pairs never stands in memory. Products are
taken in float64 and rounded beyond what float32 can tell apart, so that the answer does not follow
the size of the blocks and copies of one vector are ties, which go by index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from builder.records import Direction

Indices = npt.NDArray[np.int64]
Cosines = npt.NDArray[np.float64]
#: A direction by its id and the hash of what it was made from.
Key = tuple[str, str]

#: Rows and columns of one product; 2 x 512 vectors of 8192 numbers are 64 MB.
_BLOCK = 512
#: Bytes of the cosines of one block of rows against all candidates.
_TABLE = 64 * 2**20
_DECIMALS = 7


def nearest(
    vectors: npt.NDArray[np.float32],
    count: int,
    *,
    candidates: npt.NDArray[np.bool_] | None = None,
    block: int = _BLOCK,
) -> tuple[Indices, Cosines]:
    """The ``count`` nearest other vectors of each, by |cosine|: indices and signed cosines [n, k].

    ``vectors`` [n, d] need not be of unit length; a zero vector has cosine 0 with all. Only those
    in the mask ``candidates`` [n] are found, for every vector; without one, all are. k is
    ``count``, or the number of candidates if there are fewer; a place that stays empty (the vector
    itself is the last candidate) holds -1 and NaN. Equal cosines go by index.

    Memory beside the vectors: at most 64 MB of cosines and 8 * d bytes for each of two blocks of
    ``block`` vectors. Time grows with n * candidates * d.
    """
    among = np.arange(len(vectors)) if candidates is None else np.flatnonzero(candidates)
    k = max(0, min(count, len(among)))
    indices = np.full((len(vectors), k), -1, dtype=np.int64)
    cosines = np.full((len(vectors), k), np.nan)
    if not k:
        return indices, cosines
    rows = max(1, min(block, _TABLE // (8 * len(among))))
    for start in range(0, len(vectors), rows):
        here = unit(vectors[start : start + rows])
        table = np.empty((len(here), len(among)))
        for left in range(0, len(among), block):
            columns = among[left : left + block]
            np.matmul(here, unit(vectors[columns]).T, out=table[:, left : left + block])
        np.round(table, _DECIMALS, out=table)
        own = np.arange(start, start + len(here))[:, None] == among
        table[own] = np.nan
        _take_largest(table, among, indices[start : start + rows], cosines[start : start + rows])
    return indices, cosines


def with_neighbours(directions: Sequence[Direction], count: int = 5) -> list[Direction]:
    """The directions, each with its ``count`` nearest among those that are no controls.

    Controls get neighbours, too, and are nobody's: a control beside a real direction is worth
    seeing, and what lies near a random direction is nothing one should have to look at.
    """
    if not directions:
        return []
    real = np.array([direction.kind != "control" for direction in directions])
    indices, cosines = nearest(_stacked(directions), count, candidates=real)
    return [
        replace(
            direction,
            neighbours=tuple(
                (directions[index].id, cosine)
                for index, cosine in zip(row, values, strict=True)
                if index >= 0
            ),
        )
        for direction, row, values in zip(
            directions, indices.tolist(), cosines.tolist(), strict=True
        )
    ]


def _stacked(directions: Sequence[Direction]) -> npt.NDArray[np.float32]:
    return np.stack([direction.vector for direction in directions])


def unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The vectors [n, d] at unit length, in float64; a zero vector stays zero."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1.0)


def _take_largest(
    table: npt.NDArray[np.float64], among: Indices, indices: Indices, cosines: Cosines
) -> None:
    """Fills the rows of ``indices`` and ``cosines``, largest magnitude first; NaN is never taken.

    One pass for each place: they are few, and the first of equals is the one of the lowest index.
    """
    sizes = np.where(np.isnan(table), -1.0, np.abs(table))
    here = np.arange(len(table))
    for place in range(indices.shape[1]):
        found = sizes.argmax(axis=1)
        known = sizes[here, found] >= 0
        indices[known, place] = among[found[known]]
        cosines[known, place] = table[here, found][known]
        sizes[here, found] = -1.0
