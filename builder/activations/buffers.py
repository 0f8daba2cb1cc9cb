"""Where do a batch's activations lie? In memory that one batch after the other uses again.

Fresh memory for every layer of every batch costs more than what is computed in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch


class Buffers:
    """A batch's activations at all directions, for each model, and scratch for one layer.

    Columns [D_total] are the directions, layer by layer. A layer's part is a tensor of its own,
    [N, D_l], so that what works on it runs through memory in order.
    """

    def __init__(self, widths: Mapping[int, int], models: int, device: torch.device) -> None:
        """``widths``: the number of directions of each layer; ``models``: 1, or 2 with a base."""
        self._device = device
        self._widths = dict(widths)
        ends = np.cumsum([0, *widths.values()])
        self.total = int(ends[-1])
        self._starts = dict(zip(widths, ends.tolist(), strict=False))
        sizes = list(widths.values())
        #: Of each column: where its layer starts, and how many columns that has.
        self._start = torch.from_numpy(np.repeat(ends[:-1], sizes)).to(device)
        self._size = torch.from_numpy(np.repeat(sizes, sizes)).to(device)
        self._flat = [torch.empty(0, device=device) for _ in range(models)]
        self._spare = torch.empty(0, device=device)
        self._bins = torch.empty(0, dtype=torch.int32, device=device)
        self._places = 0
        self._margin = 0

    @property
    def models(self) -> int:
        """For how many models activations are held."""
        return len(self._flat)

    def fit(self, places: int, margin: int) -> None:
        """Makes room for a batch of N = ``places``; what was there is void.

        :meth:`at` may go ``margin`` places beyond either end, where anything may stand.
        """
        self._places = places
        widest = max(self._widths.values())
        self._margin = margin * widest
        size = places * self.total + 2 * self._margin
        if self._flat[0].numel() < size:
            for model in range(len(self._flat)):
                self._flat[model] = torch.empty(0, device=self._device)
                self._flat[model] = torch.zeros(size, device=self._device)
        scratch = places * widest
        if self._spare.numel() < scratch:
            self._spare = torch.empty(scratch, device=self._device)
            self._bins = torch.empty(scratch, dtype=torch.int32, device=self._device)

    def columns(self, layer: int) -> slice:
        """The columns of a layer."""
        return slice(self._starts[layer], self._starts[layer] + self._widths[layer])

    def activation(self, layer: int, model: int) -> torch.Tensor:
        """The activations [N, D_l] of a layer, to be written and read."""
        width = self._widths[layer]
        start = self._margin + self._starts[layer] * self._places
        flat = self._flat[model][start : start + width * self._places]
        return flat.view(self._places, width)

    def scratch(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tensors [N, D_l] to be overwritten, float32 and int32."""
        width = self._widths[layer]
        size = width * self._places
        return (
            self._spare[:size].view(self._places, width),
            self._bins[:size].view(self._places, width),
        )

    def index(
        self, places: torch.Tensor, offsets: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """Where, for :meth:`at`, the ``offsets`` [n] from ``places`` [E] of ``columns`` [E] are.

        Beyond the ends of a layer another's activations stand; the caller knows where they are.
        """
        start, size = self._start[columns], self._size[columns]
        first = places * size + (start * self._places + columns - start + self._margin)
        return torch.addcmul(first[:, None], offsets[None], size[:, None])

    def at(self, model: int, index: torch.Tensor) -> torch.Tensor:
        """The activations at an :meth:`index` [E, n] of a model."""
        return self._flat[model].take(index)
