"""What are the top singular triples of a large dense matrix, without decomposing all of it?

Subspace iteration that stops when the answer is right, not after a number of steps. A sketch
(random sums of the matrix's columns) gives a first subspace. Steps improve it, each by the best
triples of the subspace and of where its residuals point, in bfloat16 where the hardware multiplies
that several times faster, down to what bfloat16 can tell. Half steps in float32 finish it. A
spectrum that hardly falls behind the vectors asked for, as at the edge of a noise bulk, would take
very many steps: there the Gram matrix is formed, without the vectors that stand out and whose
squares would drown the rest, and a Chebyshev filter, which costs little on it, does the work.

When it stops: let r be the residual and gap the distance to the nearest other singular value, both
over sigma. The angle between u and the true vector is at most about r / gap, and the relative error
of sigma r^2 / gap. Both must be as small as asked for (``Precision``), at every vector. Those that
are too close together to tell apart are taken as one group, of which only the common subspace is
determined, by its gap to the rest.
Sources: Halko, Martinsson and Tropp 2011 (randomized range finder); Knyazev 2001 (steps along
residuals); Zhou, Saad, Tiago and Chelikowsky 2006 (Chebyshev filter); Davis and Kahan 1970 (the
bound).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Precision(NamedTuple):
    """How exact triples have to be: ``angle`` of a vector, relative ``error`` of a singular value.

    Singular values closer than ``near`` (relative) are not told apart.
    """

    near: float = 1e-3
    angle: float = 0.01
    error: float = 5e-6


EXACT = Precision()
#: Enough for a vector that only has to be among the strongest: its residual is 5% of sigma.
ROUGH = Precision(near=0.2, angle=0.25, error=0.1)

#: Vectors iterated beyond those asked for: in float32, and in the cheap steps before.
_SPARE, _SPARE_LOW = 4, 28
_SKETCH = 96
#: Relative residual at which the cheap steps end; bfloat16 gets little below it.
_LOW_ENOUGH, _FULL_ENOUGH = 4e-3, 1e-5
#: A step that leaves more than this of the residual is too slow, or at what bfloat16 can tell.
_SLOW, _SLOW_BUT_ROUGH, _LOW_AT_REST = 0.7, 0.97, 1e-2
_MOST_STEPS, _HALF_STEPS, _FILTERS = 40, 4, 30
_FILTER_DEGREE = 30
#: Columns of the matrix that are multiplied together.
_BLOCK = 2048
#: A vector stands out if its eigenvalue is this many times the last one asked for; it may pull at
#: the others by this share of their eigenvalues.
_STANDS_OUT, _PULL = 1.2, 5e-6
_TINY = 1e-30


@dataclass(slots=True)
class Ritz:
    """Approximate triples of M [m, n], largest first: u [m, b], sigma [b] float64, v [n, b].

    ``residual`` [b] float64 is the larger of ||M v - sigma u|| and ||M^T u - sigma v||; the other
    of the two is zero by construction.
    """

    u: torch.Tensor
    sigma: torch.Tensor
    v: torch.Tensor
    residual: torch.Tensor


def truncated(matrix: torch.Tensor, k: int, floor: float, goal: Precision = EXACT) -> Ritz | None:
    """At least the top ``k`` triples of a matrix [m, n] with m <= n; None if they do not converge.

    Triples whose sigma is at most ``floor`` * sigma_1 count as zero and need not converge.
    """
    low = _low_precision(matrix)
    sketch = _sketched(low, min(matrix.shape[0], k + _SPARE_LOW))
    if sketch is None:
        return None
    enough = max(_LOW_ENOUGH, goal.angle * goal.near)
    basis, sigma, rest = _steps(low, sketch, k, floor, enough)
    del low
    good = int((rest < max(_LOW_AT_REST, enough)).long().cumprod(0).sum())
    if good >= k:
        found = _finished(matrix, basis[:, : k + _SPARE], k, floor, goal)
        if not converged(found, k, floor, goal):
            # Neighbours behind the k-th hold it up; steps along residuals tell them apart.
            near = goal.angle * min(group_gaps(found.sigma.tolist(), goal.near)[:k])
            basis, sigma, rest = _steps(matrix, basis, k, floor, max(near, _FULL_ENOUGH))
            good = int((rest < _LOW_AT_REST).long().cumprod(0).sum())
            found = _finished(matrix, basis, k, floor, goal)
        if converged(found, k, floor, goal):
            return found
    if float(sigma[-1]) <= floor * float(sigma[0]):  # nothing to damp: all there is was found
        return None
    return _by_gram(matrix, basis, sigma, good, k, floor, goal)


def converged(found: Ritz, k: int, floor: float, goal: Precision = EXACT) -> bool:
    """Whether the first ``k`` triples that are not zero are as exact as they have to be."""
    sigma, residual = found.sigma.tolist(), found.residual.tolist()
    kept = _kept(found.sigma, k, floor)
    gaps = group_gaps(sigma, goal.near)
    for value, rest, gap in zip(sigma[:kept], residual, gaps, strict=False):
        relative = rest / max(value, _TINY)
        if relative > goal.angle * gap or relative * relative > goal.error * gap:
            return False
    return True


def groups(sigma: Sequence[float], near: float = EXACT.near) -> list[tuple[int, int]]:
    """The runs (first, past last) of singular values, largest first, closer than ``near``."""
    cuts = [
        place
        for place in range(1, len(sigma))
        if sigma[place - 1] - sigma[place] > near * sigma[place - 1]
    ]
    return list(zip([0, *cuts], [*cuts, len(sigma)], strict=True)) if sigma else []


def group_gaps(sigma: Sequence[float], near: float = EXACT.near) -> list[float]:
    """Distance from each singular value's group to the nearest value outside it, over the value.

    What follows the last value is not known, and taken to be just out of its group.
    """
    gaps: list[float] = []
    for first, stop in groups(sigma, near):
        before = sigma[first - 1] - sigma[first] if first else math.inf
        behind = sigma[stop - 1] - (sigma[stop] if stop < len(sigma) else sigma[-1] * (1 - near))
        gaps += [min(before, behind) / max(value, _TINY) for value in sigma[first:stop]]
    return gaps


def _kept(sigma: torch.Tensor, k: int, floor: float) -> int:
    return max(1, min(k, int((sigma > floor * sigma[0]).sum())))


def _sketched(matrix: torch.Tensor, count: int) -> torch.Tensor | None:
    """An orthonormal basis [m, count] that leans on the matrix's strongest left directions.

    It has a part along every left singular vector, whatever the matrix is made of: what it missed
    altogether, no step could find. None if the entries are too large or too small for float32.
    """
    width = max(_SKETCH, count)
    total = (matrix @ _random(matrix.shape[1], width).to(matrix)).float()
    size = float(total.abs().max())
    if not 1e-12 < size < 1e12:
        return None
    total /= size
    _, vectors = torch.linalg.eigh((total.T @ total).double())
    return _orthonormal(total @ vectors[:, -count:].flip(1).to(total))


@functools.lru_cache(maxsize=8)
def _random(rows: int, columns: int) -> torch.Tensor:
    """The same normal numbers for every matrix: results must not depend on what came before."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))


def _steps(
    matrix: torch.Tensor, basis: torch.Tensor, k: int, floor: float, enough: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An improved basis [m, b], strongest first, the sigma [b] and relative residuals [b] it had.

    Ends when those of the first ``k`` are ``enough`` or fall too slowly. Residuals of triples that
    count as zero are zero. Products are made in the type of ``matrix``.
    """
    count, patience, slow = basis.shape[1], max(5.0, matrix.shape[0] / 256), _SLOW
    if enough > _LOW_ENOUGH:  # rough triples need no other way, however slowly they come
        patience, slow = _MOST_STEPS, _SLOW_BUT_ROUGH
    half = (basis.T.to(matrix.dtype) @ matrix).float()
    gram = half @ half.T
    last = math.inf
    for _ in range(_MOST_STEPS):
        sigma, turn = _turned(gram, count)
        u, weighted, scale = basis @ turn, turn.T @ half, sigma.float()
        inverse = _inverse(scale)
        image = (matrix @ (weighted * inverse[:, None]).to(matrix.dtype).T).float()
        rest = image - u * scale
        sizes = torch.linalg.vector_norm(rest, dim=0)
        kept = _kept(sigma, k, floor)
        relative = sizes * inverse
        relative[kept:k] = 0.0
        worst = float(relative[:kept].max())
        if worst < enough or worst > slow * last:
            break
        if math.log(worst / enough) > patience * math.log(last / worst):
            break
        last = worst
        # The next subspace is that of the triples and of their residuals.
        rest /= sizes.clamp(min=_TINY)
        new = _orthonormal(rest - u @ (u.T @ rest))
        onto = (new.T.to(matrix.dtype) @ matrix).float()
        cross = onto @ weighted.T
        above = torch.cat([torch.diag(scale.square()), cross.T], dim=1)
        gram = torch.cat([above, torch.cat([cross, onto @ onto.T], dim=1)])
        basis, half = torch.cat([u, new], dim=1), torch.cat([weighted, onto])
    return _orthonormal(image), sigma, relative


def _low_precision(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix in bfloat16 where that is fast, else itself."""
    if matrix.is_cuda:
        return matrix.to(torch.bfloat16)
    able = torch.cpu.get_capabilities()
    return matrix.to(torch.bfloat16) if able.get("avx512_bf16") or able.get("amx_bf16") else matrix


def _finished(
    matrix: torch.Tensor, basis: torch.Tensor, k: int, floor: float, goal: Precision
) -> Ritz:
    """The triples of an almost exact basis, after as few half steps as make them converged.

    They may be short of it if that takes more than a few.
    """
    half = basis.T @ matrix
    sigma, turn = _turned(half @ half.T, len(half))
    u = basis @ turn
    v = ((turn.T @ half) * _inverse(sigma.to(half.dtype))[:, None]).T
    for step in range(_HALF_STEPS):
        # Half steps take turns: one side of a triple is exact, the other is looked at.
        here, there = (u, v) if step % 2 == 0 else (v, u)
        image = (there.T @ matrix.T).T if step % 2 == 0 else (there.T @ matrix).T
        rest = torch.linalg.vector_norm(image - here * sigma.to(image.dtype), dim=0)
        found = Ritz(u, sigma, v, rest.double())
        if converged(found, k, floor, goal):
            break
        sigma, turn = _turned(image.T @ image, image.shape[1])
        here = (image @ turn) * _inverse(sigma.to(image.dtype))
        there = there @ turn
        u, v = (here, there) if step % 2 == 0 else (there, here)
    return found


def _turned(gram: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Roots of the ``count`` largest eigenvalues, float64, largest first, and their vectors."""
    values, vectors = torch.linalg.eigh(gram.double())
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    return values.clamp(min=0).sqrt(), vectors.to(gram.dtype)


def _inverse(sigma: torch.Tensor) -> torch.Tensor:
    """1 / sigma, and 0 where it is rounding of the first."""
    return torch.where(sigma > 1e-6 * sigma[0], 1 / sigma.clamp(min=_TINY), 0.0)


def _orthonormal(matrix: torch.Tensor) -> torch.Tensor:
    basis: torch.Tensor = torch.linalg.qr(matrix)[0]
    return basis


def _by_gram(
    matrix: torch.Tensor,
    basis: torch.Tensor,
    sigma: torch.Tensor,
    good: int,
    k: int,
    floor: float,
    goal: Precision,
) -> Ritz | None:
    """The same by a Chebyshev filter on M M^T; None if that does not converge either.

    ``basis`` [m, b] has about the singular values ``sigma``; the first ``good`` are almost exact.
    """
    values = sigma.square()
    out = basis[:, :0]
    good = min(good, k - 1, int((values > _STANDS_OUT * values[k - 1]).sum()))
    if good:
        sharp, rest = _sharper(matrix, basis[:, :good])
        # The half step after the residuals were taken left sigma_k / sigma of them.
        left = rest * (values[k - 1] / values[:good]).sqrt()
        strong = _standing_out(values, left, k)
        out, values = sharp[:, :strong], values[strong:]
        basis = torch.cat([sharp[:, strong:], basis[:, good:]], dim=1)
        basis = _orthonormal(basis - out @ (out.T @ basis))
    gram = _gram(matrix, out)
    rest = torch.ones_like(values)
    for _ in range(_FILTERS):
        ahead = k - out.shape[1]
        strong = _standing_out(values, rest, ahead)
        if strong:
            _project_out(gram, basis[:, :strong])
            out, basis = torch.cat([out, basis[:, :strong]], dim=1), basis[:, strong:]
            values, ahead = values[strong:], ahead - strong
        if float(values[-1]) <= floor * floor * float(sigma[0]) ** 2:
            return None  # what is left to damp is rounding
        basis = _filtered(gram, basis, values, ahead)
        image = gram @ basis
        values, turn = torch.linalg.eigh((basis.T @ image).double())
        values, turn = values.flip(0).clamp(min=0), turn.flip(1).to(gram.dtype)
        sigma, basis, image = values.sqrt(), basis @ turn, image @ turn
        rest = torch.linalg.vector_norm(image - basis * values.to(gram.dtype), dim=0).double()
        rest /= values.clamp(min=_TINY)
        if converged(Ritz(basis, sigma, basis, rest * sigma), ahead, floor, goal):
            whole = torch.cat([out, basis[:, : ahead + _SPARE]], dim=1)
            found = _finished(matrix, _orthonormal(whole), k, floor, goal)
            return found if converged(found, k, floor, goal) else None
    return None


def _sharper(matrix: torch.Tensor, basis: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A basis after a step in float32, and the relative residuals before its second half."""
    half = basis.T @ matrix
    sigma, turn = _turned(half @ half.T, len(half))
    scale = sigma.to(half.dtype)
    image = matrix @ ((turn.T @ half) * _inverse(scale)[:, None]).T
    rest = torch.linalg.vector_norm(image - (basis @ turn) * scale, dim=0).double()
    _, turn = _turned(image.T @ image, image.shape[1])
    return _orthonormal(image @ turn), rest / sigma.clamp(min=_TINY)


def _standing_out(values: torch.Tensor, rest: torch.Tensor, k: int) -> int:
    """How many leading vectors are far enough above the k-th, and exact enough, to be taken out.

    ``values`` are eigenvalues of the Gram matrix, ``rest`` relative residuals of the first. What is
    taken out wrongly pulls at the others by the square of its residual times its value.
    """
    first = values[: len(rest)]
    pull = rest.square() * first / values[k - 1]
    fit = (first > _STANDS_OUT * values[k - 1]) & (pull < _PULL)
    return min(k - 1, int(fit.long().cumprod(0).sum()))


def _gram(matrix: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """P M M^T P [m, m] with P = 1 - out out^T; only the upper blocks are multiplied.

    Vectors that stand out are taken out of M, not of the product, where their squares have drowned
    the rest already.
    """
    rows, columns = matrix.shape
    gram = matrix.new_zeros(rows, rows)
    step, width = -(-rows // 8), max(_BLOCK, rows // 2)
    for first in range(0, columns, width):
        part = matrix[:, first : first + width]
        if out.shape[1]:
            part = torch.addmm(part, out, out.T @ part, alpha=-1)
        for start in range(0, rows, step):
            gram[start : start + step, start:].addmm_(part[start : start + step], part[start:].T)
    for start in range(0, rows, step):
        gram[start:, start : start + step] = gram[start : start + step, start:].T
    return gram


def _project_out(gram: torch.Tensor, out: torch.Tensor) -> None:
    """Turns G into P G P in place, with P = 1 - out out^T."""
    image = gram @ out
    image -= 0.5 * out @ (out.T @ image)
    gram.addmm_(image, out.T, alpha=-1)
    gram.addmm_(out, image.T, alpha=-1)


def _filtered(
    gram: torch.Tensor, basis: torch.Tensor, values: torch.Tensor, k: int
) -> torch.Tensor:
    """An orthonormal basis in which eigenvalues below the smallest of ``values`` are damped."""
    cut = float(values[-1])
    # A Chebyshev polynomial is small on [0, cut] and grows beyond it: enough for the k-th value to
    # be amplified 10^4 times, and not so much more for the first that rounding of it drowns the
    # k-th, which float32 allows to about 10^5.
    kth, first = (math.acosh(max(1.0, 2 * float(values[at]) / cut - 1)) for at in (k - 1, 0))
    degree = min(_FILTER_DEGREE, int(10 / max(kth, 0.1)), int(11 / max(first - kth, 0.1)))
    before, now = basis, (2 / cut) * (gram @ basis) - basis
    for _ in range(max(2, degree) - 1):
        before, now = now, (4 / cut) * (gram @ now) - 2 * now - before
    return _orthonormal(now)
