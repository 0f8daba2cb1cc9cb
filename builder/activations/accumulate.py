"""What is kept of the activations? Sums, extremes and windows, reduced on the device.

After each decoder layer :meth:`Accumulator.observe` takes the residual stream of a batch and turns
it into the activations at the layer's directions, [N, D_l], which is all that is kept of it until
the batch is done: histograms, moments and ranges are added to, and the most extreme activation of
every (piece, role) is noted. When the batch is done, those that clear the bar that the lists of
examples have by now come to the host with their windows, see ``entrants``.

activation = cos(resid_t, u), in float32 whatever the model's dtype (Watch the Weights,
arXiv 2508.00161, section 3; ranges and extremes per role as there).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from builder.activations.batch import NO_ROLE, Batch, on_device
from builder.activations.buffers import Buffers
from builder.activations.candidates import Candidates, Shortlist
from builder.activations.entrants import Entrants, quantized
from builder.activations.sums import Stats, Sums, gathered
from builder.records import CONTENT_ROLES, MODELS, ROLES, DirectionSet

_R = len(ROLES)
_TUNED, _BASE, _DIFFERENCE = range(len(MODELS))
#: Documents are admitted this far below the bar, so that all that are the same up to the peak are
#: counted, rounding or not; the exact order is made on the host.
_SLACK = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The directions of one layer: their indices [D_l] and unit vectors [D_l, d_model]."""

    indices: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]


def by_layer(directions: DirectionSet) -> dict[int, Layer]:
    """The directions of each layer, the first layer first."""
    layers: dict[int, list[int]] = {}
    for index, direction in enumerate(directions.directions):
        layers.setdefault(direction.hookpoint.layer, []).append(index)
    return {
        layer: Layer(
            np.asarray(indices, dtype=np.int64),
            np.stack([directions.directions[index].vector for index in indices]),
        )
        for layer, indices in sorted(layers.items())
    }


@dataclass(frozen=True, slots=True, eq=False)
class Extremes:
    """Largest and smallest activation of the content tokens of each document, [documents, D].

    Infinite where a document has none.
    """

    highest: npt.NDArray[np.float32]
    lowest: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WindowOf:
    """A window of a batch to be kept whole: ``length`` tokens of ``row`` from ``start`` on."""

    key: int
    row: int
    start: int
    length: int


class Accumulator:
    """Collects what one shard leaves behind; see the module's head."""

    def __init__(
        self,
        layers: Mapping[int, Layer],
        *,
        n_directions: int,
        n_documents: int,
        top: int,
        window: int,
        sink_factor: float,
        device: torch.device,
        with_base: bool = False,
    ) -> None:
        """Documents are numbered from 0 to ``n_documents``, see :meth:`begin`."""
        self._layers = layers
        self._window = window
        self._sink_factor = sink_factor
        self._device = device
        self._n_directions = n_directions
        self._vectors = {
            layer: torch.from_numpy(np.ascontiguousarray(found.vectors.T)).to(device)
            for layer, found in layers.items()
        }
        widths = {layer: len(found.indices) for layer, found in layers.items()}
        models = 2 if with_base else 1
        self._sums = [
            {layer: Sums(width, device) for layer, width in widths.items()}
            for _ in (MODELS if with_base else MODELS[:1])
        ]
        # On a GPU the host may still look into one batch's while the next one is running.
        self._buffers = [
            Buffers(widths, models, device) for _ in range(2 if device.type == "cuda" else 1)
        ]
        total = self._buffers[0].total
        #: Index in the direction set of each column, and the other way round.
        self._columns = np.concatenate([found.indices for found in layers.values()])
        self._column_of = np.zeros(n_directions, dtype=np.int64)
        self._column_of[self._columns] = np.arange(total)
        # What newcomers have to reach [pole, R, D_total], turned so that larger is better.
        self._bar_on_host = np.full((2, _R, total), -np.inf, dtype=np.float32)
        self._bar = torch.from_numpy(self._bar_on_host.copy()).to(device)
        # One row more, for what belongs to no document.
        self._highest = torch.full((n_documents + 1, total), -torch.inf, device=device)
        self._lowest = torch.full((n_documents + 1, total), torch.inf, device=device)
        self._sinks = {layer: torch.zeros((), dtype=torch.int64, device=device) for layer in layers}
        self._shortlist = Shortlist(top, models, 2 * window + 1)
        self._before: Entrants | None = None
        self._samples: list[tuple[int, torch.Tensor]] = []
        self._batch: Batch | None = None
        self._owner = torch.empty(0)
        self._best: dict[int, torch.Tensor] = {}
        self._base_roles: dict[int, torch.Tensor] = {}

    def begin(self, batch: Batch, documents: npt.NDArray[np.int64]) -> None:
        """Says which batch the following calls are about; ``documents`` [B] are its numbers."""
        self._batch = batch
        self._buffers.reverse()
        self._buffers[0].fit(batch.ids.numel(), max(batch.ids.shape[1], self._window))
        self._best, self._base_roles = {}, {}
        rows, roles = batch.segments.T
        content = roles < len(CONTENT_ROLES)
        owner = np.where(content, documents[rows], len(self._highest) - 1)
        self._owner = on_device(owner, self._device)

    def observe_base(self, layer: int, resid: torch.Tensor) -> None:
        """Takes in the base's ``resid`` [B, T, d_model], before :meth:`observe` the tuned one's."""
        activation, role = self._read(layer, resid, _BASE)
        self._base_roles[layer] = role
        self._add(layer, _BASE, activation, role)

    def observe(self, layer: int, resid: torch.Tensor) -> None:
        """Takes in ``resid`` [B, T, d_model], the output of decoder layer ``layer``."""
        batch = self._current()
        activation, role = self._read(layer, resid, _TUNED)
        sums = self._sums[_TUNED][layer]
        sums.add(activation, role, *self._buffers[0].scratch(layer))
        n_segments = len(batch.segments)
        segment = torch.where(role == NO_ROLE, n_segments, batch.segment)
        spread = segment[:, None].expand_as(activation)
        most = activation.new_full((n_segments + 1, activation.shape[1]), -torch.inf)
        least = torch.full_like(most, torch.inf)
        most = most.scatter_reduce_(0, spread, activation, "amax")[:n_segments]
        least = least.scatter_reduce_(0, spread, activation, "amin")[:n_segments]
        sums.widen(least, most, batch.segment_role)
        columns = self._buffers[0].columns(layer)
        owner = self._owner[:, None].expand_as(most)
        self._highest[:, columns].scatter_reduce_(0, owner, most, "amax")
        self._lowest[:, columns].scatter_reduce_(0, owner, least, "amin")
        self._best[layer] = torch.stack([most, -least])
        if layer in self._base_roles:
            base = self._buffers[0].activation(layer, _BASE)
            both = torch.where(self._base_roles[layer] == NO_ROLE, NO_ROLE, role)
            self._add(layer, _DIFFERENCE, activation - base, both)

    def end(self, windows: Sequence[WindowOf] = ()) -> None:
        """Closes the batch; ``windows`` of it are kept whole."""
        batch = self._current()
        best = torch.cat([self._best[layer] for layer in self._layers], dim=2)
        bar = self._bar[:, batch.segment_role] - _SLACK
        entrants = Entrants(batch, best, bar, self._buffers[0], self._window)
        self._samples += [(item.key, self._whole(batch, item)) for item in windows]
        self._take_before()
        self._before = entrants
        self._batch = None

    def finish(self) -> tuple[Stats, Candidates, Extremes]:
        """The statistics, the best candidates and the documents' extremes of everything seen."""
        self._take_before()
        places = {layer: found.indices for layer, found in self._layers.items()}
        stats = gathered(self._sums, places, self._n_directions)
        return (
            stats,
            self._shortlist.finish(),
            Extremes(self._by_direction(self._highest), self._by_direction(self._lowest)),
        )

    def windows(self) -> dict[int, npt.NDArray[np.int16]]:
        """The windows kept whole, [models, D, length] by key."""
        found = {}
        for key, values in self._samples:
            shape = (len(values), self._n_directions, values.shape[2])
            whole = np.zeros(shape, dtype=np.int16)
            whole[:, self._columns] = values.cpu().numpy()
            found[key] = whole
        return found

    def sinks(self) -> dict[int, int]:
        """How many tokens were left out as attention sinks, by layer."""
        return {layer: int(found) for layer, found in self._sinks.items()}

    def _current(self) -> Batch:
        if self._batch is None:
            raise RuntimeError("observe() and end() belong between begin() and end()")
        return self._batch

    def _read(
        self, layer: int, resid: torch.Tensor, model: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The activations [N, D_l], in the buffer of ``model``, and each place's role [N]."""
        batch = self._current()
        vectors = self._vectors[layer]
        if vectors.device != resid.device:
            # A model spread over devices: the directions go to the layer, activations come back.
            vectors = self._vectors[layer] = vectors.to(resid.device)
        rows = resid.reshape(-1, resid.shape[-1]).float()
        norm = torch.linalg.vector_norm(rows, dim=-1)
        activation = self._buffers[0].activation(layer, model)
        if vectors.device == self._device:
            torch.matmul(rows, vectors, out=activation)
        else:
            activation.copy_(rows @ vectors)
            norm = norm.to(self._device)
        # A zero vector has no direction; its activation is 0 rather than NaN.
        activation.div_(norm.clamp_min(1e-30)[:, None])
        if batch.mask is not None:  # what attention gives for padding may be no number
            activation.masked_fill_(batch.mask.view(-1, 1) == 0, 0.0)
        counted = torch.where(batch.role == NO_ROLE, torch.nan, norm).view(batch.ids.shape)
        median = counted.nanmedian(dim=1, keepdim=True).values
        # A row without a token that counts has NaN here, which is above nothing.
        sink = (counted > self._sink_factor * median).view(-1)
        if model == _TUNED:
            self._sinks[layer] += sink.sum()
        return activation, torch.where(sink, NO_ROLE, batch.role)

    def _add(self, layer: int, model: int, activation: torch.Tensor, role: torch.Tensor) -> None:
        """Adds activations [N, D_l] to the sums of ``model`` and widens its ranges."""
        sums = self._sums[model][layer]
        sums.widen(activation, activation, role)
        sums.add(activation, role, *self._buffers[0].scratch(layer))

    def _whole(self, batch: Batch, item: WindowOf) -> torch.Tensor:
        """Quantized activations [models, D_total, length] of a window."""
        buffers = self._buffers[0]
        first = item.row * batch.ids.shape[1] + int(batch.starts[item.row]) + item.start
        return quantized(
            torch.stack(
                [
                    torch.cat(
                        [
                            buffers.activation(layer, model)[first : first + item.length].T
                            for layer in self._layers
                        ]
                    )
                    for model in range(buffers.models)
                ]
            )
        )

    def _take_before(self) -> None:
        """Brings the batch before to the lists, and moves the bar if that fills some."""
        if self._before is None:
            return
        entrants, self._before = self._before, None
        if self._shortlist.add(entrants.candidates(self._columns)):
            group, last = self._shortlist.bar()
            pole, role, column = group % 2, group // 2 % _R, self._column_of[group // 2 // _R]
            self._bar_on_host[pole, role, column] = np.where(pole == 0, last, -last)
            self._bar = on_device(self._bar_on_host.copy(), self._device)

    def _by_direction(self, values: torch.Tensor) -> npt.NDArray[np.float32]:
        """[documents + 1, D_total] on the device as [documents, D] in the set's order."""
        found = values[:-1].cpu().numpy()
        whole = np.empty((len(found), self._n_directions), dtype=np.float32)
        whole[:, self._columns] = found
        return whole
