"""Matches between two sets of directions against a plain loop, whatever the order and the signs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from builder.pages.compare.groups import match_level
from builder.records import Direction, Hookpoint
from builder.weights.matching import edges_between, near_edges, one_to_one

Vectors = npt.NDArray[np.float32]


def some(n: int, d: int = 12, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def made(vectors: Vectors) -> list[Direction]:
    return [
        Direction(Hookpoint(at // 4, "o_proj"), at % 4, vector, f"{at:016x}")
        for at, vector in enumerate(vectors)
    ]


def by_hand(a: Vectors, b: Vectors, level: float) -> list[tuple[int, int]]:
    """The greedy matching: over and over the largest |cosine| among rows and columns left."""
    unit_a, unit_b = (v / np.linalg.norm(v.astype("f8"), axis=1, keepdims=True) for v in (a, b))
    table = np.abs(unit_a @ unit_b.T)
    found = []
    while table.size and table.max() >= level:
        row, column = np.unravel_index(table.argmax(), table.shape)
        found.append((int(row), int(column)))
        table[row], table[:, column] = -1, -1
    return found


def matched(a: Vectors, b: Vectors, level: float) -> list[tuple[int, int, float]]:
    return one_to_one(made(a), made(b), edges_between(a, b, level), level)


def planted(seed: int) -> tuple[Vectors, Vectors]:
    """Two sets in which the first ten of one are, turned a little, the last ten of the other."""
    a, b = some(30, 64, seed), some(37, 64, seed + 100)
    b[-10:] = a[:10] + 0.4 * some(10, 64, seed + 200)
    b[-5:] *= -1
    return a, b


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("level", [0.05, 0.3, 0.7])
def test_matching_equals_a_loop_that_takes_the_largest_cosine_left(seed: int, level: float) -> None:
    a, b = planted(seed)
    assert [pair[:2] for pair in matched(a, b, level)] == by_hand(a, b, level)


@pytest.mark.parametrize("seed", range(4))
def test_planted_directions_are_matched_and_no_others(seed: int) -> None:
    a, b = planted(seed)
    level = match_level(len(a), len(b), 64)
    found = matched(a, b, level)
    assert {(row, column) for row, column, _ in found} == {(at, at + 27) for at in range(10)}
    assert {row for row, _, cosine in found if cosine < 0} == set(range(5, 10))


def test_random_directions_find_no_match() -> None:
    level = match_level(200, 300, 256)
    assert [matched(some(200, 256, s), some(300, 256, s + 50), level) for s in range(5)] == [[]] * 5


def test_signs_change_the_sign_of_cosines_and_nothing_else() -> None:
    a, b = planted(1)
    flips = np.random.default_rng(3).choice([-1, 1], len(a))
    turned = matched((a.T * flips).T.astype("f4"), b, 0.3)
    expected = [(row, col, cosine * int(flips[row])) for row, col, cosine in matched(a, b, 0.3)]
    assert turned == expected


def test_either_side_may_be_called_the_first_even_where_cosines_are_equal() -> None:
    a, b = planted(2)
    a[11], a[20], b[3], b[8] = a[15], a[15], a[15], -a[15]  # five copies of one vector
    there = matched(a, b, 0.3)
    back = matched(b, a, 0.3)
    assert sorted((row, column, c) for row, column, c in there) == sorted(
        (row, column, c) for column, row, c in back
    )
    # Of the equal pairs the one within a layer comes first; ids decide on the other.
    assert {(r // 4, c // 4) for r, c, _ in there if r in {11, 15, 20} and c in {3, 8}} == {
        (2, 2), (3, 0),
    }  # fmt: skip


@pytest.mark.parametrize("block", [1, 3, 8, 1000])
def test_edges_do_not_depend_on_the_blocks(block: int) -> None:
    a, b = some(23, 33, 1), some(31, 33, 2)
    b[4] = -3 * a[4]
    whole, parts = edges_between(a, b, 0.2), edges_between(a, b, 0.2, block=block)
    order = [np.lexsort((edges.columns, edges.rows)) for edges in (whole, parts)]
    for name in ("rows", "columns", "cosines"):
        left, right = (getattr(e, name)[o] for e, o in zip((whole, parts), order, strict=True))
        assert np.array_equal(left, right)
    assert np.array_equal(whole.nearest_a, parts.nearest_a)
    assert np.array_equal(whole.nearest_b, parts.nearest_b)
    assert whole.nearest_a[4] == whole.nearest_b[4] == 1.0


def test_nearest_sizes_count_what_lies_below_the_floor() -> None:
    a, b = some(9, 20, 1), some(14, 20, 2)
    edges = edges_between(a, b, 2.0)
    unit_a, unit_b = (v / np.linalg.norm(v.astype("f8"), axis=1, keepdims=True) for v in (a, b))
    assert len(edges.rows) == 0
    assert edges.nearest_a == pytest.approx(np.abs(unit_a @ unit_b.T).max(axis=1), abs=1e-6)
    assert edges.nearest_b == pytest.approx(np.abs(unit_a @ unit_b.T).max(axis=0), abs=1e-6)


def test_zero_vectors_and_empty_sets_match_nothing() -> None:
    a, b = some(3), some(4)
    a[1] = 0
    edges = edges_between(a, b, 0.01)
    assert edges.nearest_a[1] == 0
    assert 1 not in edges.rows
    for left, right in ((a, b[:0]), (a[:0], b)):
        assert matched(left, right, 0.1) == []
        assert edges_between(left, right, 0.1).nearest_a.tolist() == [0.0] * len(left)


def test_near_edges_keep_the_nearest_that_reach_the_floor_on_either_side() -> None:
    own, others = made(some(4)), made(some(6, seed=3))
    others[5] = replace(others[5], vector=-own[2].vector)
    edges = edges_between(
        np.stack([d.vector for d in own]), np.stack([d.vector for d in others]), 0.1
    )
    key = [(d.id, d.content_hash) for d in others]
    found = near_edges(own, others, edges, 3, 0.9)
    assert found == {
        (d.id, d.content_hash): [(key[5], -1.0)] if at == 2 else [] for at, d in enumerate(own)
    }
    back = near_edges(others, own, edges, 2, 0.1, reverse=True)
    assert back[key[5]][0] == ((own[2].id, own[2].content_hash), -1.0)
    for near in back.values():
        sizes = [abs(cosine) for _, cosine in near]
        assert len(near) <= 2
        assert sizes == sorted(sizes, reverse=True)
