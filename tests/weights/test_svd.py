from __future__ import annotations

import numpy as np
import pytest
import torch

from builder.weights import svd
from builder.weights.svd import (
    factors_norm,
    full_spectrum,
    matrix_norm,
    orient,
    top_singular,
    top_singular_of_factors,
)


@pytest.fixture(params=["full", "gram"])
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both exact ways: the full SVD of small matrices, the Gram matrix where steps gave up."""
    monkeypatch.setattr(svd, "FULL_SIDE", 10**9 if request.param == "full" else 0)
    monkeypatch.setattr(svd, "truncated", lambda *_: None)
    monkeypatch.setattr(svd, "_BLOCK", 37)


def _with_spectrum(rows: int, columns: int, sigma: list[float], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, len(sigma), generator=generator).double())
    right, _ = torch.linalg.qr(torch.randn(columns, len(sigma), generator=generator).double())
    product: torch.Tensor = (left * torch.tensor(sigma).double()) @ right.T
    return product.float()


SHAPES = [(40, 96), (96, 40), (48, 48), (5, 70), (70, 5)]


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize("shape", SHAPES)
def test_random_matrix_gives_the_triples_of_torch_svd(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    found = top_singular(matrix, 6)
    u, sigma, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    n = min(6, *shape)
    assert found.u.shape == (shape[0], n)
    assert found.v.shape == (shape[1], n)
    np.testing.assert_allclose(found.sigma, sigma[:n], rtol=1e-10)
    np.testing.assert_allclose((found.u.double() * u[:, :n]).sum(0).abs(), 1.0, atol=1e-6)
    np.testing.assert_allclose((found.v.double() * vh[:n].T).sum(0).abs(), 1.0, atol=1e-6)


@pytest.mark.usefixtures("_path")
def test_matrix_of_low_rank_gives_no_more_directions_than_its_rank() -> None:
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(64, 8, generator=generator) @ torch.randn(8, 90, generator=generator)
    found = top_singular(matrix, 20)
    assert found.sigma.shape == (8,)
    assert found.u.shape == (64, 8)
    np.testing.assert_allclose(found.sigma, torch.linalg.svdvals(matrix.double())[:8], rtol=1e-8)


@pytest.mark.usefixtures("_path")
def test_singular_values_far_apart_keep_their_accuracy() -> None:
    sigma = [10.0, 1.0, 0.1, 0.011, 0.01]
    matrix = _with_spectrum(60, 80, sigma)
    found = top_singular(matrix, 5)
    u, exact, _ = torch.linalg.svd(matrix.double())
    np.testing.assert_allclose(found.sigma, exact[:5], rtol=1e-7)
    np.testing.assert_allclose((found.u.double() * u[:, :5]).sum(0).abs(), 1.0, atol=1e-6)


@pytest.mark.usefixtures("_path")
def test_nearly_equal_singular_values_give_their_common_subspace() -> None:
    matrix = _with_spectrum(50, 70, [3.0, 2.0 + 1e-6, 2.0, 2.0 - 1e-6, 0.5, 0.4])
    found = top_singular(matrix, 4)
    u, exact, _ = torch.linalg.svd(matrix.double())
    np.testing.assert_allclose(found.sigma, exact[:4], rtol=1e-9)
    cosines = torch.linalg.svdvals(found.u[:, 1:4].double().T @ u[:, 1:4])
    np.testing.assert_allclose(cosines, 1.0, atol=1e-6)
    gram = found.u.double().T @ found.u.double()
    np.testing.assert_allclose(gram, torch.eye(4), atol=1e-6)


@pytest.mark.usefixtures("_path")
def test_residual_of_an_exact_triple_is_tiny() -> None:
    matrix = torch.randn(60, 40, generator=torch.Generator().manual_seed(3))
    assert float(top_singular(matrix, 10).residual.max()) < 1e-10


def test_residual_shows_a_subspace_that_is_not_singular(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch.linalg.eigh

    def coarse(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = exact(gram)
        noise = torch.randn(gram.shape, generator=torch.Generator().manual_seed(0)).double()
        return values, torch.linalg.qr(vectors + 0.02 * noise)[0]

    monkeypatch.setattr(svd, "FULL_SIDE", 0)
    monkeypatch.setattr(svd, "truncated", lambda *_: None)
    monkeypatch.setattr(torch.linalg, "eigh", coarse)
    matrix = torch.randn(60, 80, generator=torch.Generator().manual_seed(4))
    assert float(top_singular(matrix, 3).residual.min()) > 1e-3


@pytest.mark.usefixtures("_path")
def test_zero_matrix_has_no_singular_triples() -> None:
    found = top_singular(torch.zeros(30, 20), 5)
    assert found.u.shape == (30, 0)
    assert found.sigma.shape == (0,)


@pytest.mark.usefixtures("_path")
def test_largest_entry_of_every_left_vector_is_positive() -> None:
    matrix = torch.randn(40, 50, generator=torch.Generator().manual_seed(5))
    for sign in (1.0, -1.0):
        found = top_singular(sign * matrix, 12)
        u = found.u.numpy()
        assert (u[np.abs(u).argmax(axis=0), np.arange(12)] > 0).all()
        product = (found.u * found.sigma.float()) @ found.v.T
        exact = torch.linalg.svd(sign * matrix)
        np.testing.assert_allclose(
            product, (exact.U[:, :12] * exact.S[:12]) @ exact.Vh[:12], atol=1e-4
        )


@pytest.mark.usefixtures("_path")
def test_full_spectrum_is_that_of_torch_svd() -> None:
    matrix = torch.randn(60, 40, generator=torch.Generator().manual_seed(9))
    exact = torch.linalg.svdvals(matrix.double())
    np.testing.assert_allclose(full_spectrum(matrix), exact, rtol=1e-9)
    np.testing.assert_allclose(full_spectrum(matrix.T), exact, rtol=1e-9)
    assert matrix_norm(matrix) == pytest.approx(float(matrix.double().norm()), rel=1e-7)


def test_products_side_by_side_have_the_triples_of_the_joined_matrix() -> None:
    generator = torch.Generator().manual_seed(10)
    factors = [
        (torch.randn(30, rank, generator=generator), torch.randn(rank, width, generator=generator))
        for rank, width in ((3, 20), (0, 5), (2, 15))
    ]
    dense = torch.cat([left.double() @ right.double() for left, right in factors], dim=1)
    found = top_singular_of_factors(factors, 10)
    u, sigma, vh = torch.linalg.svd(dense, full_matrices=False)
    np.testing.assert_allclose(found.sigma, sigma[:5], rtol=1e-10)
    np.testing.assert_allclose((found.u.double() * u[:, :5]).sum(0).abs(), 1.0, atol=1e-6)
    np.testing.assert_allclose((found.v.double() * vh[:5].T).sum(0).abs(), 1.0, atol=1e-6)
    assert float(found.residual.max()) < 1e-10
    assert factors_norm(factors) == pytest.approx(float(dense.norm()), rel=1e-12)


def test_sign_of_equal_entries_is_that_of_the_first() -> None:
    vectors = torch.tensor([[0.0, 0.0], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
    assert orient(vectors).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(("rows", "columns", "rank"), [(50, 70, 8), (70, 50, 8), (6, 40, 8)])
def test_product_of_factors_has_the_triples_of_the_dense_product(
    rows: int, columns: int, rank: int
) -> None:
    generator = torch.Generator().manual_seed(6)
    left = torch.randn(rows, rank, generator=generator)
    right = torch.randn(rank, columns, generator=generator)
    found = top_singular_of_factors([(left, right)], 20)
    dense = left.double() @ right.double()
    u, sigma, vh = torch.linalg.svd(dense, full_matrices=False)
    n = min(rank, rows, columns)
    assert len(found.sigma) == n
    np.testing.assert_allclose(found.sigma, sigma[:n], rtol=1e-10)
    np.testing.assert_allclose((found.u.double() * u[:, :n]).sum(0).abs(), 1.0, atol=1e-6)
    np.testing.assert_allclose((found.v.double() * vh[:n].T).sum(0).abs(), 1.0, atol=1e-6)
    assert float(found.residual.max()) < 1e-10
    assert factors_norm([(left, right)]) == pytest.approx(float(dense.norm()), rel=1e-12)


def test_factors_of_deficient_rank_give_only_that_rank() -> None:
    left = torch.randn(30, 4, generator=torch.Generator().manual_seed(7))
    right = torch.randn(2, 40, generator=torch.Generator().manual_seed(8))
    found = top_singular_of_factors([(left, torch.cat([right, right]))], 4)
    assert len(found.sigma) == 2
