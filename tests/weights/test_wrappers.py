"""Language models inside vision-language models: never the tower's layers for the decoder's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Llama4Config,
    Llama4ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from builder.activations.model import load_model
from builder.config import ModelSettings, ScanSettings
from builder.errors import LayoutError
from builder.weights.checkpoint import Checkpoint
from builder.weights.infer import find_layout
from builder.weights.layout import decoder_layers, match
from builder.weights.logit_lens import Head, find_head
from tests.weights import pico

#: More layers than the language model has.
TOWER_LAYERS = pico.N_LAYERS + 1
_TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": TOWER_LAYERS,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
_QWEN_TOWER: dict[str, Any] = {
    "depth": TOWER_LAYERS,
    "hidden_size": 16,
    "intermediate_size": 16,
    "out_hidden_size": pico.D_MODEL,
    "num_heads": 2,
}


def text(model_type: str) -> dict[str, Any]:
    values: dict[str, Any] = pico.config(model_type, tie_word_embeddings=False).to_dict()
    return values


def llava() -> Any:
    tower = _TOWER | {"model_type": "clip_vision_model", "projection_dim": 16}
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=tower, text_config=text("llama"), tie_word_embeddings=False)
    )


def gemma3() -> Any:
    tower = _TOWER | {"model_type": "siglip_vision_model"}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(vision_config=tower, text_config=text("gemma3_text"), mm_tokens_per_image=4)
    )


def mistral3() -> Any:
    tower = _TOWER | {"model_type": "pixtral", "head_dim": 8}
    return Mistral3ForConditionalGeneration(
        Mistral3Config(vision_config=tower, text_config=text("mistral"), tie_word_embeddings=False)
    )


def qwen2_5_vl(*, tied: bool = False) -> Any:
    tower = _QWEN_TOWER | {"fullatt_block_indexes": [1]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            vision_config=tower, text_config=text("qwen2_5_vl_text"), tie_word_embeddings=tied
        )
    )


def qwen3_vl_moe() -> Any:
    tower = _QWEN_TOWER | {"deepstack_visual_indexes": [0]}
    return Qwen3VLMoeForConditionalGeneration(
        Qwen3VLMoeConfig(
            vision_config=tower, text_config=text("qwen3_vl_moe_text"), tie_word_embeddings=False
        )
    )


def llama4() -> Any:
    sizes = {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16}
    return Llama4ForConditionalGeneration(
        Llama4Config(
            vision_config=_TOWER | sizes, text_config=text("llama4_text"), tie_word_embeddings=False
        )
    )


#: From names in the model to those that are published.
_LLAVA = [
    (r"^lm_head", "language_model.lm_head"),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.", ""),
]
WRAPPERS: dict[Callable[[], Any], list[tuple[str, str]]] = {
    llava: _LLAVA,
    gemma3: _LLAVA,
    mistral3: _LLAVA,
    qwen2_5_vl: [(r"^model\.language_model\.", "model."), (r"^model\.visual", "visual")],
    # As they are in the model; published turned, which is tried below.
    qwen3_vl_moe: [],
    llama4: [],
}


@pytest.mark.parametrize("make", WRAPPERS, ids=lambda make: make.__name__)
def test_saved_and_published_names_give_the_matrices_of_the_language_model(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    made = pico.randomized(make())
    made.save_pretrained(tmp_path / "saved")
    made.save_pretrained(tmp_path / "plain", save_original_format=False)
    published = pico.renamed(tmp_path / "plain", tmp_path / "published", *WRAPPERS[make])
    layers = decoder_layers(made)
    assert len(layers) == pico.N_LAYERS
    expected = pico.matrices(tmp_path / "plain")
    assert len(expected) == 7 * pico.N_LAYERS
    q_proj: Any = layers[1].get_submodule("self_attn.q_proj")
    assert torch.equal(expected["L01.q_proj"], q_proj.weight)
    for folder in (tmp_path / "saved", published):
        assert pico.same(pico.matrices(folder), expected)
        checkpoint = Checkpoint.open(str(folder))
        head = find_head(checkpoint, match(find_layout(checkpoint.config), checkpoint))
        assert isinstance(head, Head)
        assert torch.equal(checkpoint.tensor(head.name), made.get_output_embeddings().weight)


def test_unembedding_that_a_wrapper_ties_is_the_embedding(tmp_path: Path) -> None:
    made = pico.randomized(qwen2_5_vl(tied=True))
    made.save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    assert "lm_head.weight" not in checkpoint.tensors
    head = find_head(checkpoint, match(find_layout(checkpoint.config), checkpoint))
    assert isinstance(head, Head)
    assert head.name == "model.embed_tokens.weight"


@pytest.mark.parametrize("make", [llava, qwen2_5_vl], ids=lambda make: make.__name__)
def test_published_wrapper_is_loaded_for_scanning(make: Callable[[], Any], tmp_path: Path) -> None:
    made = pico.randomized(make())
    made.save_pretrained(tmp_path / "plain", save_original_format=False)
    published = pico.renamed(tmp_path / "plain", tmp_path / "published", *WRAPPERS[make])
    pico.save_tokenizer(published)
    model = load_model(ModelSettings(tuned=str(published)), ScanSettings(device="cpu"))
    stored = decoder_layers(made)
    assert len(model.layers) == len(stored)
    for layer, other in zip(model.layers, stored, strict=True):
        for name, tensor in layer.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_turned_experts_of_a_published_wrapper_are_turned_back(tmp_path: Path) -> None:
    made = pico.randomized(qwen3_vl_moe())
    made.save_pretrained(tmp_path / "plain", save_original_format=False)

    def turn(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            if ".experts." in name:
                tensors[name] = tensors[name].transpose(1, 2)

    published = pico.edit(tmp_path / "plain", tmp_path / "published", turn)
    assert pico.same(pico.matrices(published), pico.matrices(tmp_path / "plain"))


def tower_like_the_decoder(layers: int) -> Callable[[dict[str, torch.Tensor]], None]:
    """Adds a tower whose layers have the names and shapes of decoder layers."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "language_model" in name and ".layers.0." in name]:
            for layer in range(layers):
                inner = name.partition(".layers.0.")[2]
                tensors[f"vision_tower.model.layers.{layer}.{inner}"] = tensors[name] * 2

    return change


@pytest.mark.parametrize("layers", [1, pico.N_LAYERS, 5])
def test_tower_with_the_same_names_is_not_taken_for_the_decoder(
    layers: int, tmp_path: Path
) -> None:
    pico.randomized(llava()).save_pretrained(tmp_path / "plain")
    other = pico.edit(tmp_path / "plain", tmp_path / "other", tower_like_the_decoder(layers))
    assert pico.same(pico.matrices(other), pico.matrices(tmp_path / "plain"))


def test_decoder_with_a_hole_is_not_replaced_by_a_whole_tower(tmp_path: Path) -> None:
    pico.randomized(llava()).save_pretrained(tmp_path / "plain")
    lost = "language_model.model.layers.1.mlp.down_proj.weight"

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tower_like_the_decoder(pico.N_LAYERS)(tensors)
        del tensors[lost]

    other = pico.edit(tmp_path / "plain", tmp_path / "other", change)
    with pytest.raises(LayoutError, match=f"has no {lost}"):
        pico.matrices(other)


def test_tower_alone_is_no_language_model(tmp_path: Path) -> None:
    pico.randomized(llava()).save_pretrained(tmp_path / "plain")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tower_like_the_decoder(pico.N_LAYERS)(tensors)
        for name in [name for name in tensors if name.startswith("language_model.")]:
            del tensors[name]

    other = pico.edit(tmp_path / "plain", tmp_path / "other", change)
    with pytest.raises(LayoutError, match=r"beside embed_tokens\.weight of width 32; found none"):
        pico.matrices(other)
