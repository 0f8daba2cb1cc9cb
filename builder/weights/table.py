"""What do checkpoints call their tensors? The table of architectures, as it is in ``layouts.toml``.

Data only: :mod:`builder.weights.parts` looks the names up in a checkpoint, and
:mod:`builder.weights.infer` finds a layout for what is not in the table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from builder.errors import LayoutError

#: Forms a norm can have: what is divided out, and what the stored weight means.
NORMS = ("rms", "rms_plus", "rms_plain", "layer", "layer_plus", "layer_plain")
#: Orders in which a fused projection can hold its parts; see ``layouts.toml``.
_QKV_ORDERS = ("", "joined", "grouped")
_GATE_UP_ORDERS = ("", "halves", "alternating")
_NAMES = ("qkv", "mlp_in", "mixture")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Module names of the matrices and of what surrounds them, as in ``layouts.toml``.

    ``origin`` says where the layout comes from. ``post_norm`` is the form of ``o_norm`` and
    ``down_norm``, ``norm`` that of ``final_norm``. ``down_proj`` is that of layers with a plain
    MLP; empty where every layer is a mixture of experts.
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
    qkv: tuple[str, ...] = ()
    qkv_order: str = ""
    mlp_in: tuple[str, ...] = ()
    gate_up_order: str = ""
    mixture: tuple[str, ...] = ()
    shared: str = ""
    expert_side: str = "columns"
    origin: str = ""

    def writer(self, writer: str) -> str:
        """Module name of a writer inside a layer; of ``down_proj``, one with a plain MLP."""
        return self.o_proj if writer == "o_proj" else self.down_proj

    def gain(self, writer: str) -> str:
        """Module name of the norm that follows a writer inside a layer; empty without one."""
        return self.o_norm if writer == "o_proj" else self.down_norm

    @property
    def is_post_norm(self) -> bool:
        """Whether what a writer gives passes a norm before it is added to the residual stream."""
        return bool(self.o_norm or self.down_norm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Names of the tensors of an MLP or of experts inside their module, in one of several ways.

    ``#`` stands for an expert's number. ``gate_up`` holds both the gate's rows and the others'.
    """

    down_proj: str
    gate_proj: str = ""
    up_proj: str = ""
    gate_up: str = ""


@cache
def table() -> Mapping[str, Layout]:
    """The layouts of ``layouts.toml`` by model type."""
    known = {field.name for field in fields(Layout)}
    layouts: dict[str, Layout] = {}
    for name, entry in _read()["layout"].items():
        values: dict[str, Any] = dict(entry)
        model_types = values.pop("model_types")
        if (
            set(values) - known
            or values["norm"] not in NORMS
            or values.get("qkv_order", "") not in _QKV_ORDERS
            or values.get("gate_up_order", "") not in _GATE_UP_ORDERS
        ):
            raise LayoutError(f"layouts.toml: [{name}] holds a key or value that does not exist")
        values |= {key: tuple(values[key]) for key in _NAMES if key in values}
        post_norm = values["norm"] if values.get("o_norm") or values.get("down_norm") else ""
        layout = Layout(**values, post_norm=post_norm, origin=f"table: {name}")
        layouts.update(dict.fromkeys(model_types, layout))
    return layouts


@cache
def stored_experts() -> tuple[Stored, ...]:
    """The ways in which checkpoints store the experts of a mixture, inside its module."""
    return tuple(Stored(**entry) for entry in _read()["experts"].values())


@cache
def stored_shared() -> tuple[Stored, ...]:
    """The ways in which checkpoints store a shared expert, inside its module."""
    return tuple(Stored(**entry) for entry in _read()["shared"].values())


@cache
def _read() -> dict[str, Any]:
    text = Path(__file__).with_name("layouts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
