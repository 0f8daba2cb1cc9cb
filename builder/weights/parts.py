"""Which stored tensors make up one matrix of a decoder layer?

A matrix [d_out, d_in] may be a tensor of its own, some rows of a fused one, or all experts of a
mixture, in one tensor or one each. Names come from the table, shapes from headers, and how many
experts and heads there must be from the configuration; what does not agree is refused by name.
Reads no weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builder.errors import LayoutError
from builder.weights.checkpoint import Checkpoint
from builder.weights.table import Layout, Stored, stored_experts, stored_shared

#: A configuration that asks for more experts is damaged or hostile.
MAX_EXPERTS = 10_000
#: A number in a tensor's name: written in one way only, and short.
NUMBER = "(0|[1-9][0-9]{0,5})"
#: Names that configurations have for the number of experts.
EXPERT_COUNTS = ("n_routed_experts", "moe_num_experts", "num_local_experts", "num_experts")
_SHARED_COUNTS = ("n_shared_experts", "moe_num_shared_experts", "shared_intermediate_size")


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
class Matrix:
    """The module path that a matrix goes by, and its parts in order."""

    module: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """The tensors of one decoder layer: ``path`` is ``model.layers.3.``, ``names`` what follows."""

    checkpoint: Checkpoint
    layout: Layout
    path: str
    names: frozenset[str]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor of the layer as stored."""
        return self.checkpoint.tensors.shape(self.path + name)

    def error(self, message: str) -> LayoutError:
        """An error that starts with the checkpoint's name."""
        return LayoutError(f"{self.checkpoint.ref}: {message}")

    def need(self, name: str) -> str:
        """The name, if the layer has such a tensor; raises LayoutError if not."""
        if name not in self.names:
            raise self.error(f"has no {self.path}{name}")
        return name


def expert_count(config: Any) -> int:
    """Number of experts of a mixture's layers by its configuration; raises LayoutError without."""
    for key in EXPERT_COUNTS:
        value = getattr(config, key, None)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_EXPERTS:
            raise LayoutError(
                f"config.json gives {key} = {value!r}; a mixture of experts needs a whole number "
                f"from 1 to {MAX_EXPERTS}"
            )
        return value
    raise LayoutError(
        f"config.json gives no number of experts (looked for {', '.join(EXPERT_COUNTS)})"
    )


def has_writers(layer: Layer) -> bool:
    """Whether the layer has both writers, as far as names tell."""
    layout = layer.layout
    if f"{layout.o_proj}.weight" not in layer.names:
        return False
    dense = bool(layout.down_proj) and f"{layout.down_proj}.weight" in layer.names
    return dense or bool(_found_experts(layer))


def writer(layer: Layer, name: str) -> Matrix:
    """``o_proj`` or ``down_proj`` of a layer; raises LayoutError naming what is missing."""
    layout = layer.layout
    turned = layout.input_side == "rows"
    if name == "o_proj" or not layout.mixture:
        return _plain(layer, layout.writer(name), turned, output=True)
    dense = bool(layout.down_proj) and f"{layout.down_proj}.weight" in layer.names
    experts = _found_experts(layer)
    if dense and experts:
        raise layer.error(
            f"{layer.path}{layout.down_proj}.weight and experts in {layer.path}{experts[0][0]} are "
            "in one layer; only one of them can be read"
        )
    if dense:
        return _plain(layer, layout.down_proj, turned, output=True)
    return _experts(layer, experts, "down_proj")


def reader(layer: Layer, name: str) -> Matrix:
    """One of READERS of a layer; raises LayoutError in words that say why there is none."""
    layout = layer.layout
    if name in ("q_proj", "k_proj", "v_proj"):
        return _attention_reader(layer, name)
    experts = _found_experts(layer) if layout.mixture else []
    if experts:
        return _experts(layer, experts, name)
    turned = layout.input_side == "rows"
    if not layout.mlp_in:
        raise layer.error(f"where the MLP reads is not known of {layout.origin}")
    if layout.gate_up_order and len(layout.mlp_in) == 1:
        return Matrix(
            f"{layer.path}{layout.mlp_in[0]}",
            (_half(layer, f"{layout.mlp_in[0]}.weight", name, turned),),
        )
    if name == "up_proj":
        return _plain(layer, layout.mlp_in[-1], turned, output=False)
    if len(layout.mlp_in) == 1:
        raise layer.error("its MLP has no gate")
    return _plain(layer, layout.mlp_in[0], turned, output=False)


def _plain(layer: Layer, module: str, turned: bool, *, output: bool) -> Matrix:
    """A matrix with a tensor of its own; ``output``: the side that is as wide as the stream."""
    name = layer.need(f"{module}.weight")
    _check(layer, name, layer.shape(name), turned, output=output)
    return Matrix(f"{layer.path}{module}", (Part(layer.path + name, transposed=turned),))


def _check(
    layer: Layer, name: str, shape: tuple[int, ...], turned: bool, *, output: bool
) -> tuple[int, int]:
    """(d_out, d_in) of a stored shape; raises LayoutError if it does not meet the stream."""
    width = layer.checkpoint.d_model
    if len(shape) == 2:
        d_out, d_in = shape[::-1] if turned else shape
        if (d_out if output else d_in) == width:
            return d_out, d_in
    what = "writer to" if output else "reader of"
    raise layer.error(
        f"{layer.path}{name} has shape {list(layer.shape(name))}; a {what} a residual stream of "
        f"width {width} was looked for"
    )


def _attention_reader(layer: Layer, name: str) -> Matrix:
    layout = layer.layout
    turned = layout.input_side == "rows"
    if not layout.qkv:
        raise layer.error(f"where the attention reads is not known of {layout.origin}")
    place = ("q_proj", "k_proj", "v_proj").index(name)
    if not layout.qkv_order:
        return _plain(layer, layout.qkv[place], turned, output=False)
    module = layout.qkv[0]
    tensor = layer.need(f"{module}.weight")
    rows, _ = _check(layer, tensor, layer.shape(tensor), turned, output=False)
    heads, key_heads, size = _heads(layer, tensor, rows)
    if layout.qkv_order == "joined":
        ends = (0, heads * size, (heads + key_heads) * size, rows)
        ranges = [(ends[place], ends[place + 1])]
    else:
        queries = heads // key_heads
        start, stop = ((0, queries), (queries, queries + 1), (queries + 1, queries + 2))[place]
        ranges = [
            (size * (group * (queries + 2) + start), size * (group * (queries + 2) + stop))
            for group in range(key_heads)
        ]
    path = layer.path + tensor
    parts = tuple(Part(path, rows=piece, transposed=turned) for piece in ranges)
    return Matrix(f"{layer.path}{module}", parts)


def _heads(layer: Layer, tensor: str, rows: int) -> tuple[int, int, int]:
    """(heads, heads of k and v, rows of a head) of a fused projection, from its shape."""
    config = layer.checkpoint.text_config
    heads = getattr(config, "num_attention_heads", None)
    o_proj = layer.need(f"{layer.layout.o_proj}.weight")
    turned = layer.layout.input_side == "rows"
    _, d_in = _check(layer, o_proj, layer.shape(o_proj), turned, output=True)
    # The writer reads all heads side by side, which the configuration may leave out to say; how
    # many heads of k there are, architectures say in ways of their own, and the rows in one.
    if isinstance(heads, int) and not isinstance(heads, bool) and heads > 0 and d_in % heads == 0:
        size = d_in // heads
        key_heads, rest = divmod(rows - d_in, 2 * size)
        stated = getattr(config, "num_key_value_heads", None)
        agrees = layer.layout.qkv_order == "grouped" or stated in (None, key_heads)
        if rest == 0 and key_heads > 0 and heads % key_heads == 0 and agrees:
            return heads, key_heads, size
    raise layer.error(
        f"{layer.path}{tensor} has {rows} rows, which are not q, k and v of {heads!r} heads of a "
        f"layer whose o_proj reads {d_in}"
    )


def _half(
    layer: Layer, name: str, reader: str, turned: bool, expert: tuple[int, int] | None = None
) -> Part:
    """The gate's or the other rows of a fused tensor; ``expert`` is (place, number of them)."""
    layer.need(name)
    if layer.layout.gate_up_order != "halves":
        raise layer.error(
            f"{layer.path}{name} holds the gate's rows and the others' "
            + ("by turns" if layer.layout.gate_up_order else "in an order that is not known")
        )
    shape = layer.shape(name)
    rows, _ = _check(layer, name, shape[1:] if expert else shape, turned, output=False)
    if rows % 2 or (expert and shape[0] != expert[1]):
        raise layer.error(f"{layer.path}{name} has shape {list(shape)}; two halves were looked for")
    span = (0, rows // 2) if reader == "gate_proj" else (rows // 2, rows)
    return Part(layer.path + name, expert[0] if expert else None, span, turned)


def _found_experts(layer: Layer) -> list[tuple[str, Stored, frozenset[int]]]:
    """Module, way of storing and numbers (of numbered ones) of all experts that the layer has."""
    found = []
    for module in layer.layout.mixture:
        for stored in stored_experts():
            name = f"{module}.{stored.down_proj}"
            if "#" not in name:
                if name in layer.names:
                    found.append((module, stored, frozenset[int]()))
                continue
            pattern = re.compile(re.escape(name).replace(r"\#", NUMBER))
            hits = (pattern.fullmatch(inner) for inner in layer.names)
            numbers = frozenset(int(hit[1]) for hit in hits if hit)
            if numbers:
                found.append((module, stored, numbers))
    return found


def _experts(
    layer: Layer, found: Sequence[tuple[str, Stored, frozenset[int]]], name: str
) -> Matrix:
    """A matrix of all experts in the order of their numbers, the shared one last."""
    layout = layer.layout
    if not found:
        ways = ", ".join(
            f"{module}.{stored.down_proj}"
            for module in layout.mixture
            for stored in stored_experts()
        )
        dense = f"{layout.down_proj}.weight, " if layout.down_proj else ""
        raise layer.error(
            f"{layer.path}* has nothing that writes after the attention; looked for {dense}{ways} "
            "(# is the number of an expert)"
        )
    if len(found) > 1:
        both = " and ".join(f"{layer.path}{module}.{way.down_proj}" for module, way, _ in found)
        raise layer.error(f"holds experts twice, as {both}")
    module, stored, numbers = found[0]
    try:
        count = expert_count(layer.checkpoint.text_config)
    except LayoutError as error:
        raise layer.error(str(error)) from error
    if numbers:
        parts = _numbered(layer, f"{module}.", stored, numbers, count, name)
    else:
        parts = _fused(layer, f"{module}.", stored, count, name)
    parts += _shared(layer, name)
    return Matrix(f"{layer.path}{layout.mixture[0]}.experts", tuple(parts))


def _numbered(
    layer: Layer, module: str, stored: Stored, numbers: frozenset[int], count: int, name: str
) -> list[Part]:
    """Experts that have tensors of their own."""
    here = f"{layer.path}{module}"
    missing = next(number for number in range(len(numbers) + 1) if number not in numbers)
    if missing < count:
        raise layer.error(
            f"config.json says {count} experts, but there is no "
            f"{here}{stored.down_proj.replace('#', str(missing))} ({len(numbers)} were found)"
        )
    if len(numbers) > count:
        raise layer.error(
            f"config.json says {count} experts, the weights have "
            f"{here}{stored.down_proj.replace('#', str(max(numbers)))}"
        )
    template = module + getattr(stored, name)
    parts = []
    for number in range(count):
        tensor = layer.need(template.replace("#", str(number)))
        _check(layer, tensor, layer.shape(tensor), turned=False, output=name == "down_proj")
        parts.append(Part(layer.path + tensor))
    return parts


def _fused(layer: Layer, module: str, stored: Stored, count: int, name: str) -> list[Part]:
    """Experts that are in one tensor."""
    down = module + stored.down_proj
    shape = layer.shape(down)
    if len(shape) != 3 or shape[0] != count:
        raise layer.error(
            f"{layer.path}{down} has shape {list(shape)}; config.json says {count} experts, and "
            f"[{count}, d_out, d_in] was looked for"
        )
    turned = _turned(layer, module, stored, shape)
    if name == "down_proj":
        _check(layer, down, shape[1:], turned, output=True)
        return [Part(layer.path + down, expert, None, turned) for expert in range(count)]
    fused = module + stored.gate_up
    return [_half(layer, fused, name, turned, (expert, count)) for expert in range(count)]


def _turned(layer: Layer, module: str, stored: Stored, shape: tuple[int, ...]) -> bool:
    """Whether experts in one tensor are stored [experts, d_in, d_out]."""
    width = layer.checkpoint.d_model
    if shape[1] != shape[2]:
        return shape[1] != width
    # Square experts look the same both ways. What gate and up are fused in, twice as long on one
    # side, is stored the same way round; without it the table has to know.
    beside = module + stored.gate_up
    if stored.gate_up and beside in layer.names:
        fused = layer.shape(beside)
        if len(fused) == 3 and fused[1] != fused[2] and width in fused[1:]:
            return fused[1] == width
    return layer.layout.expert_side == "rows"


def _shared(layer: Layer, name: str) -> list[Part]:
    """The expert that every token takes, where the architecture has one."""
    module = layer.layout.shared
    if not module:
        return []
    for stored in stored_shared():
        tensor = f"{module}.{getattr(stored, name)}"
        if getattr(stored, name) and tensor in layer.names:
            _check(layer, tensor, layer.shape(tensor), turned=False, output=name == "down_proj")
            return [Part(layer.path + tensor)]
        fused = f"{module}.{stored.gate_up}"
        if stored.gate_up and name != "down_proj" and fused in layer.names:
            return [_half(layer, fused, name, turned=False)]
    config = layer.checkpoint.text_config
    if any(not getattr(config, key) for key in _SHARED_COUNTS if hasattr(config, key)):
        return []  # the architecture may have one, this model has none
    ways = sorted({f"{layer.path}{module}.{stored.down_proj}" for stored in stored_shared()})
    raise layer.error(f"has no shared expert; looked for {' and '.join(ways)}")
