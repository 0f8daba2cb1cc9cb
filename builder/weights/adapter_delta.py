"""What does a LoRA adapter change in each residual writer? Exact factors, never the product.

Where a norm stands between a writer and the residual stream, the left factor goes through its gain;
see :mod:`builder.weights.delta`.
"""

from __future__ import annotations

import re

import torch

from builder.errors import CheckpointError
from builder.records import Hookpoint, ModelRef
from builder.weights.adapter import Adapter
from builder.weights.checkpoint import Checkpoint
from builder.weights.delta import WeightDelta, layout_facts, stored_dtype, whole
from builder.weights.infer import find_layout
from builder.weights.layout import Match, match
from builder.weights.matrix import Digest, gain, matrix_shape

#: Path components that wrap a language model and mean nothing else; "" ends every prefix.
_WRAPPERS = {"", "model", "base_model", "transformer", "language_model"}


class AdapterSource:
    """Differences that a LoRA adapter adds to its base, as exact factors."""

    def __init__(self, base: Checkpoint, adapter: Adapter) -> None:
        self.base: ModelRef | None = base.ref
        self.tuned = adapter.ref
        self.model = base
        self.adapter = adapter
        self.match = match(find_layout(base.config), base)
        self._modules = _targets(adapter, self.match)
        self.hookpoints = tuple(h for h in self.match.hookpoints if h in self._modules)
        self.facts = layout_facts(self.match.layout) | adapter.facts
        self.facts["base_dtype"] = stored_dtype(base, self.match, self.hookpoints[0])
        untouched = {h.writer for h in self.match.hookpoints} - {h.writer for h in self.hookpoints}
        if untouched:
            self.facts["untouched_writers"] = ", ".join(sorted(untouched))

    def delta(self, hookpoint: Hookpoint) -> WeightDelta:
        """diag(gain) scale lora_B @ lora_A, as factors."""
        factors = self.adapter.factors(self._modules[hookpoint])
        shape = matrix_shape(self.model, self.match, hookpoint)
        found = (factors.lora_b.shape[0], factors.lora_a.shape[1])
        if found != shape:
            raise CheckpointError(
                f"{hookpoint.key}: base {list(shape)}, adapter {list(found)}; was the adapter "
                "trained on this base?"
            )
        digest = Digest()
        digest.tensor(factors.lora_a)
        digest.tensor(factors.lora_b)
        digest.word(f"{factors.scale:.17g}")
        left = factors.left
        scale = gain(self.model, self.match, hookpoint, digest)
        if scale is not None:
            left = scale.double()[:, None] * left
        return WeightDelta(hookpoint, shape, digest.digest(), factors=((left, factors.right),))

    def base_weights(self, hookpoint: Hookpoint) -> torch.Tensor | None:
        """diag(gain) W of the base, [d_out, d_in] float32."""
        return whole(self.model, self.match, hookpoint)


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
