"""What does a model do at the tokens of a text? Its activations at every direction, token by token.

A scan reduces activations while it runs, since it reads millions of documents; who watches single
conversations needs all of each. Everything else is as in the scan (builder.activations): the chat
template, roles, BOS and attention sinks that count for nothing, cos(resid_t, u) in float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from builder.activations.accumulate import by_layer
from builder.activations.batch import NO_ROLE, Batch, cut_batches, make_batch
from builder.activations.hooks import first_layers, residual_hooks
from builder.activations.model import ScannedModel
from builder.activations.tokens import TokenizedDocument
from builder.errors import MonitorError
from builder.records import DirectionSet


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A piece of a document as the model went through it.

    ``activations`` float32 [T, D], by the order of the directions; ``counts`` bool [T, D]: whether
    the token counts at the direction's layer. A BOS, repeated context and attention sinks do not.
    """

    piece: TokenizedDocument
    activations: npt.NDArray[np.float32]
    counts: npt.NDArray[np.bool_]


def cosines(resid: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cosines [..., D_l], norms [...]) of ``resid`` [..., d_model] with unit vectors, float32.

    A zero vector has no direction; its cosine is 0.
    """
    rows = resid.float()
    norms = torch.linalg.vector_norm(rows, dim=-1)
    return rows @ vectors.to(rows.device) / norms.clamp_min(1e-30)[..., None], norms


class Tracer:
    """A loaded model with directions, ready to go through conversations."""

    def __init__(
        self,
        model: ScannedModel,
        directions: DirectionSet,
        *,
        sink_factor: float,
        batch_tokens: int,
    ) -> None:
        """``sink_factor`` and ``batch_tokens`` as in a scan's settings.

        Raises MonitorError if the directions do not fit the model.
        """
        self._model = model
        self._layers = by_layer(directions)
        self._vectors = {
            layer: torch.from_numpy(held.vectors.T.copy()).to(model.device)
            for layer, held in self._layers.items()
        }
        self.n_directions = len(directions.directions)
        self._sink_factor = sink_factor
        self._batch_tokens = batch_tokens
        pad = model.tokenizer.pad_token_id
        self._pad_id = 0 if pad is None else int(pad)
        if not self._layers:
            raise MonitorError("there are no directions to watch")
        if max(self._layers) >= len(model.layers):
            raise MonitorError(
                f"the directions reach layer {max(self._layers)}, the model has "
                f"{len(model.layers)} decoder layers; they are of another model"
            )

    def traces(self, pieces: Sequence[TokenizedDocument]) -> Iterator[Trace]:
        """The trace of every piece, the longest first: pieces of like length go together."""
        seen: dict[int, torch.Tensor] = {}

        def keep(layer: int, resid: torch.Tensor) -> None:
            seen[layer] = resid

        wanted = list(self._layers)
        for batch_pieces in cut_batches(pieces, self._batch_tokens):
            batch = make_batch(batch_pieces, self._model.device, self._pad_id)
            seen.clear()
            # The hooks are there while the model runs, not while somebody looks at a trace.
            with torch.inference_mode(), contextlib.ExitStack() as stack:
                stack.enter_context(
                    first_layers(self._model.backbone, self._model.layers, max(wanted) + 1)
                )
                stack.enter_context(residual_hooks(self._model.layers, wanted, keep))
                self._model.backbone(input_ids=batch.ids, use_cache=False)
                activations, counts = self._read(batch, seen)
            for row, piece in enumerate(batch_pieces):
                n = len(piece.ids)
                yield Trace(piece, activations[row, :n].copy(), counts[row, :n].copy())

    def _read(
        self, batch: Batch, seen: dict[int, torch.Tensor]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Activations and whether tokens count, [B, T, D] each."""
        shape = (*batch.ids.shape, self.n_directions)
        activations = np.empty(shape, dtype=np.float32)
        counts = np.empty(shape, dtype=np.bool_)
        own = (batch.role != NO_ROLE).view(batch.ids.shape)
        for layer, held in self._layers.items():
            found, norms = cosines(seen[layer], self._vectors[layer])
            norms = norms.to(own.device)
            counted = torch.where(own, norms, torch.nan)
            median = counted.nanmedian(dim=1, keepdim=True).values
            # A row without a token that counts has NaN here, which nothing is below or at.
            counting = own & ~(counted > self._sink_factor * median)
            activations[:, :, held.indices] = found.cpu().numpy()
            counts[:, :, held.indices] = counting.cpu().numpy()[:, :, None]
        if not np.isfinite(activations).all():
            raise MonitorError(
                "the model's residual stream holds NaN or Inf; try scan.dtype = 'float32'"
            )
        return activations, counts
