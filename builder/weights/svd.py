"""What are the top singular triples of a matrix, or of products of thin factors?

Small matrices are decomposed in full, in float64; large ones as far as asked for
(:mod:`builder.weights.truncated`), with float64 products where float32 would not do; products of
factors exactly, without being formed. Does not decide what to keep of a weight difference.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from builder.weights.truncated import EXACT, Precision, Ritz, truncated

#: Up to this smaller side a full decomposition is cheap.
FULL_SIDE = 256
#: Columns converted to float64 at a time.
_BLOCK = 2048
#: Singular values up to this times sigma_1 are rounding: of a float32 matrix; of exact factors.
FLOOR, FACTOR_FLOOR = 1e-6, 1e-12
#: Below this sigma_k / sigma_1 the rounding of float32 products shows in the fifth digit.
_NEEDS_DOUBLE = 5e-3
#: Eigenvectors taken beyond those asked for.
_SPARE = 8

#: Products of thin factors, (left [d_out, r], right [r, columns]), side by side.
Factors: TypeAlias = Sequence[tuple[torch.Tensor, torch.Tensor]]


class Singular(NamedTuple):
    """The top singular triples, largest first; n <= k where the rank is smaller.

    ``u`` [d_out, n] float32, ``sigma`` [n] float64, ``v`` [d_in, n] float32; ``residual`` [n] is
    the larger of ||M^T u - sigma v|| and ||M v - sigma u||, over sigma, before the vectors were
    rounded to float32. In every ``u`` the entry of largest magnitude (the first of equals) is
    positive.
    """

    u: torch.Tensor
    sigma: torch.Tensor
    v: torch.Tensor
    residual: torch.Tensor


def top_singular(matrix: torch.Tensor, k: int, goal: Precision = EXACT) -> Singular:
    """The ``k`` largest singular triples of a float32 matrix [d_out, d_in], as exact as ``goal``.

    Fewer if its rank is below ``k`` (sigma <= 1e-6 sigma_1 counts as zero), none if it is zero.
    Time: a few times that of k products with a vector, for a spectrum that falls;
    O(d_out * d_in * smaller side) at worst.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    found = None
    if min(matrix.shape) > max(FULL_SIDE, 4 * k):
        # A small eigenvalue problem that does not converge: float64, in full, has no such trouble.
        with contextlib.suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            found = truncated(wide, k, FLOOR, goal)
        if found is not None:
            kept = _kept(found.sigma, k, FLOOR)
            if kept and float(found.sigma[kept - 1]) < _NEEDS_DOUBLE * float(found.sigma[0]):
                found = _sharpened(wide, found.u)
    if found is None:
        found = _decomposed(wide, k)
    kept = _kept(found.sigma, k, FLOOR)
    u, v = (found.v, found.u) if tall else (found.u, found.v)
    return _oriented(u[:, :kept], found.sigma[:kept], v[:, :kept], found.residual[:kept])


def top_singular_of_factors(factors: Factors, k: int) -> Singular:
    """The ``k`` largest singular triples of products side by side, which are never formed.

    ``factors``: (left [d_out, r], right [r, columns]) blocks of one or more products. Two QRs a
    block and an SVD of the small core. Here sigma <= 1e-12 sigma_1 counts as zero.
    """
    rights = [torch.linalg.qr(right.double().T) for _, right in factors]
    # [L1 R1, L2 R2, ...] = [L1 S1', L2 S2', ...] diag(Q1, Q2, ...)' with orthonormal Q.
    core = torch.cat(
        [left.double() @ r.T for (left, _), (_, r) in zip(factors, rights, strict=True)], dim=1
    )
    left_q, left_r = torch.linalg.qr(core)
    p, sigma, qh = torch.linalg.svd(left_r, full_matrices=False)
    widths = [right.shape[1] for _, right in factors]
    kept = _kept(sigma, k, FACTOR_FLOOR)
    sigma, u = sigma[:kept], left_q @ p[:, :kept]
    pieces = qh[:kept].T.split([q.shape[1] for q, _ in rights])
    v = torch.cat([q @ piece for (q, _), piece in zip(rights, pieces, strict=True)])
    forward = torch.cat([right.double().T @ (left.double().T @ u) for left, right in factors])
    backward = torch.zeros(core.shape[0], kept, dtype=torch.float64)
    for (left, right), part in zip(factors, v.split(widths), strict=True):
        backward += left.double() @ (right.double() @ part)
    return _oriented(u, sigma, v, _residual(u, sigma, v, forward, backward))


def factors_norm(factors: Factors) -> float:
    """Frobenius norm of products side by side by r x r traces, in float64."""
    total = 0.0
    for left, right in factors:
        left, right = left.double(), right.double()
        total += float(((left.T @ left) * (right @ right.T)).sum().clamp(min=0))
    return math.sqrt(total)


def matrix_norm(matrix: torch.Tensor) -> float:
    """Frobenius norm of a float32 matrix: rows in float32, their sum in float64."""
    return math.sqrt(float(torch.linalg.vector_norm(matrix, dim=1).double().square().sum()))


def full_spectrum(matrix: torch.Tensor) -> torch.Tensor:
    """All singular values of a float32 matrix, float64, largest first.

    By the eigenvalues of the smaller Gram matrix in float64: those below 1e-8 sigma_1 are rounding.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if len(wide) <= FULL_SIDE:
        values: torch.Tensor = torch.linalg.svdvals(wide.double())
    else:
        values = torch.linalg.eigvalsh(_gram(wide)).flip(0).clamp(min=0).sqrt()
    return values


def orient(vectors: torch.Tensor) -> torch.Tensor:
    """The sign (+1 or -1) of each column [d_out, n] that the sign rule asks for."""
    values = vectors.detach().to("cpu", torch.float32).numpy()
    if not values.size:
        return torch.ones(values.shape[1], dtype=torch.float32)
    # numpy, because its argmax is the first of equal entries.
    largest = np.abs(values).argmax(axis=0)
    signs = np.where(values[largest, np.arange(values.shape[1])] < 0, -1.0, 1.0)
    return torch.from_numpy(signs.astype(np.float32))


def _decomposed(wide: torch.Tensor, k: int) -> Ritz:
    """At least the top ``k`` triples of a matrix [m, n], m <= n, in float64, whatever it takes."""
    if len(wide) <= FULL_SIDE:
        u, sigma, vh = torch.linalg.svd(wide.double(), full_matrices=False)
        v = vh.T
        forward, backward = _times(u.T, wide).T, _times(v.T, wide.T).T
        return Ritz(u, sigma, v, _residual(u, sigma, v, forward, backward))
    # Squaring keeps singular values down to 1e-7 sigma_1 apart, which is below what is kept.
    return _sharpened(wide, torch.linalg.eigh(_gram(wide))[1].flip(1)[:, : k + _SPARE])


def _sharpened(wide: torch.Tensor, basis: torch.Tensor) -> Ritz:
    """The triples of a basis [m, b] by products in float64."""
    basis = basis.double()
    p, sigma, vh = torch.linalg.svd(_times(basis.T, wide), full_matrices=False)
    u, v = basis @ p, vh.T
    return Ritz(u, sigma, v, _residual(u, sigma, v, v * sigma, _times(v.T, wide.T).T))


def _gram(wide: torch.Tensor) -> torch.Tensor:
    gram = wide.new_zeros(len(wide), len(wide), dtype=torch.float64)
    for block in _blocks(wide):
        part = block.double()
        gram += part @ part.T
    return gram


def _times(left: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """``left @ matrix`` in float64 without a float64 copy of the whole matrix."""
    return torch.cat([left @ block.double() for block in _blocks(matrix)], dim=1)


def _blocks(matrix: torch.Tensor) -> Iterator[torch.Tensor]:
    for start in range(0, matrix.shape[1], _BLOCK):
        yield matrix[:, start : start + _BLOCK]


def _kept(sigma: torch.Tensor, k: int, floor: float) -> int:
    return min(k, int((sigma > floor * float(sigma[0])).sum())) if sigma.numel() else 0


def _residual(
    u: torch.Tensor,
    sigma: torch.Tensor,
    v: torch.Tensor,
    forward: torch.Tensor,
    backward: torch.Tensor,
) -> torch.Tensor:
    """The larger of ||forward - sigma v|| and ||backward - sigma u||, [n]."""
    one = torch.linalg.vector_norm(forward - v * sigma, dim=0)
    other = torch.linalg.vector_norm(backward - u * sigma, dim=0)
    return torch.maximum(one, other)


def _oriented(
    u: torch.Tensor, sigma: torch.Tensor, v: torch.Tensor, residual: torch.Tensor
) -> Singular:
    """The triples on the CPU, with the sign that the rule asks for, residuals over sigma."""
    u, v, sigma = u.to("cpu", torch.float32), v.to("cpu", torch.float32), sigma.cpu().double()
    signs = orient(u)
    return Singular(u * signs, sigma, v * signs, residual.cpu().double() / sigma)
