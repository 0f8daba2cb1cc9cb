"""The truncated decomposition against torch's full one, on spectra of every kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from builder.weights import svd, truncated
from builder.weights.svd import top_singular
from builder.weights.truncated import ROUGH, Ritz, converged, group_gaps, groups

ROWS, COLUMNS, K = 300, 700, 20


def _matrix(sigma: torch.Tensor, noise: float = 0.0, seed: int = 0) -> torch.Tensor:
    """A matrix with these singular values, plus noise whose largest singular value is ``noise``."""
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(ROWS, len(sigma), generator=generator).double())
    right, _ = torch.linalg.qr(torch.randn(COLUMNS, len(sigma), generator=generator).double())
    edge = math.sqrt(ROWS) + math.sqrt(COLUMNS)
    rough = torch.randn(ROWS, COLUMNS, generator=generator).double() * (noise / edge)
    made: torch.Tensor = ((left * sigma.double()) @ right.T + rough).float()
    return made


def _falling(power: float, count: int = ROWS) -> torch.Tensor:
    return torch.arange(1, count + 1).double() ** -power


def _rounded() -> torch.Tensor:
    """A change of weights that were rounded to bfloat16 before and after."""
    change = _matrix(_falling(1.0)) * 0.1
    base = 0.02 * torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(3))
    return (base + change).bfloat16().float() - base.bfloat16().float()


def _permuted(decades: float) -> torch.Tensor:
    """One entry in each row and in as many columns: every singular vector is a unit vector."""
    generator = torch.Generator().manual_seed(11)
    matrix = torch.zeros(ROWS, COLUMNS)
    places = torch.randperm(COLUMNS, generator=generator)[:ROWS]
    matrix[torch.randperm(ROWS, generator=generator), places] = 10 ** (
        -decades * torch.rand(ROWS, generator=generator)
    )
    return matrix


SPECTRA = {
    "slowly falling": _matrix(_falling(0.3)),
    "power law 0.5": _matrix(_falling(0.5)),
    "power law 1": _matrix(_falling(1.0)),
    "power law 1.5": _matrix(_falling(1.5)),
    "power law 3": _matrix(_falling(3.0)),
    "exponential": _matrix(0.7 ** torch.arange(ROWS).double()),
    "rounded to bfloat16": _rounded(),
    "noise alone": _matrix(_falling(1.0, 1) * 0, noise=1.0),
    "noise behind eight": _matrix(_falling(1.0, 8), noise=0.05),
    "noise behind three that dwarf it": _matrix(_falling(1.0, 3), noise=0.004),
    "rank 8": _matrix(_falling(1.0, 8)),
    "rank 32": _matrix(_falling(0.5, 32)),
    "pairs": _matrix(_falling(1.0, 40).repeat_interleave(2)),
    "all equal": _matrix(torch.ones(ROWS)),
    "one row": torch.zeros(ROWS, COLUMNS).index_fill_(0, torch.tensor([7]), 0.5),
    "five decades in eight": _matrix(10.0 ** -torch.linspace(0, 5, 8).double()),
    "five decades in sixteen": _matrix(10.0 ** -torch.linspace(0, 5, 16).double()),
    "a third of a decade each": _matrix(10.0 ** (-0.3 * torch.arange(ROWS)).double()),
    "three far above a level": _matrix(
        torch.cat([torch.linspace(1000, 900, 3), torch.linspace(1, 0.99, ROWS - 3)])
    ),
    "an entry a row, near each other": _permuted(0.1),
    "an entry a row, over a decade": _permuted(1.0),
    "constant": torch.full((ROWS, COLUMNS), 0.3),
    "beyond float32 squared": _matrix(_falling(1.0)) * 1e18,
    "far below": _matrix(_falling(1.0)) * 1e-30,
    "tiny": _matrix(_falling(1.0)) * 1e-12,
    "huge": _matrix(_falling(1.0)) * 1e9,
}


@pytest.fixture(params=["low precision", "float32"])
def _precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without hardware that multiplies bfloat16 fast."""
    kind = torch.bfloat16 if request.param == "low precision" else torch.float32
    monkeypatch.setattr(truncated, "_low_precision", lambda matrix: matrix.to(kind))


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize("name", SPECTRA)
def test_vectors_and_values_are_those_of_torch_svd(name: str, tall: bool) -> None:
    matrix = SPECTRA[name].T.contiguous() if tall else SPECTRA[name]
    exact_u, exact, exact_vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    rank = int((exact > svd.FLOOR * exact[0]).sum())
    found = top_singular(matrix, K)
    n = min(K, rank)
    assert found.u.shape == (matrix.shape[0], n)
    np.testing.assert_allclose(found.sigma, exact[:n], rtol=1e-5)
    for first, stop in groups(exact.tolist()):
        stop = min(stop, n)
        if first >= stop:
            break
        if stop == n < rank and exact[n - 1] - exact[n] < 1e-3 * exact[n - 1]:
            break  # the group goes on behind the vectors that were asked for
        for mine, theirs in ((found.u, exact_u), (found.v, exact_vh.T)):
            cosines = torch.linalg.svdvals(mine[:, first:stop].double().T @ theirs[:, first:stop])
            assert float(cosines.min()) >= 0.9999, (first, stop)
    gram = found.u.double().T @ found.u.double()
    np.testing.assert_allclose(gram, torch.eye(n), atol=1e-4)
    u, sigma, v = found.u.double(), found.sigma, found.v.double()
    one = (matrix.double().T @ u - v * sigma).norm(dim=0) / sigma
    other = (matrix.double() @ v - u * sigma).norm(dim=0) / sigma
    # Vectors are rounded to float32, which shows in those of small values.
    apart = (found.residual - torch.maximum(one, other)).abs()
    assert bool((apart <= 2e-5 + 3e-7 * sigma[0] / sigma).all())


def test_same_matrix_gives_the_same_triples_whatever_came_before() -> None:
    first = top_singular(SPECTRA["power law 1"], K)
    torch.manual_seed(99)
    top_singular(SPECTRA["noise alone"], K)
    again = top_singular(SPECTRA["power law 1"], K)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_what_does_not_converge_is_decomposed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncated, "_MOST_STEPS", 1)
    monkeypatch.setattr(truncated, "_HALF_STEPS", 1)
    monkeypatch.setattr(truncated, "_FILTERS", 1)
    matrix = SPECTRA["noise alone"]
    assert truncated.truncated(matrix, K, 1e-5) is None
    found = top_singular(matrix, K)
    np.testing.assert_allclose(found.sigma, torch.linalg.svdvals(matrix.double())[:K], rtol=1e-9)


def test_rough_triples_are_near_the_top_and_say_how_rough_they_are() -> None:
    matrix = SPECTRA["noise alone"]
    found = top_singular(matrix, 2, ROUGH)
    exact = torch.linalg.svdvals(matrix.double())
    assert float(exact[0]) >= float(found.sigma[0]) >= 0.95 * float(exact[0])
    u, v = found.u.double(), found.v.double()
    true = torch.maximum(
        (matrix.double().T @ u - v * found.sigma).norm(dim=0),
        (matrix.double() @ v - u * found.sigma).norm(dim=0),
    )
    np.testing.assert_allclose(found.residual, true / found.sigma, rtol=0.02, atol=1e-5)
    assert float(found.residual.max()) <= ROUGH.near * ROUGH.angle


def test_near_values_make_a_group_that_is_judged_by_its_gap_to_the_rest() -> None:
    sigma = [2.0, 1.0005, 1.0, 0.9995, 0.5]
    assert groups(sigma) == [(0, 1), (1, 4), (4, 5)]
    assert groups([]) == []
    gaps = group_gaps(sigma)
    assert gaps[0] == pytest.approx(0.9995 / 2)
    assert gaps[1:4] == pytest.approx([0.4995 / 1.0005, 0.4995, 0.4995 / 0.9995])
    assert group_gaps([1.0]) == pytest.approx([1e-3])


def test_residual_decides_convergence_and_zero_triples_do_not() -> None:
    sigma = torch.tensor([1.0, 0.5, 1e-9], dtype=torch.float64)
    good = torch.tensor([1e-4, 1e-4, 1.0], dtype=torch.float64)
    empty = torch.empty(0)
    assert converged(Ritz(empty, sigma, empty, good), 3, 1e-6)
    for place in (0, 1):
        bad = good.clone()
        bad[place] = 0.01
        assert not converged(Ritz(empty, sigma, empty, bad), 3, 1e-6)
