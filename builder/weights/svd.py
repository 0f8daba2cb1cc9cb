"""What are the top singular triples of a matrix, or of a product of two thin factors?

Exact, in float64: a full SVD of small matrices; for large ones the eigenvectors of the smaller
Gram matrix, refined by a small SVD (Rayleigh-Ritz) in a slightly larger subspace. Squaring keeps
singular values down to about 1e-7 sigma_1 apart, which is below what is kept at all.
Source: PAPERS.md, section 1.1. Does not decide what to keep of a weight difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

#: Up to this smaller side a full SVD is cheap.
_FULL_SIDE = 512
#: Extra vectors of the subspace that is refined.
_OVERSAMPLE = 8
#: Columns converted to float64 at a time.
_BLOCK = 2048
#: Singular values below this times sigma_1 times the larger side are rounding of the float32 input.
_EPS = float(torch.finfo(torch.float32).eps)


#: Products of thin factors, (left [d_model, r], right [r, columns]), side by side.
Factors: TypeAlias = Sequence[tuple[torch.Tensor, torch.Tensor]]


class Singular(NamedTuple):
    """The top singular triples, largest first; n <= k where the rank is smaller.

    ``u`` [d_model, n] float32, ``sigma`` [n] float64, ``v`` [d_in, n] float32; ``residual`` [n] is
    the larger of ||M^T u - sigma v|| and ||M v - sigma u||, over sigma. In every ``u`` the entry of
    largest magnitude (the first of equals) is positive.
    """

    u: torch.Tensor
    sigma: torch.Tensor
    v: torch.Tensor
    residual: torch.Tensor


def top_singular(matrix: torch.Tensor, k: int) -> Singular:
    """The ``k`` largest singular triples of a float32 matrix [d_model, d_in].

    Fewer if its rank is below ``k`` (sigma <= eps32 * sigma_1 * larger side counts as zero), none
    if it is zero. Time: O(d_model * d_in * smaller side).
    """
    if min(matrix.shape) <= _FULL_SIDE:
        u, sigma, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
        v = vh.T
    elif matrix.shape[0] <= matrix.shape[1]:
        u, sigma, v = _by_gram(matrix, k)
    else:
        v, sigma, u = _by_gram(matrix.T, k)
    kept = _kept(sigma, k, max(matrix.shape))
    u, sigma, v = u[:, :kept], sigma[:kept], v[:, :kept]
    return _finished(u, sigma, v, _times(u.T, matrix).T, _times(v.T, matrix.T).T)


def top_singular_of_factors(factors: Factors, k: int) -> Singular:
    """The ``k`` largest singular triples of products side by side, which are never formed.

    ``factors``: (left [d_model, r], right [r, columns]) blocks of one or more products. Two QRs a
    block and an SVD of the small core. The same rank rule as :func:`top_singular`.
    """
    rights = [torch.linalg.qr(right.double().T) for _, right in factors]
    # [L1 R1, L2 R2, ...] = [L1 S1', L2 S2', ...] diag(Q1, Q2, ...)' with orthonormal Q.
    core = torch.cat(
        [left.double() @ r.T for (left, _), (_, r) in zip(factors, rights, strict=True)], dim=1
    )
    left_q, left_r = torch.linalg.qr(core)
    p, sigma, qh = torch.linalg.svd(left_r, full_matrices=False)
    columns = sum(right.shape[1] for _, right in factors)
    kept = _kept(sigma, k, max(core.shape[0], columns))
    u = left_q @ p[:, :kept]
    widths = [q.shape[1] for q, _ in rights]
    pieces = qh[:kept].T.split(widths)
    v = torch.cat([q @ piece for (q, _), piece in zip(rights, pieces, strict=True)])
    back = torch.cat([right.double().T @ (left.double().T @ u) for left, right in factors])
    parts = v.split([right.shape[1] for _, right in factors])
    forth = sum(
        (
            left.double() @ (right.double() @ part)
            for (left, right), part in zip(factors, parts, strict=True)
        ),
        torch.zeros(core.shape[0], kept, dtype=torch.float64),
    )
    return _finished(u, sigma[:kept], v, back, forth)


def factors_norm(factors: Factors) -> float:
    """Frobenius norm of products side by side by r x r traces, in float64."""
    squares = (
        float(((left.T @ left) * (right @ right.T)).sum().clamp(min=0))
        for left, right in ((left.double(), right.double()) for left, right in factors)
    )
    return math.sqrt(sum(squares))


def orient(vectors: torch.Tensor) -> torch.Tensor:
    """The sign (+1 or -1) of each column [d_model, n] that the sign rule asks for."""
    values = vectors.detach().to(torch.float32).numpy()
    if not values.size:
        return torch.ones(values.shape[1], dtype=torch.float32)
    # numpy, because its argmax is the first of equal entries.
    largest = np.abs(values).argmax(axis=0)
    signs = np.where(values[largest, np.arange(values.shape[1])] < 0, -1.0, 1.0)
    return torch.from_numpy(signs.astype(np.float32))


def _by_gram(matrix: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Top triples of a wide matrix, float64, from the eigenvectors of matrix @ matrix.T."""
    rows = matrix.shape[0]
    gram = torch.zeros(rows, rows, dtype=torch.float64)
    for block in _blocks(matrix):
        wide = block.double()
        gram += wide @ wide.T
    _, vectors = torch.linalg.eigh(gram)
    subspace = vectors[:, -min(rows, k + _OVERSAMPLE) :]
    p, sigma, vh = torch.linalg.svd(_times(subspace.T, matrix), full_matrices=False)
    return subspace @ p, sigma, vh.T


def _times(left: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """``left @ matrix`` in float64 without a float64 copy of the whole matrix."""
    return torch.cat([left @ block.double() for block in _blocks(matrix)], dim=1)


def _blocks(matrix: torch.Tensor) -> Iterator[torch.Tensor]:
    for start in range(0, matrix.shape[1], _BLOCK):
        yield matrix[:, start : start + _BLOCK]


def _kept(sigma: torch.Tensor, k: int, side: int) -> int:
    if not sigma.numel():
        return 0
    return min(k, int((sigma > _EPS * float(sigma[0]) * side).sum()))


def _finished(
    u: torch.Tensor,
    sigma: torch.Tensor,
    v: torch.Tensor,
    transposed_times_u: torch.Tensor,
    times_v: torch.Tensor,
) -> Singular:
    forward = torch.linalg.vector_norm(transposed_times_u - v * sigma, dim=0)
    backward = torch.linalg.vector_norm(times_v - u * sigma, dim=0)
    signs = orient(u)
    return Singular(
        u.to(torch.float32) * signs,
        sigma,
        v.to(torch.float32) * signs,
        torch.maximum(forward, backward) / sigma,
    )
