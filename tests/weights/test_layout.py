from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from builder.errors import LayoutError
from builder.weights.checkpoint import Checkpoint
from builder.weights.infer import find_layout, infer_layout
from builder.weights.layout import Layout, decoder_layers, match, table
from builder.weights.matrix import matrix_shape
from tests.weights import pico

#: They add the residual inside the submodule, where watching cannot separate it.
UNWATCHED = {"bloom", "mpt"}
INFERRED = ["cohere", "nanochat", "opt", "stablelm"]
#: Mixtures have tests of their own, parts of wrappers are tested inside them.
PLAIN = {
    name: layout
    for name, layout in table().items()
    if not layout.mixture and not name.endswith("_vl_text")
}
PRE_NORM = sorted(name for name, layout in PLAIN.items() if not layout.is_post_norm)
POST_NORM = sorted(name for name, layout in PLAIN.items() if layout.is_post_norm)


@pytest.mark.parametrize("model_type", sorted(set(table()) - UNWATCHED))
def test_table_says_what_a_forward_pass_shows(model_type: str) -> None:
    watched = infer_layout(pico.config(model_type))
    known = table()[model_type]
    assert _seen(replace(known, head_stored="", mixture=known.mixture[:1])) == _seen(watched)
    # Readers are only taken by their usual names; the table may know more, never other ones.
    assert watched.qkv in ((), known.qkv)
    assert watched.mlp_in in ((), known.mlp_in)
    if known.qkv and "self_attn.q_proj" in known.qkv and not model_type.startswith("deepseek"):
        assert watched.qkv == known.qkv


def _seen(layout: Layout) -> Layout:
    """A layout without what a forward pass does not show, or only of experts."""
    side = "columns" if layout.down_proj == "mlp.down_proj" else layout.expert_side
    order = layout.gate_up_order if layout.mixture else ""
    return replace(
        layout,
        origin="",
        qkv=(),
        qkv_order="",
        mlp_in=(),
        gate_up_order=order,
        # Published turned, but not in the model: only there is it seen.
        expert_side=side,
    )


@pytest.mark.parametrize("model_type", [*PRE_NORM, *INFERRED])
@pytest.mark.parametrize("writer", ["o_proj", "down_proj"])
def test_change_of_a_writer_moves_the_layers_output_along_its_direction(
    model_type: str, writer: str, tmp_path: Path
) -> None:
    made = pico.model(model_type, num_hidden_layers=2)
    layout = find_layout(made.config)
    state = made.state_dict()
    if writer == "o_proj":
        # A silent MLP: what attention adds is then all that can change in the layer's output.
        silent = pico.writer_name(layout, state, 0, "down_proj")
        for name in (silent, silent.replace(".weight", ".bias")):
            if name in state:
                state[name].zero_()
    made.save_pretrained(tmp_path / "base")
    before = _layer_output(made)
    name = pico.writer_name(layout, state, 0, writer)
    rows, columns = state[name].shape
    d_in = rows if layout.input_side == "rows" else columns
    change = 0.5 * torch.outer(pico.unit(pico.D_MODEL, 5), pico.unit(d_in, 6))
    state[name].add_(change.T if layout.input_side == "rows" else change)
    made.save_pretrained(tmp_path / "tuned")
    moved = (_layer_output(made) - before).double()

    found = pico.at(pico.directions(tmp_path / "base", tmp_path / "tuned"), 0, writer)
    u = torch.from_numpy(found[0].vector).double()
    assert len(found) == 1
    assert float(moved.norm()) > 1e-2
    assert float((moved - (moved @ u)[:, None] * u).norm()) < 1e-4 * float(moved.norm())


@pytest.mark.parametrize("model_type", POST_NORM)
@pytest.mark.parametrize("writer", ["o_proj", "down_proj"])
def test_post_norm_change_is_found_in_the_basis_of_the_residual_stream(
    model_type: str, writer: str, tmp_path: Path
) -> None:
    made = pico.save(model_type, tmp_path / "base")
    layout = table()[model_type]
    layer = decoder_layers(made)[0]
    norm = layer.get_submodule(layout.gain(writer))
    before = _added(made, norm)
    state = made.state_dict()
    name = pico.writer_name(layout, state, 0, writer)
    stored = norm.get_parameter("weight").detach()
    gain = stored + 1.0 if layout.post_norm == "rms_plus" else stored
    u = pico.unit(pico.D_MODEL, 5)
    # Planted so that what the block adds to the residual stream, not W x, changes along u.
    state[name].add_(torch.outer(0.5 * u / gain, pico.unit(state[name].shape[1], 6)))
    made.save_pretrained(tmp_path / "tuned")

    # What is added is gain * (W x) / rms(W x); without the scalar rms the change is rank one.
    moved = (_added(made, norm) - before).double()
    planted = u.double()
    assert float((moved - (moved @ planted)[:, None] * planted).norm()) < 1e-4 * float(moved.norm())
    found = pico.at(pico.directions(tmp_path / "base", tmp_path / "tuned"), 0, writer)
    assert len(found) == 1
    assert abs(float(torch.from_numpy(found[0].vector) @ u)) > 0.9999
    assert found[0].sigma == pytest.approx(0.5, rel=1e-4)
    raw = pico.dense(tmp_path / "tuned", name) - pico.dense(tmp_path / "base", name)
    without_gain = torch.linalg.svd(torch.from_numpy(raw)).U[:, 0]
    assert abs(float(without_gain @ planted)) < 0.99


def _layer_output(made: Any) -> torch.Tensor:
    """Output of the first decoder layer, [tokens, d_model]."""
    seen: list[torch.Tensor] = []

    def record(_: nn.Module, __: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    handle = decoder_layers(made)[0].register_forward_hook(record)
    with torch.no_grad():
        made(torch.arange(3, 11)[None])
    handle.remove()
    return seen[0].reshape(-1, pico.D_MODEL)


def _added(made: Any, norm: nn.Module) -> torch.Tensor:
    """What a post-norm block adds, times the rms its norm divided by, [tokens, d_model]."""
    seen: list[torch.Tensor] = []

    def record(_: nn.Module, given: Any, out: Any) -> None:
        rms = given[0].square().mean(dim=-1, keepdim=True).sqrt()
        seen.append(out * rms)

    handle = norm.register_forward_hook(record)
    with torch.no_grad():
        made(torch.arange(3, 11)[None])
    handle.remove()
    return seen[0].reshape(-1, pico.D_MODEL)


def test_writers_come_by_layer_then_o_proj_before_down_proj(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    found = match(find_layout(checkpoint.config), checkpoint)
    assert [h.key for h in found.hookpoints] == [
        "L00.o_proj",
        "L00.down_proj",
        "L01.o_proj",
        "L01.down_proj",
    ]
    assert found.hookpoints[1].module == "model.layers.0.mlp.down_proj"


def test_conv1d_weights_are_turned_to_d_model_by_d_in(tmp_path: Path) -> None:
    pico.save("gpt2", tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    found = match(find_layout(checkpoint.config), checkpoint)
    place = found.hookpoints[1]
    (part,) = found.parts(place)
    assert checkpoint.tensors.shape(part.name) == (4 * pico.D_MODEL, pico.D_MODEL)
    assert matrix_shape(checkpoint, found, place) == (pico.D_MODEL, 4 * pico.D_MODEL)


def test_checkpoint_of_the_bare_model_has_the_same_writers(tmp_path: Path) -> None:
    made = pico.save("llama", tmp_path / "whole")
    made.model.save_pretrained(tmp_path / "bare")
    whole, bare = (Checkpoint.open(str(tmp_path / name)) for name in ("whole", "bare"))
    modules = [h.module for h in match(find_layout(bare.config), bare).hookpoints]
    assert [f"model.{module}" for module in modules] == [
        h.module for h in match(find_layout(whole.config), whole).hookpoints
    ]


def test_missing_writer_is_named(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")

    def drop(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.layers.1.mlp.down_proj.weight"]

    broken = pico.edit(tmp_path / "base", tmp_path / "broken", drop)
    with pytest.raises(LayoutError, match=r"has no model\.layers\.1\.mlp\.down_proj\.weight"):
        pico.directions(None, broken, method="raw")


def test_weights_with_more_layers_than_the_configuration_are_refused(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    path = tmp_path / "config.json"
    text = path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 1')
    path.write_text(text)
    with pytest.raises(LayoutError, match="says 1 decoder layers, the weights go on to layer 1"):
        pico.directions(None, tmp_path, method="raw")


def test_architecture_without_attention_is_refused_naming_what_was_looked_for() -> None:
    with pytest.raises(LayoutError, match="mamba: looked for one linear module"):
        infer_layout(pico.config("mamba"))


def test_norm_of_the_residual_stream_itself_is_refused() -> None:
    with pytest.raises(LayoutError, match="end in a norm of the residual stream"):
        infer_layout(pico.config("opt", do_layer_norm_before=False))


# PEFT asks for an attribute that transformers has renamed.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_decoder_layers_of_wrapped_models_are_those_of_the_language_model() -> None:
    made = pico.model("llama")
    layers = list(made.model.layers)
    assert decoder_layers(made) == layers
    assert decoder_layers(made.model) == layers
    tuned = get_peft_model(made, LoraConfig(r=2, target_modules=["o_proj"]))
    assert decoder_layers(tuned) == layers


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "gpt_neox", "mpt", "gemma3_text"])
def test_decoder_layers_are_found_in_every_kind_of_base_model(model_type: str) -> None:
    bare: Any = AutoModel.from_config(pico.config(model_type))
    layers = decoder_layers(bare)
    assert len(layers) == pico.N_LAYERS
    assert len({type(layer) for layer in layers}) == 1
    assert not isinstance(layers[0], nn.Linear)


def _vision_language_model() -> Any:
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": pico.N_LAYERS,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
        "projection_dim": 16,
    }
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=pico.config("llama"))
    )


def test_decoder_layers_of_a_vision_language_model_are_not_the_vision_towers() -> None:
    made = _vision_language_model()
    layers = decoder_layers(made)
    assert [type(layer).__name__ for layer in layers] == ["LlamaDecoderLayer"] * pico.N_LAYERS
    assert decoder_layers(made.model) == layers


def test_tower_with_as_many_layers_at_the_same_depth_is_told_apart() -> None:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    vision = {"depth": pico.N_LAYERS, "embed_dim": 16, "hidden_size": 32, "num_heads": 2}
    text = pico.config("qwen2").to_dict() | {"rope_parameters": rope}
    made: Any = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(text_config=text, vision_config=vision)
    )
    assert len(made.model.visual.blocks) == pico.N_LAYERS
    assert decoder_layers(made) == list(made.model.language_model.layers)


def test_wrapped_language_model_has_its_writers_found_on_disk(tmp_path: Path) -> None:
    _vision_language_model().save_pretrained(tmp_path)
    found = pico.directions(None, tmp_path, method="raw")
    assert found.d_model == pico.D_MODEL
    assert "language_model" in found.directions[0].hookpoint.module


def test_model_without_a_list_of_layers_is_refused() -> None:
    with pytest.raises(LayoutError, match="number of decoder layers"):
        decoder_layers(nn.Linear(2, 2))
