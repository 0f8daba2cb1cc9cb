"""Which modules write to the residual stream of an architecture that is in no table?

A model of the same configuration is made on the meta device, where tensors have shapes but no
data, and watched in one forward pass: a writer is the linear module whose output leaves its
attention or MLP block unchanged; a norm that takes exactly this output stands between the writer
and the residual stream. What a norm does with its weight is tried on a copy with known weights.
Only code of the installed transformers runs. What cannot be told apart is refused.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from builder.errors import LayoutError
from builder.weights.layout import NORMS, Layout, decoder_stack, table
from builder.weights.reasons import reason

_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(eq=False)
class _Call:
    """What went into and came out of one module, views replaced by what they look at.

    ``shape`` is that of the output as it came. The tensors are held, so that two that are the same
    object are the same value.
    """

    order: int
    given: torch.Tensor | None
    made: torch.Tensor | None
    shape: tuple[int, ...]


def find_layout(config: Any) -> Layout:
    """The layout for a transformers configuration: from the table, else watched.

    Raises LayoutError naming what was looked for.
    """
    text = config.get_text_config(decoder=True)
    known = table().get(str(text.model_type))
    return known if known is not None else infer_layout(text)


def infer_layout(config: Any) -> Layout:
    """The layout watched in a forward pass on the meta device; see the module's header."""
    name = str(config.model_type)
    d_model = getattr(config, "hidden_size", None)
    if not isinstance(d_model, int):
        raise LayoutError(f"{name}: its configuration gives no hidden_size")
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), trust_remote_code=False, attn_implementation="eager"
            )
    except _FAILURES as error:
        raise LayoutError(
            _cannot(name, "no model could be made from config.json", error)
        ) from error
    model.eval()
    path, stack = decoder_stack(model)
    layer = stack[0]
    if any(part == "experts" for part, _ in _leaves(stack)):
        raise LayoutError(f"{name}: is a mixture of experts, which cannot be read yet")
    parent = model.get_submodule(path.rpartition(".")[0])
    watched = {f"layer.{inner}": module for inner, module in layer.named_modules() if inner}
    watched |= {"layer": layer, "stack": parent}
    watched |= {f"stack.{inner}": child for inner, child in parent.named_children()}
    try:
        calls = _watch(model, watched)
    except _FAILURES as error:
        raise LayoutError(_cannot(name, "it cannot run without data", error)) from error
    writers = _writers(name, layer, calls, d_model)
    gains = {key: _gain(name, layer, calls, inner) for key, inner in writers.items()}
    final = _final_norm(name, parent, calls)
    forms = {
        _norm_form(name, layer.get_submodule(gain), d_model) for gain in gains.values() if gain
    }
    if len(forms) > 1 or any(not form.startswith("rms") for form in forms):
        raise LayoutError(
            f"{name}: the norms after its writers are {', '.join(sorted(forms))}; only RMS norms "
            "can be folded into the weights"
        )
    head = model.get_output_embeddings()  # type: ignore[operator]
    embed = model.get_input_embeddings()  # type: ignore[operator]
    modules = {id(module): inner for inner, module in model.named_modules()}
    linear = layer.get_submodule(writers["o_proj"])
    return Layout(
        layers=path.rpartition(".")[2],
        o_proj=writers["o_proj"],
        down_proj=writers["down_proj"],
        o_norm=gains["o_proj"],
        down_norm=gains["down_proj"],
        post_norm=next(iter(forms), ""),
        final_norm=final,
        norm=_norm_form(name, parent.get_submodule(final), d_model),
        embed=modules.get(id(embed), "").rpartition(".")[2],
        head=modules.get(id(head), ""),
        input_side="rows" if isinstance(linear, Conv1D) else "columns",
        origin="watched in a forward pass on the meta device",
    )


def _watch(model: nn.Module, watched: dict[str, nn.Module]) -> dict[str, _Call]:
    """One forward pass of three tokens; the last call of every watched module by its name."""
    calls: dict[str, _Call] = {}
    handles = []
    for key, module in watched.items():

        def record(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, key: str = key
        ) -> None:
            given = _first_tensor(args) if args else _first_tensor(list(kwargs.values()))
            made = _first_tensor(out)
            shape = () if made is None else tuple(made.shape)
            calls[key] = _Call(len(calls), _root(given), _root(made), shape)

        handles.append(module.register_forward_hook(record, with_kwargs=True))
    try:
        ids = torch.zeros(1, 3, dtype=torch.long, device="meta")
        with torch.no_grad():
            # An explicit mask: without one, transformers looks into the (absent) positions.
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _writers(name: str, layer: nn.Module, calls: dict[str, _Call], d_model: int) -> dict[str, str]:
    """``o_proj`` and ``down_proj`` to module names inside the layer."""
    shape = calls["layer"].shape if "layer" in calls else ()
    if shape != (1, 3, d_model):
        raise LayoutError(
            f"{name}: a decoder layer gives {list(shape)}; looked for [1, 3, {d_model}]"
        )
    output = calls["layer"].made
    if any(
        _is_norm(module) and _made(calls, f"layer.{inner}") is output
        for inner, module in layer.named_modules()
    ):
        raise LayoutError(
            f"{name}: its layers end in a norm of the residual stream itself, which cannot be read"
        )
    found: dict[str, list[str]] = {"o_proj": [], "down_proj": []}
    for inner, module in layer.named_modules():
        if not _writes(module, d_model) or _made(calls, f"layer.{inner}") is None:
            continue
        block = inner
        while "." in block:
            outer = block.rpartition(".")[0]
            if _made(calls, f"layer.{outer}") is not _made(calls, f"layer.{inner}"):
                break
            block = outer
        if "." not in block:
            found[_kind(block)].append(inner)
    if any(len(names) != 1 for names in found.values()):
        raise LayoutError(
            f"{name}: looked for one linear module of width {d_model} that ends the attention and "
            f"one that ends the MLP of a layer; found {found['o_proj'] or 'none'} and "
            f"{found['down_proj'] or 'none'}"
        )
    return {writer: names[0] for writer, names in found.items()}


def _gain(name: str, layer: nn.Module, calls: dict[str, _Call], writer: str) -> str:
    """The norm inside the layer that takes a writer's output and nothing else; empty without."""
    written = _made(calls, f"layer.{writer}")
    norms = [
        inner
        for inner, module in layer.named_modules()
        if _is_norm(module)
        and f"layer.{inner}" in calls
        and calls[f"layer.{inner}"].given is written
    ]
    if len(norms) > 1:
        raise LayoutError(f"{name}: {writer} is followed by several norms: {', '.join(norms)}")
    return norms[0] if norms else ""


def _final_norm(name: str, parent: nn.Module, calls: dict[str, _Call]) -> str:
    last = calls["layer"].order if "layer" in calls else -1
    norms = [
        (calls[f"stack.{inner}"].order, inner)
        for inner, child in parent.named_children()
        if _is_norm(child) and f"stack.{inner}" in calls
    ]
    after = [inner for order, inner in sorted(norms) if order > last]
    if not after:
        raise LayoutError(f"{name}: looked for a norm after the last decoder layer; found none")
    return after[-1]


def _norm_form(name: str, module: nn.Module, d_model: int) -> str:
    """Which of the known forms a norm module has, tried on a copy with known weights."""
    trial = copy.deepcopy(module).to_empty(device="cpu").to(torch.float32)
    weights = dict(trial.named_parameters())
    if not set(weights) <= {"weight", "bias"}:
        raise LayoutError(f"{name}: its norm {type(module).__name__} has weights of its own kind")
    x = torch.linspace(-1.0, 3.0, d_model).reshape(1, 1, d_model)
    try:
        with torch.no_grad():
            for parameter in weights.values():
                parameter.zero_()
            plus = bool(trial(x).abs().max() > 1e-3)
            if "weight" in weights and not plus:
                weights["weight"].fill_(1.0)
            result = trial(x)
    except _FAILURES as error:
        raise LayoutError(_cannot(name, "its norm could not be tried", error)) from error
    suffix = ("_plus" if plus else "") if "weight" in weights else "_plain"
    centred = x - x.mean()
    for form, value in (("rms", x), ("layer", centred)):
        expected = value / value.square().mean().sqrt()
        if torch.allclose(result, expected, atol=1e-3) and form + suffix in NORMS:
            return form + suffix
    raise LayoutError(
        f"{name}: its norm {type(module).__name__} is neither an RMS nor a layer norm"
    )


def _first_tensor(value: Any) -> torch.Tensor | None:
    """The first tensor in nested sequences or a model output."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            if (tensor := _first_tensor(item)) is not None:
                return tensor
    return None


def _root(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The tensor that a view looks at; any other tensor as it is."""
    return tensor if tensor is None or tensor._base is None else tensor._base


def _made(calls: dict[str, _Call], key: str) -> torch.Tensor | None:
    return calls[key].made if key in calls else None


def _leaves(stack: nn.ModuleList) -> list[tuple[str, nn.Module]]:
    return [(inner.rpartition(".")[2], module) for inner, module in stack.named_modules()]


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _writes(module: nn.Module, d_model: int) -> bool:
    if isinstance(module, Conv1D):
        return bool(module.weight.shape[1] == d_model)
    return isinstance(module, nn.Linear) and module.out_features == d_model


def _kind(block: str) -> str:
    return "o_proj" if "att" in block.lower() else "down_proj"


def _cannot(name: str, what: str, error: BaseException) -> str:
    return (
        f"{name}: is not in the table of layouts, and looking for its writers on the meta device "
        f"failed: {what} ({reason(error)})"
    )
