"""Where are the matrices of the decoder layers? The table's names found in a checkpoint, and the
decoder layers of a loaded model.

A writer gives what is added to the residual stream, a reader takes it in; see
:mod:`builder.weights.parts` for what a matrix is stored as. Hybrids, whose layers do not all have
the two writers, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from builder.errors import LayoutError
from builder.records import READERS, WRITERS, Hookpoint
from builder.weights.checkpoint import MAX_LAYERS, Checkpoint
from builder.weights.parts import NUMBER, Layer, Matrix, Part, has_writers, reader, writer
from builder.weights.table import NORMS, Layout, table

__all__ = [
    "NORMS",
    "Layout",
    "Match",
    "Part",
    "decoder_layers",
    "decoder_stack",
    "match",
    "table",
]


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A layout found in a checkpoint: its matrices, and the prefix that names have there.

    ``hookpoints`` are the writers, by layer, then ``o_proj`` before ``down_proj``. ``unread`` says
    of every reader that has no hookpoint, why.
    """

    layout: Layout
    prefix: str
    hookpoints: tuple[Hookpoint, ...]
    unread: Mapping[str, str]
    matrices: Mapping[Hookpoint, tuple[Part, ...]]

    def parts(self, hookpoint: Hookpoint) -> tuple[Part, ...]:
        """The parts of a matrix, joined along the input of a writer, the output of a reader."""
        return self.matrices[hookpoint]

    def readers(self) -> tuple[Hookpoint, ...]:
        """The matrices that read the residual stream, by layer, then in the order of READERS."""
        return tuple(place for place in self.matrices if place.writer in READERS)

    def gain(self, hookpoint: Hookpoint) -> str:
        """Name of the weight of the norm after a writer; empty without one, and for a reader."""
        name = self.layout.gain(hookpoint.writer) if hookpoint.writer in WRITERS else ""
        place = f"{self.prefix}{self.layout.layers}.{hookpoint.layer}"
        return f"{place}.{name}.weight" if name else ""

    def heads(self) -> tuple[str, ...]:
        """Names that the unembedding may have; in a wrapper it may be inside the language model."""
        names = [name for name in (self.layout.head, self.layout.head_stored) if name]
        outer = self.prefix.split(".")[:-2]
        inside = [
            ".".join([*outer[: end + 1], name]) for end in range(len(outer)) for name in names
        ]
        return tuple(f"{name}.weight" for name in (*names, *inside))


def match(layout: Layout, checkpoint: Checkpoint) -> Match:
    """The matrices of a layout in a checkpoint, from the names and shapes of its tensors.

    The prefix before the list of layers is whatever the checkpoint has (``model.``,
    ``transformer.`` or nothing). Raises LayoutError naming what was looked for; a reader that
    cannot be found is none, it is only noted.
    """
    stacks = _stacks(layout, checkpoint)
    prefix = _prefix(layout, checkpoint, stacks)
    layers = [
        Layer(
            checkpoint,
            layout,
            f"{prefix}{layout.layers}.{index}.",
            frozenset(stacks[prefix].get(index, ())),
        )
        for index in range(checkpoint.n_layers)
    ]
    _check_depth(checkpoint, stacks[prefix], layers)
    written = {name: [writer(layer, name) for layer in layers] for name in WRITERS}
    found: dict[str, list[Matrix]] = {}
    unread: dict[str, str] = {}
    for name in READERS:
        try:
            found[name] = [reader(layer, name) for layer in layers]
        except LayoutError as error:
            unread[name] = str(error).removeprefix(f"{checkpoint.ref}: ")
    matrices = {
        Hookpoint(index, name, of_layer[index].module): of_layer[index].parts
        for index in range(checkpoint.n_layers)
        for name, of_layer in (*written.items(), *found.items())
    }
    hookpoints = tuple(place for place in matrices if place.writer in WRITERS)
    result = Match(layout, prefix, hookpoints, unread, matrices)
    _check_gains(result, checkpoint)
    return result


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


def _stacks(layout: Layout, checkpoint: Checkpoint) -> dict[str, dict[int, set[str]]]:
    """Prefix, layer and inner names of all tensors that are in a list of the layout's name."""
    pattern = re.compile(rf"((?:.*\.)?){re.escape(layout.layers)}\.{NUMBER}\.(.+)")
    stacks: dict[str, dict[int, set[str]]] = {}
    for name in checkpoint.tensors:
        if hit := pattern.fullmatch(name):
            stacks.setdefault(hit[1], {}).setdefault(int(hit[2]), set()).add(hit[3])
    return stacks


def _prefix(
    layout: Layout, checkpoint: Checkpoint, stacks: Mapping[str, Mapping[int, set[str]]]
) -> str:
    """What stands before the list of decoder layers, which other lists may look like."""
    o_proj = f"{layout.o_proj}.weight"
    found = [
        prefix
        for prefix, layers in stacks.items()
        if any(o_proj in inner or _writes(layout, inner) for inner in layers.values())
    ]
    head = f"{checkpoint.ref} ({checkpoint.model_type})"
    after = " or ".join([name for name in (layout.down_proj, *layout.mixture) if name])
    looked = f"looked for {layout.layers}.<layer>.{{{layout.o_proj}, {after}}}"
    if not found:
        sample = sorted(checkpoint.tensors)[:3]
        raise LayoutError(f"{head}: {looked}; found none, but such as {', '.join(sample)}")
    if len(found) == 1 and checkpoint.config is checkpoint.text_config:
        return found[0]
    # A vision tower may have layers of the same names and width, even more of them. The language
    # model's are the ones beside the embedding of its tokens.
    beside = [prefix for prefix in found if _embeds(layout, checkpoint, prefix)]
    if len(beside) != 1:
        raise LayoutError(
            f"{head}: {looked} beside {layout.embed}.weight of width {checkpoint.d_model}; found "
            f"{len(beside) or 'none'} among {', '.join(sorted(found)[:5])}"
        )
    return beside[0]


def _writes(layout: Layout, names: set[str]) -> bool:
    """Whether some name may be that of a writer after the attention."""
    if layout.down_proj and f"{layout.down_proj}.weight" in names:
        return True
    return any(name.startswith(f"{module}.") for module in layout.mixture for name in names)


def _embeds(layout: Layout, checkpoint: Checkpoint, prefix: str) -> bool:
    name = f"{prefix}{layout.embed}.weight"
    if name not in checkpoint.tensors:
        return False
    return checkpoint.tensors.shape(name)[1:] == (checkpoint.d_model,)


def _check_depth(
    checkpoint: Checkpoint, stack: Mapping[int, set[str]], layers: list[Layer]
) -> None:
    """Raises LayoutError if fewer layers have writers than configured, by name of one, or more."""
    n_layers = checkpoint.n_layers
    missing = [layer for layer in layers if not has_writers(layer)]
    if missing:
        try:
            for name in WRITERS:
                writer(missing[0], name)
        except LayoutError as error:
            raise LayoutError(f"{error} (layers without a writer: {len(missing)})") from error
    # Layers after the last guess further tokens in training and are no part of the decoder.
    guessing = getattr(checkpoint.text_config, "num_nextn_predict_layers", None)
    guessing = guessing if isinstance(guessing, int) else 0
    layout = layers[0].layout
    extra = [
        index
        for index, names in stack.items()
        if index >= n_layers + guessing
        and (f"{layout.o_proj}.weight" in names or _writes(layout, names))
    ]
    if extra:
        raise LayoutError(
            f"{checkpoint.ref}: config.json says {n_layers} decoder layers, the weights "
            f"go on to layer {max(extra)}"
        )


def _check_gains(found: Match, checkpoint: Checkpoint) -> None:
    for hookpoint in found.hookpoints:
        gain = found.gain(hookpoint)
        if gain and checkpoint.tensors.shape(gain) != (checkpoint.d_model,):
            raise LayoutError(
                f"{checkpoint.ref}: {gain} has shape {list(checkpoint.tensors.shape(gain))}; "
                f"the gain of a norm of width {checkpoint.d_model} was looked for"
            )
