"""What does the spectrum of one weight difference say, and what feeds its directions?

Shape of the spectrum, the sizes that chance alone would reach, and the heads or neurons that a
right singular vector reads from. Source of the shape features: Paul 2026 (arXiv 2604.08844).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch

from builder.records import WRITERS, Spectrum
from builder.weights.delta import WeightDelta
from builder.weights.layout import Part

#: Heads and neurons named for each direction.
_HEADS, _NEURONS = 3, 5
#: Where the singular vectors of the side that is not in the residual stream lie.
_SPACES = {"o_proj": "heads", "q_proj": "heads", "k_proj": "keys", "v_proj": "values"}
_EXPERT = re.compile(r"\.experts\.(\d+)\.")


def spectrum_of(
    delta: WeightDelta, sigma: torch.Tensor, frobenius: float, *, is_full: bool
) -> Spectrum:
    """The spectrum of a weight difference from its singular values [n] float64, largest first.

    ``is_full``: there are no others but zeros.
    """
    rows, columns = delta.shape
    writer = delta.hookpoint.writer
    first = float(sigma[0]) if sigma.numel() else 0.0
    # Entries of one size in random places: sigma_1 nears size * (sqrt(m) + sqrt(n)) (Bai and Yin
    # 1988, for entries whose fourth moment is finite).
    edge = math.sqrt(rows) + math.sqrt(columns)
    entropy = concentration = effective_rank = math.nan
    if is_full and first > 0.0:
        shares = sigma / sigma.sum()
        present = shares[shares > 0]
        entropy = float(-(present * present.log()).sum())
        concentration, effective_rank = float(shares[0]), math.exp(entropy)
    return Spectrum(
        hookpoint=delta.hookpoint,
        shape=delta.shape,
        sigmas=sigma.to(torch.float32).numpy(),
        frobenius=frobenius,
        stable_rank=(frobenius / first) ** 2 if first else 0.0,
        side="left" if writer in WRITERS else "right",
        space=_SPACES.get(writer, "neurons"),
        shuffled_floor=frobenius / math.sqrt(rows * columns) * edge,
        rounding_floor=delta.rounding * edge,
        is_full=is_full,
        entropy=entropy,
        concentration=concentration,
        effective_rank=effective_rank,
    )


def head_shares(right: torch.Tensor, heads: int) -> list[tuple[tuple[str, float], ...]]:
    """The heads that each right singular vector [d_in, n] of an ``o_proj`` reads from most.

    (``head 3``, share of ||v||^2), largest first; nothing if the heads do not divide its input.
    """
    size, count = right.shape
    if heads < 1 or size % heads:
        return [()] * count
    shares = right.double().square().reshape(heads, size // heads, count).sum(dim=1)
    return [
        tuple((f"head {head}", share) for head, share in row)
        for row in _largest(shares, min(_HEADS, heads))
    ]


def neuron_shares(
    right: torch.Tensor, parts: Sequence[Part], widths: Sequence[int]
) -> list[tuple[tuple[str, float], ...]]:
    """The MLP neurons that each right singular vector [d_in, n] of a ``down_proj`` reads from most.

    (``neuron 1204``, share of ||v||^2), largest first. In a mixture, whose ``parts`` are ``widths``
    wide, a neuron's expert is named as well.
    """
    names = [_expert(part) for part in parts] if len(parts) > 1 else [""]
    starts = [sum(widths[:place]) for place in range(len(widths))]

    def name(column: int) -> str:
        place = max(place for place, start in enumerate(starts) if start <= column)
        return f"{names[place]}neuron {column - starts[place]}"

    return [
        tuple((name(column), share) for column, share in row)
        for row in _largest(right.double().square(), min(_NEURONS, len(right)))
    ]


def _expert(part: Part) -> str:
    hit = _EXPERT.search(part.name)
    number = part.expert if part.expert is not None else (int(hit[1]) if hit else None)
    return "shared expert, " if number is None else f"expert {number}, "


def _largest(shares: torch.Tensor, count: int) -> list[list[tuple[int, float]]]:
    """(row, value) of the ``count`` largest entries of each column [rows, n]."""
    values, places = shares.topk(count, dim=0)
    return [
        list(zip(rows, found, strict=True))
        for rows, found in zip(places.T.tolist(), values.T.tolist(), strict=True)
    ]
