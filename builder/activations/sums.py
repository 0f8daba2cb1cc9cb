"""How are activations summed up per direction and role? Counts, moments, ranges and histograms.

Everything stays on the device until the shard is done, and nothing in here waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from builder.activations.batch import NO_ROLE
from builder.records import HISTOGRAM_BINS, ROLES

_R = len(ROLES)
#: One bin more on the device: an activation of exactly 1 falls behind the last.
_SLOTS = HISTOGRAM_BINS + 1


@dataclass(frozen=True, slots=True, eq=False)
class Stats:
    """Sums over tokens per model, direction and role: [M, D, R], histogram counts [M, D, R, bins].

    M is 1, or 3 with a base (see MODELS).
    """

    n: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]


class Sums:
    """Running sums of one layer's directions [R, D_l] for one model."""

    def __init__(self, width: int, device: torch.device) -> None:
        """``width`` directions."""
        # Apple's GPU knows no float64.
        wide = torch.float32 if device.type == "mps" else torch.float64
        self._n = torch.zeros(_R, dtype=torch.int64, device=device)
        self._total = torch.zeros(_R, width, dtype=wide, device=device)
        self._squares = torch.zeros(_R, width, dtype=wide, device=device)
        # One row more for the places without a role.
        self._minimum = torch.full((_R + 1, width), torch.inf, device=device)
        self._maximum = torch.full((_R + 1, width), -torch.inf, device=device)
        size = (_R + 1) * width * _SLOTS
        self._counts = torch.zeros(size, dtype=torch.int64, device=device)
        self._columns = torch.arange(width, dtype=torch.int32, device=device) * _SLOTS
        self._width = width
        # Sums are of the distances from a value near the mean, without which the moments of a
        # direction that all tokens lie far along, by nearly the same, would be lost to rounding.
        self._shift: torch.Tensor | None = None
        self._one = torch.ones((), dtype=torch.int64, device=device)

    def add(
        self, activation: torch.Tensor, role: torch.Tensor, spare: torch.Tensor, bins: torch.Tensor
    ) -> None:
        """Adds ``activation`` [N, D_l] of places of ``role`` [N]; those of NO_ROLE do not count.

        ``spare`` float32 and ``bins`` int32, both [N, D_l], are overwritten: fresh memory for every
        call would cost more than the sums.
        """
        belongs = torch.zeros(len(role), _R + 1, device=activation.device)
        belongs.scatter_(1, role[:, None], 1.0)
        belongs = belongs[:, :_R]
        n = belongs.sum(dim=0)
        self._n += n.long()
        if self._shift is None:
            self._shift = (belongs.T @ activation).sum(dim=0) / n.sum().clamp(min=1)
        torch.sub(activation, self._shift, out=spare)
        self._total += belongs.T @ spare
        self._squares += belongs.T @ spare.mul_(spare)
        # [-1, 1] to [0, bins]; rounding may put a cosine a little outside.
        bins.copy_(torch.add(activation, 1.0, out=spare).mul_(HISTOGRAM_BINS / 2))
        bins.clamp_(0, HISTOGRAM_BINS)  # of integers: not even NaN gets past
        bins += (role.int() * (self._width * _SLOTS))[:, None]
        bins += self._columns
        if bins.device.type == "cuda":  # where bincount would wait for the device
            flat = bins.view(-1).long()
            self._counts.scatter_add_(0, flat, self._one.expand_as(flat))
        else:
            self._counts += torch.bincount(bins.view(-1), minlength=len(self._counts))

    def widen(self, least: torch.Tensor, most: torch.Tensor, role: torch.Tensor) -> None:
        """Widens the range by values [n, D_l] of ``role`` [n]."""
        spread = role[:, None].expand_as(most)
        self._maximum.scatter_reduce_(0, spread, most, "amax")
        self._minimum.scatter_reduce_(0, spread, least, "amin")

    def put(self, stats: Stats, model: int, where: npt.NDArray[np.int64]) -> None:
        """Writes the sums to the places ``where`` of ``model``."""
        n = self._n.cpu().double().numpy()[None, :]
        shift = np.zeros((self._width, 1))
        if self._shift is not None:
            shift = self._shift.cpu().double().numpy()[:, None]
        off = self._total.T.cpu().double().numpy()
        stats.n[model, where] = self._n.cpu().numpy()[None, :]
        stats.total[model, where] = off + n * shift
        squares = self._squares.T.cpu().double().numpy()
        stats.squares[model, where] = squares + shift * (2 * off + n * shift)
        stats.minimum[model, where] = self._minimum[:_R].T.cpu().numpy()
        stats.maximum[model, where] = self._maximum[:_R].T.cpu().numpy()
        counts = self._counts.view(_R + 1, self._width, _SLOTS)[:_R].cpu().numpy()
        counts[:, :, HISTOGRAM_BINS - 1] += counts[:, :, HISTOGRAM_BINS]
        stats.counts[model, where] = counts[:, :, :HISTOGRAM_BINS].transpose(1, 0, 2)


def gathered(
    sums: Sequence[Mapping[int, Sums]], places: Mapping[int, npt.NDArray[np.int64]], n: int
) -> Stats:
    """The statistics of ``n`` directions from the sums of each model's layers."""
    shape = (len(sums), n, _R)
    stats = Stats(
        n=np.zeros(shape, dtype=np.int64),
        total=np.zeros(shape),
        squares=np.zeros(shape),
        minimum=np.full(shape, np.inf, dtype=np.float32),
        maximum=np.full(shape, -np.inf, dtype=np.float32),
        counts=np.zeros((*shape, HISTOGRAM_BINS), dtype=np.int64),
    )
    for model, layers in enumerate(sums):
        for layer, found in layers.items():
            found.put(stats, model, places[layer])
    return stats


assert NO_ROLE == _R
