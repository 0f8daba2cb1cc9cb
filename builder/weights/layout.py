"""Where are the matrices that write to the residual stream? The table, its match with a
checkpoint's tensor names, and the decoder layers of a loaded model.

``layouts.toml`` is data; :mod:`builder.weights.infer` finds a layout for what is not in it.
Mixtures of experts and hybrids, whose layers do not all have the two writers, are refused.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from builder.errors import LayoutError
from builder.records import WRITERS, Hookpoint
from builder.weights.checkpoint import MAX_LAYERS, Checkpoint

#: Forms a norm can have: what is divided out, and what the stored weight means.
NORMS = ("rms", "rms_plus", "rms_plain", "layer", "layer_plus", "layer_plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Module names of the writers and of what surrounds them, as in ``layouts.toml``.

    ``origin`` says where the layout comes from. ``post_norm`` is the form of ``o_norm`` and
    ``down_norm``, ``norm`` that of ``final_norm``.
    """

    layers: str
    o_proj: str
    down_proj: str
    final_norm: str
    norm: str
    embed: str
    head: str
    o_norm: str = ""
    down_norm: str = ""
    post_norm: str = ""
    head_stored: str = ""
    input_side: str = "columns"
    origin: str = ""

    def writer(self, writer: str) -> str:
        """Module name of a writer inside a layer."""
        return self.o_proj if writer == "o_proj" else self.down_proj

    def gain(self, writer: str) -> str:
        """Module name of the norm that follows a writer inside a layer; empty without one."""
        return self.o_norm if writer == "o_proj" else self.down_norm

    @property
    def is_post_norm(self) -> bool:
        """Whether what a writer gives passes a norm before it is added to the residual stream."""
        return bool(self.o_norm or self.down_norm)


@dataclass(frozen=True, slots=True)
class Part:
    """A stored tensor, or a piece of one, that is a block of a matrix [d_out, d_in].

    ``expert``: place on the first axis of a tensor that holds all experts; ``rows``: (start, stop)
    among the output rows of a fused projection; ``transposed``: stored [d_in, d_out].
    """

    name: str
    expert: int | None = None
    rows: tuple[int, int] | None = None
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A layout found in a checkpoint: tensor names with the prefix they have there."""

    layout: Layout
    prefix: str
    hookpoints: tuple[Hookpoint, ...]

    def parts(self, hookpoint: Hookpoint) -> tuple[Part, ...]:
        """The parts of a matrix: side by side along the input of a writer, the output of a reader."""
        return (Part(self.weight(hookpoint), transposed=self.layout.input_side == "rows"),)

    def weight(self, hookpoint: Hookpoint) -> str:
        """Name of a writer's weight."""
        return f"{hookpoint.module}.weight"

    def gain(self, hookpoint: Hookpoint) -> str:
        """Name of the weight of the norm after a writer; empty without one."""
        name = self.layout.gain(hookpoint.writer)
        place = f"{self.prefix}{self.layout.layers}.{hookpoint.layer}"
        return f"{place}.{name}.weight" if name else ""


@cache
def table() -> Mapping[str, Layout]:
    """The layouts of ``layouts.toml`` by model type."""
    text = Path(__file__).with_name("layouts.toml").read_text(encoding="utf-8")
    known = {field.name for field in fields(Layout)}
    layouts: dict[str, Layout] = {}
    for name, entry in tomllib.loads(text).items():
        values: dict[str, Any] = dict(entry)
        model_types = values.pop("model_types")
        if set(values) - known or values["norm"] not in NORMS:
            raise LayoutError(f"layouts.toml: [{name}] holds a key or norm that does not exist")
        post_norm = values["norm"] if values.get("o_norm") or values.get("down_norm") else ""
        layout = Layout(**values, post_norm=post_norm, origin=f"table: {name}")
        layouts.update(dict.fromkeys(model_types, layout))
    return layouts


def match(layout: Layout, checkpoint: Checkpoint) -> Match:
    """The writers' tensors in a checkpoint, by layer, then ``o_proj`` before ``down_proj``.

    The prefix before the list of layers is whatever the checkpoint has (``model.``,
    ``transformer.`` or nothing). Raises LayoutError naming what was looked for.
    """
    inner = "|".join(re.escape(layout.writer(writer)) for writer in WRITERS)
    pattern = re.compile(rf"((?:.*\.)?){re.escape(layout.layers)}\.(\d+)\.({inner})\.weight")
    found: dict[str, set[tuple[int, str]]] = {}
    for name in checkpoint.tensors:
        if hit := pattern.fullmatch(name):
            found.setdefault(hit[1], set()).add((int(hit[2]), hit[3]))
    wanted = {
        (layer, layout.writer(writer)) for layer in range(checkpoint.n_layers) for writer in WRITERS
    }
    complete = [prefix for prefix, places in found.items() if places >= wanted]
    if len(complete) != 1:
        raise LayoutError(_mismatch(layout, checkpoint, found, wanted))
    prefix = complete[0]
    extra = found[prefix] - wanted
    if extra:
        raise LayoutError(
            f"{checkpoint.ref}: config.json says {checkpoint.n_layers} decoder layers, the weights "
            f"go on to layer {max(layer for layer, _ in extra)}"
        )
    hookpoints = tuple(
        Hookpoint(layer, writer, f"{prefix}{layout.layers}.{layer}.{layout.writer(writer)}")
        for layer in range(checkpoint.n_layers)
        for writer in WRITERS
    )
    result = Match(layout, prefix, hookpoints)
    _check_shapes(result, checkpoint)
    return result


def writer_shape(layout: Layout, checkpoint: Checkpoint, name: str) -> tuple[int, ...]:
    """Shape of a writer's weight as [d_model, d_in], whatever way it is stored."""
    shape = checkpoint.tensors.shape(name)
    return shape[::-1] if layout.input_side == "rows" else shape


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers of a loaded transformers model, in order.

    ``model`` may be the base model, a causal language model, a wrapper around a language model
    (vision), or any of these inside PEFT. Raises LayoutError naming what was looked for.
    """
    return list(decoder_stack(model)[1])


def decoder_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The module path and the list of the decoder layers; see :func:`decoder_layers`.

    The path is as in the model that is passed, the PEFT wrapper left out.
    """
    unwrap = getattr(model, "get_base_model", None)
    if callable(unwrap):
        model = unwrap()
    config = getattr(model, "config", None)
    get_text_config = getattr(config, "get_text_config", None)
    text = get_text_config(decoder=True) if callable(get_text_config) else config
    n_layers = getattr(text, "num_hidden_layers", None)
    if not isinstance(n_layers, int) or not 0 < n_layers <= MAX_LAYERS:
        raise LayoutError(
            f"{type(model).__name__}: its configuration gives no number of decoder layers "
            "(looked for num_hidden_layers)"
        )
    get_decoder = getattr(model, "get_decoder", None)
    decoder = get_decoder() if callable(get_decoder) else model
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    inside = {id(module) for module in decoder.modules()} if decoder is not None else set()
    lists = [entry for entry in lists if id(entry[1]) in inside] or lists
    depth = min((name.count(".") for name, _ in lists), default=0)
    lists = [entry for entry in lists if entry[0].count(".") == depth]
    if len(lists) != 1:
        found = ", ".join(name for name, _ in lists) or "none"
        raise LayoutError(
            f"{type(model).__name__}: looked for the list of its {n_layers} decoder layers; "
            f"found {found}"
        )
    return lists[0]


def _check_shapes(found: Match, checkpoint: Checkpoint) -> None:
    for hookpoint in found.hookpoints:
        name = found.weight(hookpoint)
        shape = writer_shape(found.layout, checkpoint, name)
        if len(shape) != 2 or shape[0] != checkpoint.d_model:
            raise LayoutError(
                f"{checkpoint.ref}: {name} has shape {list(checkpoint.tensors.shape(name))}; "
                f"a writer to a residual stream of width {checkpoint.d_model} was looked for"
            )
        gain = found.gain(hookpoint)
        if gain and checkpoint.tensors.shape(gain) != (checkpoint.d_model,):
            raise LayoutError(
                f"{checkpoint.ref}: {gain} has shape {list(checkpoint.tensors.shape(gain))}; "
                f"the gain of a norm of width {checkpoint.d_model} was looked for"
            )


def _mismatch(
    layout: Layout,
    checkpoint: Checkpoint,
    found: Mapping[str, set[tuple[int, str]]],
    wanted: set[tuple[int, str]],
) -> str:
    head = f"{checkpoint.ref} ({checkpoint.model_type})"
    names = f"{layout.layers}.<layer>.{{{layout.o_proj}, {layout.down_proj}}}.weight"
    if any(".experts." in name for name in checkpoint.tensors):
        return f"{head}: is a mixture of experts, which cannot be read yet; looked for {names}"
    if not found:
        sample: Sequence[str] = sorted(checkpoint.tensors)[:3]
        return f"{head}: looked for tensors {names}; found none, but such as {', '.join(sample)}"
    best = max(found, key=lambda prefix: len(found[prefix] & wanted))
    missing = sorted(wanted - found[best])
    if missing:
        layer, module = missing[0]
        return (
            f"{head}: looked for {names} in {checkpoint.n_layers} layers; layer {layer} has no "
            f"{best}{layout.layers}.{layer}.{module}.weight ({len(missing)} are missing in all)"
        )
    return f"{head}: looked for {names}; found several: {', '.join(sorted(found))}"
