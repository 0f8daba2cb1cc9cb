"""What did fine-tuning change in each residual writer? One weight difference at a time.

``delta``: W_tuned - W_base in float32; ``raw``: W_tuned alone; an adapter: its factors
(:mod:`builder.weights.adapter_delta`). Where a norm stands between a writer and the residual stream
(OLMo-2, Gemma-2), the writer adds gain * (W x) / rms, so the difference is taken of diag(gain) W:
only then do its left singular vectors lie in the residual stream's own basis.
Source: Zhong and Raghunathan 2025 (arXiv 2508.00161), for the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from builder.errors import CheckpointError
from builder.records import Hookpoint, ModelRef
from builder.weights.checkpoint import Checkpoint
from builder.weights.infer import find_layout
from builder.weights.layout import Layout, Match, match
from builder.weights.matrix import Digest, blocks, gain, matrix_shape, part_shape

#: Bits of fraction that are stored of a number.
_BITS = {torch.bfloat16: 7, torch.float16: 10, torch.float32: 23, torch.float64: 52}
#: Entries of a block whose rounding is looked at.
_SAMPLE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class WeightDelta:
    """One weight difference: ``dense`` [d_out, d_in] float32, or ``factors``.

    ``factors`` are (left [d_out, r], right [r, columns]) blocks, float64; the difference is their
    products side by side along the input. ``content`` is a hash of the stored tensors it was made
    from, ``rounding`` the root mean square of the rounding of the stored tuned weights (NaN if
    nothing was rounded).
    """

    hookpoint: Hookpoint
    shape: tuple[int, int]
    content: bytes
    dense: torch.Tensor | None = None
    factors: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    rounding: float = float("nan")

    def to(self, device: torch.device) -> WeightDelta:
        """The same on another device, where it is dense; factors are small."""
        if self.dense is None or self.dense.device == device:
            return self
        return replace(self, dense=self.dense.to(device))


class DeltaSource(Protocol):
    """Something that has a weight difference at each of its hookpoints.

    ``model`` is the full model whose final norm and unembedding count, ``match`` its matrices;
    ``hookpoints`` are the writers that have a difference, ``readers`` the readers, in order;
    ``base`` is None for raw weights.
    """

    base: ModelRef | None
    tuned: ModelRef
    model: Checkpoint
    match: Match
    hookpoints: tuple[Hookpoint, ...]
    readers: tuple[Hookpoint, ...]
    facts: dict[str, str]

    def delta(self, hookpoint: Hookpoint) -> WeightDelta:
        """The weight difference at one hookpoint."""

    def base_weights(self, hookpoint: Hookpoint) -> WeightDelta | None:
        """diag(gain) W of the base, dense; None without a base."""

    def stored_bytes(self, hookpoint: Hookpoint) -> int:
        """Bytes that are read for the difference at one hookpoint, by headers."""


class Rounding:
    """The root mean square of the rounding of stored weights, from a sample of their entries.

    A number stored with p bits of fraction was rounded by up to half of 2^(exponent - p), and by
    1 / sqrt(12) of that step in the root mean square.
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, values: torch.Tensor, scale: torch.Tensor | None) -> None:
        """Takes in stored values; a gain [rows] that they go through scales their rounding."""
        every = max(1, values.numel() // _SAMPLE)
        sample = values.reshape(-1)[::every].float() if values.is_contiguous() else (
            values[:, :: max(1, values.shape[1] // 64)].float().reshape(-1)
        )  # fmt: skip
        exponent = torch.frexp(sample)[1].double() - 1
        steps = torch.where(sample == 0, 0.0, torch.exp2(exponent - _BITS[values.dtype]))
        size = 1.0 if scale is None else float(scale.double().square().mean())
        self._sum += float(steps.square().mean()) / 12 * size * values.numel()
        self._count += values.numel()

    @property
    def root_mean_square(self) -> float:
        """Of all that was taken in; NaN of nothing."""
        return math.sqrt(self._sum / self._count) if self._count else math.nan


class CheckpointSource:
    """Differences between two full checkpoints, or the tuned weights alone without a base."""

    def __init__(self, base: Checkpoint | None, tuned: Checkpoint) -> None:
        self._base, self.model = base, tuned
        self.base, self.tuned = base.ref if base is not None else None, tuned.ref
        if base is not None:
            _check_same(base, tuned)
        self.match = match(find_layout(tuned.config), tuned)
        self._base_match = match(find_layout(base.config), base) if base is not None else None
        self.hookpoints, self.readers = self.match.hookpoints, self.match.readers()
        self._base_places = (
            {(h.layer, h.writer): h for h in self._base_match.matrices}
            if self._base_match is not None
            else {}
        )
        self._check_shapes()
        self.facts = layout_facts(self.match.layout) | {
            "tuned_dtype": stored_dtype(tuned, self.match, self.hookpoints[0])
        }
        if base is not None and self._base_match is not None:
            first = self._base_match.hookpoints[0]
            self.facts["base_dtype"] = stored_dtype(base, self._base_match, first)

    def delta(self, hookpoint: Hookpoint) -> WeightDelta:
        """diag(gain) W of the tuned model, minus that of the base where there is one."""
        shape = matrix_shape(self.model, self.match, hookpoint)
        digest = Digest()
        total = torch.empty(shape)
        rounding = Rounding()
        scale = gain(self.model, self.match, hookpoint, digest)
        for row, column, values in blocks(self.model, self.match, hookpoint, digest):
            part = total[row : row + values.shape[0], column : column + values.shape[1]]
            part.copy_(values)
            rounding.add(values, scale)
            if scale is not None:
                part *= scale[row : row + values.shape[0], None]
        if self._base is not None and self._base_match is not None:
            digest.word("minus")
            place = self._base_places[hookpoint.layer, hookpoint.writer]
            scale = gain(self._base, self._base_match, place, digest)
            for row, column, values in blocks(self._base, self._base_match, place, digest):
                part = total[row : row + values.shape[0], column : column + values.shape[1]]
                part -= values if scale is None else scale[row : row + len(values), None] * values
        return WeightDelta(
            hookpoint, shape, digest.digest(), dense=total, rounding=rounding.root_mean_square
        )

    def base_weights(self, hookpoint: Hookpoint) -> WeightDelta | None:
        """diag(gain) W of the base, dense; None without a base."""
        if self._base is None or self._base_match is None:
            return None
        place = self._base_places[hookpoint.layer, hookpoint.writer]
        return whole(self._base, self._base_match, place)

    def stored_bytes(self, hookpoint: Hookpoint) -> int:
        """Bytes of the matrix in both models, by headers."""
        size = stored_bytes(self.model, self.match, hookpoint)
        if self._base is not None and self._base_match is not None:
            place = self._base_places[hookpoint.layer, hookpoint.writer]
            size += stored_bytes(self._base, self._base_match, place)
        return size

    def _check_shapes(self) -> None:
        if self._base is None or self._base_match is None:
            return
        for hookpoint in self.hookpoints:
            place = self._base_places[hookpoint.layer, hookpoint.writer]
            base = matrix_shape(self._base, self._base_match, place)
            tuned = matrix_shape(self.model, self.match, hookpoint)
            if base != tuned:
                raise CheckpointError(_shapes_differ(hookpoint, base, tuned))


def whole(checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint) -> WeightDelta:
    """diag(gain) W of one checkpoint, dense."""
    digest = Digest()
    shape = matrix_shape(checkpoint, found, hookpoint)
    total = torch.empty(shape)
    for row, column, values in blocks(checkpoint, found, hookpoint, digest):
        total[row : row + values.shape[0], column : column + values.shape[1]] = values
    scale = gain(checkpoint, found, hookpoint, digest)
    if scale is not None:
        total *= scale[:, None]
    return WeightDelta(hookpoint, shape, digest.digest(), dense=total)


def _check_same(base: Checkpoint, tuned: Checkpoint) -> None:
    """Refuses pairs of different architectures, naming the first tensor that tells."""
    same = (
        base.model_type == tuned.model_type
        and base.n_layers == tuned.n_layers
        and base.d_model == tuned.d_model
    )
    if same:
        return
    both = [match(find_layout(checkpoint.config), checkpoint) for checkpoint in (base, tuned)]
    pairs = list(zip(both[0].hookpoints, both[1].hookpoints, strict=False))
    for base_place, place in pairs:
        base_shape, shape = (
            matrix_shape(base, both[0], base_place),
            matrix_shape(tuned, both[1], place),
        )
        if base_shape != shape:
            raise CheckpointError(
                f"{_shapes_differ(place, base_shape, shape)} (base is {base.model_type}, tuned is "
                f"{tuned.model_type})"
            )
    first = list(matrix_shape(base, both[0], both[0].hookpoints[0]))
    raise CheckpointError(
        f"L00.o_proj: base {first}, tuned {first}, but base is {base.model_type} with "
        f"{base.n_layers} layers and tuned is {tuned.model_type} with {tuned.n_layers}; "
        "are these the same architecture?"
    )


def _shapes_differ(hookpoint: Hookpoint, base: tuple[int, int], tuned: tuple[int, int]) -> str:
    return (
        f"{hookpoint.key}: base {list(base)}, tuned {list(tuned)}; are these the same architecture?"
    )


def stored_bytes(checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint) -> int:
    """Bytes that a matrix is stored in, by headers."""
    return sum(
        math.prod(part_shape(checkpoint, part)) * checkpoint.tensors.item_size(part.name)
        for part in found.parts(hookpoint)
    )


def stored_dtype(checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint) -> str:
    """Number type that a matrix is stored as."""
    return checkpoint.tensors.dtype(found.parts(hookpoint)[0].name)


def layout_facts(layout: Layout) -> dict[str, str]:
    """What a reader should know about where the writers are and what follows them."""
    gains = [name for name in (layout.o_norm, layout.down_norm) if name]
    return {
        "layout": layout.origin,
        "norm": "post-norm" if gains else "pre-norm",
        "post_norm_gain": f"applied: diag(gain) W with {', '.join(gains)}" if gains else "none",
    }
