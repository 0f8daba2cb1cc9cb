"""Which documents of a batch clear the bar, where do they peak, and what is around the peak?

Only for these few are positions and windows looked up. On a GPU everything is enqueued behind the
batch, for at most ``_CAPACITY`` of them, and copied to the host while the next batch runs, so that
the device never waits; when there are more, as in a shard's first batches, the rest costs one wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from builder.activations.batch import Batch
from builder.activations.buffers import Buffers
from builder.activations.candidates import Candidates, joined, no_candidates
from builder.records import ACTIVATION_SCALE, ROLES

_R = len(ROLES)
#: Entrants of a batch that a GPU brings to the host without waiting.
_CAPACITY = 4096
#: Activations looked at together, which bounds memory.
_AT_ONCE = 1 << 22
#: So many groups of segments of like length.
_KINDS = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Of each entrant [E]: pole, segment, column and position in its piece, int32 [E, 4]; value;
    windows int16 [E, M, 2w + 1].
    """

    which: torch.Tensor
    value: torch.Tensor
    windows: torch.Tensor


class Entrants:
    """The documents of one batch that clear the bar, on their way to the host."""

    def __init__(
        self,
        batch: Batch,
        best: torch.Tensor,
        bar: torch.Tensor,
        buffers: Buffers,
        window: int,
        capacity: int | None = None,
    ) -> None:
        """``best`` [2, S, D_total] are the segments' extremes by pole, turned so that larger is
        better; ``bar``, of the same shape, is what they have to reach. ``capacity``: for tests.
        """
        self._batch = batch
        self._best = best
        self._clears = (best >= bar) & best.isfinite()
        self._buffers = buffers
        self._window = window
        if capacity is None and best.device.type == "cuda":
            capacity = min(_CAPACITY, _AT_ONCE // batch.ids.shape[1])
        self._capacity = capacity
        self._event: torch.cuda.Event | None = None
        if capacity is None:
            self._found = self._all_found()
            return
        index = torch.nonzero_static(self._clears, size=capacity, fill_value=0)
        self._count = _to_host(self._clears.sum())
        found = self._look_up(index)
        self._found = [
            _Found(_to_host(found.which), _to_host(found.value), _to_host(found.windows))
        ]
        if best.device.type == "cuda":
            self._event = torch.cuda.Event()
            self._event.record()

    def candidates(self, columns: npt.NDArray[np.int64]) -> Candidates:
        """The entrants; ``columns`` [D_total] are their directions' indices. May wait."""
        found = self._found
        if self._capacity is not None:
            if self._event is not None:
                self._event.synchronize()
            count = int(self._count)
            if count > self._capacity:
                found = self._all_found()
            else:
                whole = found[0]
                found = [_Found(whole.which[:count], whole.value[:count], whole.windows[:count])]
        parts = [self._candidates(part, columns) for part in found]
        return joined(parts) if parts else self._none()

    def _none(self) -> Candidates:
        return no_candidates(self._buffers.models, 2 * self._window + 1)

    def _all_found(self) -> list[_Found]:
        """All entrants, some at a time; those together whose segments are of like length."""
        index = torch.nonzero(self._clears)
        spans = self._batch.spans[index[:, 1]]
        order = spans[:, 1].argsort()
        size = max(1, min(_AT_ONCE // self._batch.ids.shape[1], len(index) // _KINDS + 1))
        return [self._look_up(index[part]) for part in order.split(size)] if len(index) else []

    def _look_up(self, index: torch.Tensor) -> _Found:
        batch, window = self._batch, self._window
        pole, segment, column = index.unbind(1)
        value = self._best[pole, segment, column]
        sign = 1.0 - 2.0 * pole
        row = batch.segment_row[segment]
        start, span = batch.spans[segment].unbind(1)
        # Beyond a span another segment's value would have to be the same to be found, and stand
        # before.
        longest = int(span.max()) if self._capacity is None else batch.ids.shape[1]
        along = torch.arange(longest, device=row.device)
        whole = self._buffers.at(0, self._buffers.index(start, along, column))
        peak = whole == (value * sign)[:, None]
        # As integers, for argmax knows no booleans; the first of equal ones.
        at = start + peak.byte().argmax(dim=1)
        first = row * batch.ids.shape[1] + batch.first[row]
        position = at - first
        near = torch.arange(-window, window + 1, device=row.device)
        outside = near < -position[:, None]
        outside |= near >= (batch.lengths[row] - position)[:, None]
        around = self._buffers.index(at, near, column)
        windows = torch.stack(
            [
                quantized(self._buffers.at(model, around)).masked_fill_(outside, 0)
                for model in range(self._buffers.models)
            ],
            dim=1,
        )
        which = torch.stack([pole, segment, column, position], dim=1).int()
        return _Found(which, value * sign, windows)

    def _candidates(self, found: _Found, columns: npt.NDArray[np.int64]) -> Candidates:
        batch = self._batch
        pole, segment, column, position = found.which.cpu().numpy().astype(np.int64).T
        row, role = batch.segments[segment].T
        first = batch.starts[row]
        documents = [item.document for item in batch.pieces]
        return Candidates(
            group=(columns[column] * _R + role) * 2 + pole,
            value=found.value.cpu().numpy(),
            doc_id=np.asarray([item.doc_id for item in documents], dtype=np.int64)[row],
            piece=np.asarray([item.piece for item in batch.pieces], dtype=np.int32)[row],
            cluster=np.asarray([item.cluster for item in documents], dtype=np.uint64)[row],
            prefix=batch.prefixes[row, first + position],
            position=position.astype(np.int32),
            windows=found.windows.cpu().numpy(),
        )


def quantized(activation: torch.Tensor) -> torch.Tensor:
    """Activations, which are overwritten, as int16, ACTIVATION_SCALE per unit."""
    # A cosine that rounding put above 1 is still rounded to the scale itself.
    return activation.mul_(ACTIVATION_SCALE).round_().to(torch.int16)


def _to_host(values: torch.Tensor) -> torch.Tensor:
    """A copy on the host that is whole when the device gets there; nothing waits for it."""
    if values.device.type != "cuda":
        return values
    place = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return place.copy_(values, non_blocking=True)
