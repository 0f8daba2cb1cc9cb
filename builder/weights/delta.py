"""What did fine-tuning change in each residual writer? One weight difference at a time.

``delta``: W_tuned - W_base in float32; ``raw``: W_tuned alone; an adapter: its factors. Where a
norm stands between a writer and the residual stream (OLMo-2, Gemma-2), the writer adds
gain * (W x) / rms, so the difference is taken of diag(gain) W: only then do its left singular
vectors lie in the residual stream's own basis. At most one pair of matrices is in memory.
Source: PAPERS.md, section 1.1; DESIGN.md, section 3, for the gain.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

import torch

from builder.errors import CheckpointError
from builder.records import Hookpoint
from builder.weights.adapter import Adapter
from builder.weights.checkpoint import Checkpoint, digest, finite
from builder.weights.infer import find_layout
from builder.weights.layout import Layout, Match, match, writer_shape
from builder.weights.svd import Singular, factors_norm, top_singular, top_singular_of_factors

#: Path components that wrap a language model and mean nothing else; "" ends every prefix.
_WRAPPERS = {"", "model", "base_model", "transformer", "language_model"}


@dataclass(frozen=True, slots=True, eq=False)
class WeightDelta:
    """One weight difference: ``dense`` [d_model, d_in] float32, or ``factors`` left @ right.

    ``content`` is a hash of the stored tensors it was made from.
    """

    hookpoint: Hookpoint
    shape: tuple[int, int]
    content: bytes
    dense: torch.Tensor | None = None
    factors: tuple[torch.Tensor, torch.Tensor] | None = None

    def top(self, k: int) -> Singular:
        """Its ``k`` largest singular triples; fewer where its rank is smaller."""
        if self.factors is not None:
            return top_singular_of_factors(*self.factors, k)
        return top_singular(self._matrix(), k)

    @property
    def frobenius(self) -> float:
        """||dW||_F, accumulated in float64."""
        if self.factors is not None:
            return factors_norm(*self.factors)
        matrix = self._matrix()
        parts = (matrix[start : start + 256] for start in range(0, matrix.shape[0], 256))
        return math.sqrt(sum(float(part.double().square().sum()) for part in parts))

    def _matrix(self) -> torch.Tensor:
        if self.dense is None:
            raise CheckpointError(f"{self.hookpoint.key}: neither a matrix nor factors were read")
        return self.dense


class CheckpointSource:
    """Differences between two full checkpoints, or the tuned weights alone without a base.

    ``model`` is the full model whose final norm and unembedding count, ``match`` its writers;
    ``hookpoints`` are those that have a difference, in order.
    """

    def __init__(self, base: Checkpoint | None, tuned: Checkpoint) -> None:
        self.base, self.model = base, tuned
        self.tuned_ref = tuned.ref
        if base is not None:
            _check_same(base, tuned)
        self.match = match(find_layout(tuned.config), tuned)
        self._base_match = match(find_layout(base.config), base) if base is not None else None
        self.hookpoints = self.match.hookpoints
        self._base_names = (
            {(h.layer, h.writer): h for h in self._base_match.hookpoints}
            if self._base_match is not None
            else {}
        )
        self._check_shapes()
        self.facts = _layout_facts(self.match.layout) | {
            "tuned_dtype": _dtype(tuned, self.match.weight(self.hookpoints[0]))
        }
        if base is not None and self._base_match is not None:
            first = self._base_match.weight(self._base_match.hookpoints[0])
            self.facts["base_dtype"] = _dtype(base, first)

    def delta(self, hookpoint: Hookpoint) -> WeightDelta:
        """diag(gain) W of the tuned model, minus that of the base where there is one."""
        tuned, parts = _effective(self.model, self.match, hookpoint)
        if self.base is not None and self._base_match is not None:
            place = self._base_names[hookpoint.layer, hookpoint.writer]
            base, base_parts = _effective(self.base, self._base_match, place)
            tuned = tuned - base
            parts = [*parts, "minus", *base_parts]
        rows, columns = tuned.shape
        return WeightDelta(hookpoint, (rows, columns), digest(*parts), dense=tuned)

    def _check_shapes(self) -> None:
        if self.base is None or self._base_match is None:
            return
        for hookpoint in self.hookpoints:
            place = self._base_names[hookpoint.layer, hookpoint.writer]
            base = _shape(self.base, self._base_match, place)
            tuned = _shape(self.model, self.match, hookpoint)
            if base != tuned:
                raise CheckpointError(_shapes_differ(hookpoint, base, tuned))


class AdapterSource:
    """Differences that a LoRA adapter adds to its base, as exact factors.

    The same attributes as :class:`CheckpointSource`.
    """

    def __init__(self, base: Checkpoint, adapter: Adapter) -> None:
        self.base: Checkpoint | None = base
        self.model = base
        self.adapter = adapter
        self.tuned_ref = adapter.ref
        self.match = match(find_layout(base.config), base)
        self._modules = _targets(adapter, self.match)
        self.hookpoints = tuple(h for h in self.match.hookpoints if h in self._modules)
        self.facts = _layout_facts(self.match.layout) | adapter.facts
        self.facts["base_dtype"] = _dtype(base, self.match.weight(self.hookpoints[0]))
        untouched = {h.writer for h in self.match.hookpoints} - {h.writer for h in self.hookpoints}
        if untouched:
            self.facts["untouched_writers"] = ", ".join(sorted(untouched))

    def delta(self, hookpoint: Hookpoint) -> WeightDelta:
        """diag(gain) scale lora_B @ lora_A, as factors."""
        factors = self.adapter.factors(self._modules[hookpoint])
        shape = _shape(self.model, self.match, hookpoint)
        found = (factors.lora_b.shape[0], factors.lora_a.shape[1])
        if found != shape:
            raise CheckpointError(
                f"{hookpoint.key}: base {list(shape)}, adapter {list(found)}; was the adapter "
                "trained on this base?"
            )
        left = factors.left
        parts: list[torch.Tensor | str] = [factors.lora_a, factors.lora_b, f"{factors.scale:.17g}"]
        gain = _gain(self.model, self.match, hookpoint)
        if gain is not None:
            left = gain[0].double()[:, None] * left
            parts.append(gain[1])
        return WeightDelta(hookpoint, shape, digest(*parts), factors=(left, factors.right))


#: Something that has a weight difference at each of its hookpoints.
DeltaSource: TypeAlias = CheckpointSource | AdapterSource


def _effective(
    checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint
) -> tuple[torch.Tensor, list[torch.Tensor | str]]:
    """diag(gain) W [d_model, d_in] float32, and the stored tensors it was made from."""
    name = found.weight(hookpoint)
    stored = checkpoint.tensors.raw(name)
    weight = finite(stored, f"{checkpoint.ref}: {hookpoint.key} ({name})")
    if found.layout.input_side == "rows":
        weight = weight.T.contiguous()
    gain = _gain(checkpoint, found, hookpoint)
    if gain is None:
        return weight, [stored]
    return gain[0][:, None] * weight, [stored, gain[1]]


def _gain(
    checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The gain [d_model] of the norm after a writer, float32, and its weight as stored."""
    name = found.gain(hookpoint)
    if not name:
        return None
    stored = checkpoint.tensors.raw(name)
    weight = finite(stored, f"{checkpoint.ref}: {name}")
    return (weight + 1.0 if found.layout.post_norm.endswith("_plus") else weight), stored


def _targets(adapter: Adapter, found: Match) -> dict[Hookpoint, str]:
    """Hookpoint to the adapter's module path, for the writers the adapter targets."""
    layout = found.layout
    places = {(h.layer, layout.writer(h.writer)): h for h in found.hookpoints}
    inner = "|".join(re.escape(name) for name in (layout.o_proj, layout.down_proj))
    pattern = re.compile(rf"((?:.*\.)?){re.escape(layout.layers)}\.(\d+)\.({inner})")
    # The adapter may have been trained on the bare or on the wrapped model: another prefix. A
    # vision tower has layers too, so the prefix must not lead to a place of its own.
    wrappers = _WRAPPERS | set(found.prefix.split("."))
    targets: dict[Hookpoint, str] = {}
    for module in adapter.modules:
        hit = pattern.fullmatch(module)
        if hit is None or not set(hit[1].split(".")) <= wrappers:
            continue
        hookpoint = places.get((int(hit[2]), hit[3]))
        if hookpoint is None:
            raise CheckpointError(
                f"{adapter.ref}: targets {module}, but the base has {len(places) // 2} layers; was "
                "the adapter trained on this base?"
            )
        if hookpoint in targets:
            raise CheckpointError(
                f"{adapter.ref}: both {targets[hookpoint]} and {module} would be {hookpoint.key}"
            )
        targets[hookpoint] = module
    if not targets:
        names = ", ".join(sorted({module.rpartition(".")[2] for module in adapter.modules}))
        raise CheckpointError(
            f"{adapter.ref}: targets {names or 'nothing'}, none of which writes to the residual "
            f"stream (looked for {layout.o_proj} and {layout.down_proj} in the decoder layers); "
            "there is no direction to show"
        )
    return targets


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
        base_shape, shape = _shape(base, both[0], base_place), _shape(tuned, both[1], place)
        if base_shape != shape:
            raise CheckpointError(
                f"{_shapes_differ(place, base_shape, shape)} (base is {base.model_type}, tuned is "
                f"{tuned.model_type})"
            )
    first = list(_shape(base, both[0], both[0].hookpoints[0]))
    raise CheckpointError(
        f"L00.o_proj: base {first}, tuned {first}, but base is {base.model_type} with "
        f"{base.n_layers} layers and tuned is {tuned.model_type} with {tuned.n_layers}; "
        "are these the same architecture?"
    )


def _shapes_differ(hookpoint: Hookpoint, base: tuple[int, int], tuned: tuple[int, int]) -> str:
    return (
        f"{hookpoint.key}: base {list(base)}, tuned {list(tuned)}; are these the same architecture?"
    )


def _shape(checkpoint: Checkpoint, found: Match, hookpoint: Hookpoint) -> tuple[int, int]:
    rows, columns = writer_shape(found.layout, checkpoint, found.weight(hookpoint))
    return rows, columns


def _dtype(checkpoint: Checkpoint, name: str) -> str:
    return checkpoint.tensors.dtype(name)


def _layout_facts(layout: Layout) -> dict[str, str]:
    gains = [name for name in (layout.o_norm, layout.down_norm) if name]
    return {
        "layout": layout.origin,
        "norm": "post-norm" if gains else "pre-norm",
        "post_norm_gain": f"applied: diag(gain) W with {', '.join(gains)}" if gains else "none",
    }
