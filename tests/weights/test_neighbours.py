"""Nearest directions against a plain loop, whatever the blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from builder.records import Direction, Hookpoint
from builder.weights import neighbours
from builder.weights.neighbours import nearest, with_neighbours

Vectors = npt.NDArray[np.float32]


def some(n: int, d: int = 12, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def by_hand(
    a: Vectors, b: Vectors, count: int, allowed: list[int], *, same: bool
) -> list[list[tuple[int, float]]]:
    found = []
    for row, vector in enumerate(a.astype(np.float64)):
        cosines = []
        for index in allowed:
            other = b[index].astype(np.float64)
            length = np.linalg.norm(vector) * np.linalg.norm(other)
            if not (same and index == row):
                cosines.append((index, float(vector @ other / length) if length else 0.0))
        cosines.sort(key=lambda pair: (-abs(pair[1]), pair[0]))
        found.append(cosines[:count])
    return found


def as_pairs(
    indices: neighbours.Indices, cosines: neighbours.Cosines
) -> list[list[tuple[int, float]]]:
    return [
        [(i, c) for i, c in zip(row, values, strict=True) if i >= 0]
        for row, values in zip(indices.tolist(), cosines.tolist(), strict=True)
    ]


def assert_same(left: list[list[tuple[int, float]]], right: list[list[tuple[int, float]]]) -> None:
    assert [[i for i, _ in row] for row in left] == [[i for i, _ in row] for row in right]
    for one, two in zip(left, right, strict=True):
        assert [c for _, c in one] == pytest.approx([c for _, c in two], abs=1e-6)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_nearest_equals_a_loop_over_all_pairs(count: int) -> None:
    vectors = some(30)
    found = nearest(vectors, count)
    assert found[0].shape == (30, min(count, 30))
    assert_same(as_pairs(*found), by_hand(vectors, vectors, count, list(range(30)), same=True))


@pytest.mark.parametrize("block", [1, 2, 7, 512])
def test_nearest_does_not_depend_on_the_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = some(61, d=33)
    candidates = np.arange(61) % 3 != 0
    whole = nearest(vectors, 5, candidates=candidates)
    parts = nearest(vectors, 5, candidates=candidates, block=block)
    monkeypatch.setattr(neighbours, "_TABLE", 8 * 41 * 4)  # four rows of the table at a time
    narrow = nearest(vectors, 5, candidates=candidates)
    for other in (parts, narrow):
        assert np.array_equal(whole[0], other[0])
        assert np.array_equal(whole[1], other[1], equal_nan=True)


def test_equal_cosines_go_by_index() -> None:
    vectors = np.repeat(some(1, d=77), 6, axis=0)
    vectors[[1, 4]] *= np.float32(-0.3)
    indices, cosines = nearest(vectors, 5, block=2)
    assert indices.tolist() == [[i for i in range(6) if i != row] for row in range(6)]
    assert cosines[0].tolist() == [-1.0, 1.0, 1.0, -1.0, 1.0]


def test_only_candidates_are_found_and_an_empty_place_says_so() -> None:
    vectors = some(5)
    candidates = np.array([False, True, False, True, False])
    indices, cosines = nearest(vectors, 3, candidates=candidates)
    assert sorted(indices[0].tolist()) == [1, 3]
    assert indices[1].tolist() == [3, -1]
    assert np.isnan(cosines[1, 1])
    nobody = nearest(vectors, 3, candidates=np.zeros(5, dtype=bool))
    assert nobody[0].shape == nobody[1].shape == (5, 0)


def test_a_zero_vector_is_near_nothing() -> None:
    vectors = some(3)
    vectors[1] = 0
    indices, cosines = nearest(vectors, 2)
    assert cosines[1].tolist() == [0.0, 0.0]
    assert indices[0].tolist() == [2, 1]


def test_no_vectors_have_no_neighbours() -> None:
    assert nearest(some(0), 3)[0].shape == (0, 0)
    assert with_neighbours([]) == []


def made(vectors: Vectors, kinds: list[str]) -> list[Direction]:
    return [
        Direction(
            Hookpoint(layer, "o_proj" if kind == "delta" else kind),
            0,
            vector,
            f"{layer:016x}",
            "delta" if kind == "delta" else "control",
        )
        for layer, (vector, kind) in enumerate(zip(vectors, kinds, strict=True))
    ]


def test_controls_have_neighbours_and_are_nobodys() -> None:
    vectors = some(5)
    vectors[3] = vectors[0] + 0.01  # a control right beside a direction
    found = with_neighbours(made(vectors, ["delta", "delta", "random", "base", "delta"]), 2)
    real = {"L00.o_proj.u00", "L01.o_proj.u00", "L04.o_proj.u00"}
    for direction in found:
        names = [name for name, _ in direction.neighbours]
        assert len(names) == 2
        assert set(names) <= real - {direction.id}
    assert found[3].neighbours[0][0] == "L00.o_proj.u00"
    assert found[3].neighbours[0][1] > 0.99
