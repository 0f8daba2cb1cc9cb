"""Which tokens does a direction push up, and which down? The logit lens, without a forward pass.

A direction's logits are those of a residual stream that points along it alone: final norm, then
unembedding; logit caps, scalings and biases of the model's head are left out. All directions are
taken together, and the vocabulary in slices, so that [directions, vocabulary] never exists.
Does not say what a direction does in context: later layers may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from builder.errors import CheckpointError
from builder.weights.adapter import Adapter, Factors
from builder.weights.checkpoint import Checkpoint, finite
from builder.weights.layout import Match

#: Entries of [directions, vocabulary slice] at a time.
_SLICE_ENTRIES = 2**23

Tokens: TypeAlias = list[tuple[tuple[int, float], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Final norm and unembedding of a model: what stands between residual stream and logits.

    ``form`` and ``gain`` [d_model] are the norm's; ``name`` is the unembedding [vocabulary,
    d_model] in ``checkpoint``; ``factors`` are what an adapter adds to it.
    """

    checkpoint: Checkpoint
    form: str
    gain: torch.Tensor
    name: str
    factors: Factors | None = None

    @property
    def vocabulary(self) -> int:
        """Rows of the unembedding; may exceed the tokenizer's tokens (padding)."""
        return self.checkpoint.tensors.shape(self.name)[0]

    def normed(self, vectors: torch.Tensor) -> torch.Tensor:
        """The final norm of residual streams [n, d_model] that are long against its epsilon."""
        whole = vectors.square().mean(dim=1, keepdim=True).sqrt()
        if self.form.startswith("layer"):
            vectors = vectors - vectors.mean(dim=1, keepdim=True)
        scale = vectors.square().mean(dim=1, keepdim=True).sqrt()
        # Of a vector that LayerNorm removes altogether (a constant), only rounding is left.
        return torch.where(scale > 1e-5 * whole, vectors / scale, 0.0) * self.gain

    def logits(self, normed: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Logits [n, stop - start] of normed residual streams for a slice of the vocabulary."""
        rows = self.checkpoint.tensors.rows(self.name, start, stop)
        rows = finite(rows, f"{self.checkpoint.ref}: {self.name} (rows {start} to {stop})")
        logits = normed @ rows.T
        if self.factors is not None:
            lora_b = self.factors.lora_b[start:stop].float() * self.factors.scale
            logits = logits + (normed @ self.factors.lora_a.float().T) @ lora_b.T
        return logits


def find_head(checkpoint: Checkpoint, match: Match, adapter: Adapter | None = None) -> Head | str:
    """The head of a model, or in words why it has none that the lens can use."""
    layout, tensors = match.layout, checkpoint.tensors
    head = head_name(checkpoint, match)
    if head is None:
        return f"the checkpoint has no unembedding (looked for {' or '.join(match.heads())})"
    shape = tensors.shape(head)
    if len(shape) != 2 or shape[1] != checkpoint.d_model:
        return f"the unembedding {head} has shape {list(shape)}, not the width of the stream"
    gain = torch.ones(checkpoint.d_model)
    if not layout.norm.endswith("_plain"):
        norm = f"{match.prefix}{layout.final_norm}.weight"
        if norm not in tensors:
            return f"the checkpoint has no final norm (looked for {norm})"
        gain = checkpoint.tensor(norm) + (1.0 if layout.norm.endswith("_plus") else 0.0)
    return Head(checkpoint, layout.norm, gain, head, _head_factors(adapter, layout.head, shape))


def head_name(checkpoint: Checkpoint, match: Match) -> str | None:
    """Name of the unembedding's tensor, which is the embedding's where they are tied."""
    names, embed = match.heads(), f"{match.prefix}{match.layout.embed}.weight"
    # A wrapper may say it for its language model.
    configs = (checkpoint.config, checkpoint.text_config)
    tied = any(getattr(config, "tie_word_embeddings", False) for config in configs)
    found = next((name for name in (*names, embed) if name in checkpoint.tensors), None)
    return None if found == embed and embed not in names and not tied else found


def strongest_tokens(
    head: Head, vectors: npt.NDArray[np.float32], count: int, vocabulary: int
) -> tuple[Tokens, Tokens]:
    """Promoted and suppressed (token id, logit) of each direction [n, d_model], strongest first.

    Ids from ``vocabulary`` on (rows that pad the unembedding) are left out; ties go to the lower
    id.
    """
    normed = head.normed(torch.from_numpy(vectors))
    end = min(head.vocabulary, vocabulary)
    step = max(count, _SLICE_ENTRIES // max(1, len(vectors)))
    best = [_Best(len(vectors), count), _Best(len(vectors), count)]
    for start in range(0, end, step):
        logits = head.logits(normed, start, min(end, start + step))
        best[0].add(logits, start)
        best[1].add(-logits, start)
    promoted, suppressed = best[0].tokens(1.0), best[1].tokens(-1.0)
    return promoted, suppressed


class _Best:
    """The largest entries of each row over slices of columns."""

    def __init__(self, rows: int, count: int) -> None:
        self._count = count
        self._values = torch.empty(rows, 0)
        self._ids = torch.empty(rows, 0, dtype=torch.long)

    def add(self, values: torch.Tensor, start: int) -> None:
        """Takes in a slice whose first column is token ``start``."""
        top, ids = values.topk(min(self._count, values.shape[1]), dim=1)
        merged = torch.cat([self._values, top], dim=1)
        merged_ids = torch.cat([self._ids, ids + start], dim=1)
        # By id first, then stably by value: equal logits stay in the order of their ids.
        order = merged_ids.argsort(dim=1)
        merged, merged_ids = merged.gather(1, order), merged_ids.gather(1, order)
        order = merged.argsort(dim=1, descending=True, stable=True)[:, : self._count]
        self._values, self._ids = merged.gather(1, order), merged_ids.gather(1, order)

    def tokens(self, sign: float) -> Tokens:
        """(token id, sign * value) of each row, strongest first."""
        return [
            tuple(
                (int(number), sign * float(value)) for number, value in zip(ids, row, strict=True)
            )
            for ids, row in zip(self._ids.tolist(), self._values.tolist(), strict=True)
        ]


def _head_factors(adapter: Adapter | None, head: str, shape: tuple[int, ...]) -> Factors | None:
    """What an adapter adds to the unembedding, if it targets it."""
    if adapter is None:
        return None
    leaf = head.rpartition(".")[2]
    names = [name for name in adapter.modules if name.rpartition(".")[2] == leaf]
    if not names:
        return None
    factors = adapter.factors(names[0])
    found = (factors.lora_b.shape[0], factors.lora_a.shape[1])
    if len(names) > 1 or found != shape:
        raise CheckpointError(
            f"{adapter.ref}: {', '.join(names)}: base {list(shape)}, adapter {list(found)}; was "
            "the adapter trained on this base?"
        )
    return factors
