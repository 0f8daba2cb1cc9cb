"""Which directions of one model are those of another? Large cosines, and the best of them in pairs.

One pass over all cosines, in blocks, finds every pair beyond a floor and how near each vector has
any. Of these pairs the nearest is matched first, then the nearest of what is left, and so on: a sum
over all pairs, as an assignment problem has it, would break a firm pair for two weak ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builder.records import Direction
from builder.weights.neighbours import Cosines, Indices, Key, unit

#: Rows and columns of one product; 2 x 1024 vectors of 8192 numbers are 128 MB.
_BLOCK = 1024
#: As in neighbours: beyond what float32 can tell apart, so that blocks change nothing.
_DECIMALS = 7


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Pairs of vectors of a [n, d] and b [m, d] whose |cosine| is at least ``floor``.

    ``rows`` and ``columns`` are indices into a and b, ``cosines`` their signed cosines, in no
    order that means anything. ``nearest_a`` [n] and ``nearest_b`` [m] are the largest |cosine| of
    each vector with any of the other side, whether beyond the floor or not.
    """

    floor: float
    rows: Indices
    columns: Indices
    cosines: Cosines
    nearest_a: Cosines
    nearest_b: Cosines


def edges_between(
    a: npt.NDArray[np.float32],
    b: npt.NDArray[np.float32],
    floor: float,
    *,
    block: int = _BLOCK,
) -> Edges:
    """The pairs of ``a`` [n, d] and ``b`` [m, d] at ``floor`` or beyond, which must be above 0.

    Vectors need not be of unit length; a zero vector has cosine 0 with all. Memory: 16 * block * d
    bytes and 24 for each pair found. These are few: of vectors at right angles to each other, as
    the singular vectors of one matrix are, at most 1 / floor^2 lie so near to any one.
    """
    nearest_a, nearest_b = np.zeros(len(a)), np.zeros(len(b))
    rows: list[Indices] = [np.zeros(0, dtype=np.int64)]
    columns: list[Indices] = [np.zeros(0, dtype=np.int64)]
    cosines: list[Cosines] = [np.zeros(0)]
    for top in range(0, len(a), block):
        here = unit(a[top : top + block])
        for left in range(0, len(b), block):
            table = np.round(here @ unit(b[left : left + block]).T, _DECIMALS)
            sizes = np.abs(table)
            down, across = slice(top, top + block), slice(left, left + block)
            np.maximum(nearest_a[down], sizes.max(axis=1), out=nearest_a[down])
            np.maximum(nearest_b[across], sizes.max(axis=0), out=nearest_b[across])
            found, at = np.nonzero(sizes >= floor)
            rows.append(found + top)
            columns.append(at + left)
            cosines.append(table[found, at])
    return Edges(
        floor,
        np.concatenate(rows),
        np.concatenate(columns),
        np.concatenate(cosines),
        nearest_a,
        nearest_b,
    )


def one_to_one(
    own: Sequence[Direction], others: Sequence[Direction], edges: Edges, level: float
) -> list[tuple[int, int, float]]:
    """(index of own, index of others, cosine) of directions that belong together, nearest first.

    The pair of the largest |cosine| is taken first, then that of the largest among directions that
    are still free, down to ``level``, whatever their layers and writers. Of equal pairs one within
    the same layer and writer goes first, then by ids, so that the result is the same whichever
    side is called own.
    """
    far = np.abs(edges.cosines) >= level
    rows, columns, cosines = edges.rows[far], edges.columns[far], edges.cosines[far]
    places = {key: at for at, key in enumerate(sorted({d.id for d in (*own, *others)}))}
    left = np.array([places[d.id] for d in own], dtype=np.int64)[rows]
    right = np.array([places[d.id] for d in others], dtype=np.int64)[columns]
    hooks = {d.hookpoint.key: at for at, d in enumerate((*own, *others))}
    elsewhere = (
        np.array([hooks[d.hookpoint.key] for d in own], dtype=np.int64)[rows]
        != np.array([hooks[d.hookpoint.key] for d in others], dtype=np.int64)[columns]
    )
    order = np.lexsort(
        (np.maximum(left, right), np.minimum(left, right), elsewhere, -np.abs(cosines))
    )
    taken_own, taken_others = np.zeros(len(own), bool), np.zeros(len(others), bool)
    found = []
    for row, column, cosine in zip(
        rows[order].tolist(), columns[order].tolist(), cosines[order].tolist(), strict=True
    ):
        if not taken_own[row] and not taken_others[column]:
            taken_own[row] = taken_others[column] = True
            found.append((row, column, cosine))
    return found


def near_edges(
    own: Sequence[Direction],
    others: Sequence[Direction],
    edges: Edges,
    count: int,
    floor: float,
    *,
    reverse: bool = False,
) -> dict[Key, list[tuple[Key, float]]]:
    """The ``count`` nearest of ``others`` for each of ``own``, none below ``floor``, nearest first.

    ``edges`` are those between the two, or with ``reverse`` those between others and own. Equal
    cosines go by index.
    """
    rows, columns = (edges.columns, edges.rows) if reverse else (edges.rows, edges.columns)
    found: dict[Key, list[tuple[Key, float]]] = {(d.id, d.content_hash): [] for d in own}
    order = np.lexsort((columns, -np.abs(edges.cosines)))
    for row, column, cosine in zip(
        rows[order].tolist(), columns[order].tolist(), edges.cosines[order].tolist(), strict=True
    ):
        if abs(cosine) < floor:
            break
        near = found[own[row].id, own[row].content_hash]
        if len(near) < count:
            near.append(((others[column].id, others[column].content_hash), cosine))
    return found
