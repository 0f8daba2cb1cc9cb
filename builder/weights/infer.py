"""Which modules write to the residual stream of an architecture that is in no table?

A model of the same configuration is made on the meta device, where tensors have shapes but no
data, and watched in one forward pass: a writer is the linear module, or the module of experts,
whose output leaves its attention or MLP block without being turned (a shared expert's may be added
to it); a norm that takes exactly this stands between the writer and the residual stream. What a
norm does with its weight is tried on a copy with known weights. Only code of the installed
transformers runs. What cannot be told apart is refused.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModel, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from builder.errors import LayoutError
from builder.weights.checkpoint import MAX_LAYERS
from builder.weights.layout import NORMS, Layout, decoder_stack, table
from builder.weights.parts import EXPERT_COUNTS, MAX_EXPERTS
from builder.weights.reasons import reason
from builder.weights.watch import Call, inside, storage, watch

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
    _check_size(name, config)
    try:
        model = _meta_model(config)
    except _FAILURES as error:
        raise LayoutError(
            _cannot(name, "no model could be made from config.json", error)
        ) from error
    path, stack = decoder_stack(model)
    parent = model.get_submodule(path.rpartition(".")[0])
    # Layers with a plain MLP and with a mixture of experts: the first of each kind.
    kinds = {bool(_experts_in(layer)): layer for layer in reversed(stack)}
    watched = {"stack": parent}
    watched |= {f"stack.{inner}": child for inner, child in parent.named_children()}
    for kind, layer in kinds.items():
        watched |= {f"{kind}.{inner}": module for inner, module in layer.named_modules() if inner}
        watched[str(kind)] = layer
    try:
        calls = watch(model, watched, lambda module: _writes(module, d_model))
    except _FAILURES as error:
        raise LayoutError(_cannot(name, "it cannot run without data", error)) from error
    found = [
        _of_layer(name, layer, inside(calls, str(kind)), d_model) for kind, layer in kinds.items()
    ]
    values = found[0] | found[-1]
    differing = sorted(key for key in found[0].keys() & found[-1] if found[0][key] != values[key])
    if differing:
        raise LayoutError(
            f"{name}: its layers with and without experts differ in {', '.join(differing)}"
        )
    final = _final_norm(name, parent, calls, max(calls[str(kind)].order for kind in kinds))
    modules = {id(module): inner for inner, module in model.named_modules()}
    embed = model.get_input_embeddings()  # type: ignore[operator]
    head = model.get_output_embeddings()  # type: ignore[operator]
    return Layout(
        **{"down_proj": ""} | values,
        layers=path.rpartition(".")[2],
        final_norm=final,
        norm=_norm_form(name, parent.get_submodule(final), d_model),
        embed=modules.get(id(embed), "").rpartition(".")[2],
        # A part of a wrapper has no head of its own; the wrapper's goes by this name.
        head="lm_head" if head is None else modules.get(id(head), ""),
        origin="watched in a forward pass on the meta device",
    )


def _check_size(name: str, config: Any) -> None:
    """Refuses configurations whose model would take for ever to make, even without data."""
    n_layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(n_layers, int) or not 0 < n_layers <= MAX_LAYERS:
        raise LayoutError(
            f"{name}: config.json gives num_hidden_layers = {n_layers!r}; a decoder needs a whole "
            f"number from 1 to {MAX_LAYERS}"
        )
    for key in EXPERT_COUNTS:
        value = getattr(config, key, None)
        if isinstance(value, int) and value > MAX_EXPERTS:
            raise LayoutError(
                f"{name}: config.json gives {key} = {value}; at most {MAX_EXPERTS} can be read"
            )


def _meta_model(config: Any) -> nn.Module:
    """The model of a configuration on the meta device; without head where there is none with."""
    options = {"trust_remote_code": False, "attn_implementation": "eager"}
    with torch.device("meta"):
        loader = AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModel
        model: nn.Module = loader.from_config(  # type: ignore[no-untyped-call]
            copy.deepcopy(config), **options
        )
    choose = getattr(model, "set_experts_implementation", None)
    if callable(choose) and _experts_in(model):
        choose("batched_mm")  # looks at no numbers, as the loop over chosen experts does
    return model.eval()


def _of_layer(name: str, layer: nn.Module, calls: dict[str, Call], d_model: int) -> dict[str, Any]:
    """What one layer tells of the layout."""
    o_proj, *others = _writers(name, layer, calls, d_model)
    values: dict[str, Any] = {"o_proj": o_proj}
    values["input_side"] = "rows" if isinstance(layer.get_submodule(o_proj), Conv1D) else "columns"
    values["o_norm"] = _gain(name, layer, calls, frozenset([o_proj]))
    values["down_norm"] = _gain(name, layer, calls, frozenset(others))
    gains = [values[key] for key in ("o_norm", "down_norm") if values[key]]
    forms = {_norm_form(name, layer.get_submodule(gain), d_model) for gain in gains}
    if len(forms) > 1 or any(not form.startswith("rms") for form in forms):
        raise LayoutError(
            f"{name}: the norms after its writers are {', '.join(sorted(forms))}; only RMS norms "
            "can be folded into the weights"
        )
    values["post_norm"] = next(iter(forms), "")
    values["qkv"] = _named_readers(layer, o_proj, ("q_proj", "k_proj", "v_proj"), d_model)
    experts = [inner for inner in others if _holds_experts(layer.get_submodule(inner))]
    plain = [inner for inner in others if inner not in experts]
    if experts:
        values |= _mixture(name, layer, experts, plain, d_model)
    elif len(plain) == 1:
        values["down_proj"] = plain[0]
        values["mlp_in"] = _named_readers(layer, plain[0], ("gate_proj", "up_proj"), d_model)
    return values


def _mixture(
    name: str, layer: nn.Module, experts: list[str], plain: list[str], d_model: int
) -> dict[str, Any]:
    """What a layer with experts tells of the layout."""
    module: Any = layer.get_submodule(experts[0])
    place, _, leaf = experts[0].rpartition(".")
    turned = getattr(module, "is_transposed", None)
    rows, columns = module.down_proj.shape[1:]
    if turned is None and rows != columns and d_model in (rows, columns):
        turned = rows != d_model
    if (
        len(experts) > 1
        or len(plain) > 1
        or leaf != "experts"
        or not isinstance(turned, bool)
        or getattr(module, "has_post_expert_norm", False)
    ):
        raise LayoutError(
            f"{name}: is a mixture of experts; looked for one module of experts that writes, and "
            f"at most one shared expert; found {', '.join([*experts, *plain])} "
            f"({type(module).__name__})"
        )
    halves = bool(getattr(module, "is_concatenated", True))
    return {
        "mixture": (place,),
        "shared": plain[0].rpartition(".")[0] if plain else "",
        "expert_side": "rows" if turned else "columns",
        "gate_up_order": "halves" if halves else "alternating",
    }


def _named_readers(
    layer: nn.Module, writer: str, leaves: tuple[str, ...], d_model: int
) -> tuple[str, ...]:
    """Modules beside a writer that read the stream and go by the usual names; empty if not all."""
    place = writer.rpartition(".")[0]
    modules = dict(layer.named_modules())
    found = [f"{place}.{leaf}" for leaf in leaves]
    read = [
        inner
        for inner in found
        if isinstance(module := modules.get(inner), nn.Linear) and module.in_features == d_model
    ]
    # An MLP without a gate has the last one alone.
    return tuple(read) if read == found or (len(found) == 2 and read == found[1:]) else ()


def _writers(name: str, layer: nn.Module, calls: dict[str, Call], d_model: int) -> list[str]:
    """Module names inside the layer: ``o_proj``, then what writes after the attention."""
    output = calls[""].out if "" in calls else None
    if output is None or tuple(output.shape) != (1, 3, d_model):
        shape = "nothing" if output is None else list(output.shape)
        raise LayoutError(f"{name}: a decoder layer gives {shape}; looked for [1, 3, {d_model}]")
    norms = [inner for inner, module in layer.named_modules() if _is_norm(module)]
    made = [calls[inner].out for inner in norms if inner in calls]
    if any(out is not None and storage(out) == storage(output) for out in made):
        raise LayoutError(
            f"{name}: its layers end in a norm of the residual stream itself, which cannot be read"
        )
    written = {
        inner
        for block, _ in layer.named_children()
        if block in calls
        for inner in calls[block].made
    }
    found: dict[str, list[str]] = {"o_proj": [], "down_proj": []}
    for inner in sorted(written):
        found[_kind(inner.partition(".")[0])].append(inner)
    experts = [inner for inner in found["down_proj"] if _holds_experts(layer.get_submodule(inner))]
    if len(found["o_proj"]) != 1 or not (experts or len(found["down_proj"]) == 1):
        raise LayoutError(
            f"{name}: looked for one linear module of width {d_model} that ends the attention and "
            f"one that ends the MLP of a layer, or experts; found {found['o_proj'] or 'none'} and "
            f"{found['down_proj'] or 'none'}"
        )
    return [*found["o_proj"], *found["down_proj"]]


def _gain(name: str, layer: nn.Module, calls: dict[str, Call], writers: frozenset[str]) -> str:
    """The norm inside the layer that takes what writers give and nothing else; empty without."""
    norms = {
        inner: calls[inner].given
        for inner, module in layer.named_modules()
        if _is_norm(module) and inner in calls and calls[inner].given & writers
    }
    if len(norms) > 1 or any(given != writers for given in norms.values()):
        raise LayoutError(
            f"{name}: {', '.join(sorted(writers))} are followed by several norms, or by norms of a "
            f"part of them: {', '.join(norms)}"
        )
    return next(iter(norms), "")


def _final_norm(name: str, parent: nn.Module, calls: dict[str, Call], last: int) -> str:
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


def _holds_experts(module: nn.Module) -> bool:
    weight = dict(module.named_parameters(recurse=False)).get("down_proj")
    return weight is not None and weight.ndim == 3


def _experts_in(module: nn.Module) -> bool:
    return any(_holds_experts(inner) for inner in module.modules())


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _writes(module: nn.Module, d_model: int) -> bool:
    if _holds_experts(module):
        return True
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
