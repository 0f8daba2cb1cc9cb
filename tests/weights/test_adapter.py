from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from builder.config import DirectionSettings, ModelSettings
from builder.errors import CheckpointError, ConfigError
from builder.records import DirectionSet
from builder.weights.directions import compute_directions
from builder.weights.layout import table
from tests.weights import pico

O_PROJ = "model.layers.{}.self_attn.o_proj"
DOWN_PROJ = "model.layers.{}.mlp.down_proj"


def _all_factors(rank: int = 3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name.format(layer): pico.factors(d_in, rank, 10 * layer + place)
        for layer in range(pico.N_LAYERS)
        for place, (name, d_in) in enumerate(((O_PROJ, pico.D_MODEL), (DOWN_PROJ, pico.D_FF)))
    }


def _merged(base: Path, target: Path, factors: dict[str, Any], scale: float = 1.0) -> Path:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for module, (lora_a, lora_b) in factors.items():
            name = f"{module}.weight"
            tensors[name] = (tensors[name].double() + scale * lora_b.double() @ lora_a.double()).to(
                tensors[name].dtype
            )

    return pico.edit(base, target, change)


def _assert_same_directions(left: DirectionSet, right: DirectionSet, atol: float = 1e-4) -> None:
    assert len(left.directions) == len(right.directions) > 0
    for one, other in zip(left.directions, right.directions, strict=True):
        assert one.id == other.id
        np.testing.assert_allclose(one.vector, other.vector, atol=atol)
        assert one.sigma == pytest.approx(other.sigma, rel=1e-4)
        assert one.energy == pytest.approx(other.energy, rel=1e-4)


@pytest.mark.parametrize("model_type", ["llama", "olmo2", "gemma2"])
def test_adapter_gives_what_the_merged_checkpoint_gives(model_type: str, tmp_path: Path) -> None:
    pico.save(model_type, tmp_path / "base", dtype=torch.float32)
    factors = _all_factors()
    folder = pico.adapter(tmp_path / "adapter", factors, lora_alpha=6)
    merged = _merged(tmp_path / "base", tmp_path / "merged", factors, scale=2.0)
    found = pico.directions(tmp_path / "base", folder, k=3)
    _assert_same_directions(found, pico.directions(tmp_path / "base", merged, k=3))
    assert found.tuned.kind == "adapter"
    assert found.facts["adapter"] == "LoRA, r = 3, alpha = 6, scale alpha / r"


def test_adapter_keeps_as_many_directions_as_its_rank(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    folder = pico.adapter(tmp_path / "adapter", _all_factors(rank=3))
    found = pico.directions(tmp_path / "base", folder, k=20)
    assert len(found.directions) == 3 * 2 * pico.N_LAYERS
    assert sum(direction.energy for direction in found.directions[:3]) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_adapter_saved_by_peft_gives_what_peft_merges(
    model_type: str, use_rslora: bool, tmp_path: Path
) -> None:
    made = pico.save(model_type, tmp_path / "base")
    layout = table()[model_type]
    down = layout.down_proj.rpartition(".")[2]
    config = peft.LoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=[layout.o_proj.rpartition(".")[2], down, "k_proj"],
        use_rslora=use_rslora,
        rank_pattern={rf"{layout.layers}.1.{layout.down_proj}": 2},
        alpha_pattern={rf"{layout.layers}.1.{layout.down_proj}": 7},
        fan_in_fan_out=model_type == "gpt2",
    )
    wrapped: Any = peft.get_peft_model(made, config)
    pico.fill_factors(wrapped, 3)
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    found = pico.directions(tmp_path / "base", tmp_path / "adapter", k=4)
    merged = pico.directions(tmp_path / "base", tmp_path / "merged", k=4)
    # Merging rounds to float32, so the dense difference has a tail of noise below the true rank.
    assert [len(pico.at(found, *place)) for place in ((0, "down_proj"), (1, "down_proj"))] == [4, 2]
    for one in found.directions:
        other = pico.at(merged, one.hookpoint.layer, one.hookpoint.writer)[one.rank]
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-3)
        assert one.sigma == pytest.approx(other.sigma, rel=1e-4)


def test_adapter_of_one_writer_gives_directions_for_that_one(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    factors = {DOWN_PROJ.format(1): pico.factors(pico.D_FF, 2, 0)}
    factors["model.layers.0.self_attn.q_proj"] = pico.factors(pico.D_MODEL, 2, 1)
    found = pico.directions(tmp_path / "base", pico.adapter(tmp_path / "adapter", factors))
    assert {direction.hookpoint.key for direction in found.directions} == {"L01.down_proj"}
    assert found.facts["untouched_writers"] == "o_proj"
    assert found.n_layers == pico.N_LAYERS


def test_adapter_of_no_writer_is_refused_naming_its_targets(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    factors = {
        f"model.layers.0.self_attn.{name}": pico.factors(pico.D_MODEL, 2, 0)
        for name in ("v_proj", "q_proj")
    }
    folder = pico.adapter(tmp_path / "adapter", factors)
    with pytest.raises(CheckpointError, match="targets q_proj, v_proj, none of which writes"):
        pico.directions(tmp_path / "base", folder)


def test_layers_of_a_vision_tower_are_not_taken_for_decoder_layers(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    module = "vision_tower.encoder.layers.0.self_attn.o_proj"
    folder = pico.adapter(tmp_path / "adapter", {module: pico.factors(pico.D_MODEL, 2, 0)})
    with pytest.raises(CheckpointError, match="none of which writes to the residual stream"):
        pico.directions(tmp_path / "base", folder)


def test_adapter_for_deeper_base_is_refused(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    folder = pico.adapter(
        tmp_path / "adapter", {O_PROJ.format(7): pico.factors(pico.D_MODEL, 2, 0)}
    )
    with pytest.raises(CheckpointError, match=r"layers\.7\.self_attn\.o_proj, but the base has 2"):
        pico.directions(tmp_path / "base", folder)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("model.layers.7.self_attn.q_proj", "q_proj, but the base has 2 layers"),
        ("model.layers.0.mlp.experts.3.down_proj", "down_proj, but the base has no such matrix"),
        ("model.layers.0.block_sparse_moe.experts.3.w2", "w2, but the base has no such matrix"),
        ("model.layers.0.cross_attn.o_proj", "o_proj, but the base has no such matrix"),
    ],
)
def test_what_the_base_does_not_have_is_never_left_out_in_silence(
    module: str, message: str, tmp_path: Path
) -> None:
    pico.save("llama", tmp_path / "base")
    factors = _all_factors() | {module: pico.factors(pico.D_MODEL, 3, 0)}
    folder = pico.adapter(tmp_path / "adapter", factors)
    with pytest.raises(CheckpointError, match=message):
        pico.directions(tmp_path / "base", folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save: lm_head"),
        ({"modules_to_save": ["score", "embed_tokens"]}, r"modules_to_save: embed_tokens\)"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, r"changes the base \(pissa\)"),
        ({"init_lora_weights": "pissa_niter_16"}, r"changes the base \(pissa_niter_16\)"),
        ({"init_lora_weights": "olora"}, r"changes the base \(olora\)"),
        ({"init_lora_weights": "corda"}, r"changes the base \(corda\)"),
        ({"init_lora_weights": "loftq"}, r"changes the base \(loftq\)"),
        ({"init_lora_weights": "lora_ga"}, r"changes the base \(lora_ga\)"),
        ({"init_lora_weights": "mica"}, r"changes the base \(mica\)"),
        ({"peft_type": "IA3"}, "is a IA3 adapter; only LORA"),
        ({"peft_type": "LOHA"}, "is a LOHA adapter; only LORA"),
        ({"r": 0}, "adapter_config.json: r: "),
        ({"r": 5}, "but adapter_config.json gives r = 5"),
        ({"r": 10**9}, "adapter_config.json: r: "),
        ({"lora_alpha": 1e300}, "adapter_config.json: lora_alpha: "),
        ({"use_rslora": "no"}, "adapter_config.json: use_rslora: "),
        ({"rank_pattern": {r"(mlp)\1": 3}}, "is no pattern of a module name"),
        ({"rank_pattern": {"(a+)+$": 3}}, "is no pattern of a module name"),
        ({"alpha_pattern": {"[": 3}}, "bad pattern"),
    ],
)
def test_adapter_that_is_no_plain_lora_is_refused_by_name(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pico.save("llama", tmp_path / "base")
    folder = pico.adapter(tmp_path / "adapter", _all_factors(), **changes)
    with pytest.raises(CheckpointError, match=message):
        pico.directions(tmp_path / "base", folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"peft_type": "LORA", "lora_alpha": NaN}'])
def test_damaged_adapter_config_is_refused(text: str, tmp_path: Path) -> None:
    folder = pico.adapter(tmp_path, _all_factors())
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        pico.directions(None, folder)


def test_tensors_that_are_no_factors_are_refused(tmp_path: Path) -> None:
    folder = pico.adapter(tmp_path / "adapter", _all_factors())
    path = folder / "adapter_model.safetensors"
    name = "base_model.model.model.layers.0.self_attn.o_proj.lora_magnitude_vector"
    save_file(load_file(path) | {name: torch.ones(4)}, path)
    pico.save("llama", tmp_path / "base")
    with pytest.raises(CheckpointError, match="lora_magnitude_vector', which is no LoRA factor"):
        pico.directions(tmp_path / "base", folder)


def test_factor_without_its_partner_is_refused(tmp_path: Path) -> None:
    folder = pico.adapter(tmp_path / "adapter", _all_factors())
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors[f"base_model.model.{O_PROJ.format(0)}.lora_B.weight"]
    save_file(tensors, path)
    pico.save("llama", tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.o_proj has lora_A only"):
        pico.directions(tmp_path / "base", folder)


def test_adapter_of_another_width_is_refused_with_both_shapes(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    folder = pico.adapter(tmp_path / "adapter", {DOWN_PROJ.format(0): pico.factors(99, 2, 0)})
    with pytest.raises(CheckpointError, match=r"L00\.down_proj: base \[32, 48\], adapter \[32, 99"):
        pico.directions(tmp_path / "base", folder)


def test_nan_in_a_factor_is_named_and_counted(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    factors = _all_factors()
    factors[O_PROJ.format(1)][1][0, :2] = float("nan")
    folder = pico.adapter(tmp_path / "adapter", factors)
    with pytest.raises(CheckpointError, match=r"1\.self_attn\.o_proj\.lora_B\.weight: 2 of 96"):
        pico.directions(tmp_path / "base", folder)


def test_untrained_adapter_is_refused(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    lora_a, lora_b = pico.factors(pico.D_MODEL, 2, 0)
    folder = pico.adapter(tmp_path / "a", {O_PROJ.format(0): (lora_a, torch.zeros_like(lora_b))})
    with pytest.raises(CheckpointError, match="every factor of a residual writer is zero"):
        pico.directions(tmp_path / "base", folder)


def test_adapter_that_names_its_base_needs_no_base(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    named = pico.adapter(
        tmp_path / "named", _all_factors(), base_model_name_or_path=str(tmp_path / "base")
    )
    assert pico.directions(None, named).base is not None
    unnamed = pico.adapter(tmp_path / "unnamed", _all_factors())
    with pytest.raises(
        ConfigError, match=r"names no base, and .* no README\.md .* set model\.base"
    ):
        pico.directions(None, unnamed)


def test_adapter_has_no_raw_directions(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    folder = pico.adapter(tmp_path / "adapter", _all_factors())
    with pytest.raises(ConfigError, match="needs a full checkpoint"):
        pico.directions(tmp_path / "base", folder, method="raw")


def test_adapter_of_the_unembedding_changes_the_lens(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    pico.save_tokenizer(tmp_path / "base")
    factors = _all_factors()
    lora_a, _ = pico.factors(pico.D_MODEL, 3, 50)
    lora_b = torch.randn(pico.VOCABULARY, 3, generator=torch.Generator().manual_seed(51))
    with_head = factors | {"lm_head": (lora_a, lora_b)}
    folder = pico.adapter(tmp_path / "adapter", with_head, lora_alpha=3)
    merged = _merged(tmp_path / "base", tmp_path / "merged", with_head)
    settings = DirectionSettings(k=2, logit_lens_tokens=5, **pico.NO_CONTROLS)
    found, dense = (
        compute_directions(ModelSettings(base=str(tmp_path / "base"), tuned=str(tuned)), settings)
        for tuned in (folder, merged)
    )
    assert "adapter's part" in found.facts["logit_lens"]
    for one, other in zip(found.directions, dense.directions, strict=True):
        assert [text for text, _ in one.promoted] == [text for text, _ in other.promoted]
        np.testing.assert_allclose(
            [value for _, value in one.suppressed],
            [value for _, value in other.suppressed],
            rtol=1e-3,
        )


def test_hash_of_an_adapter_follows_factors_and_scale(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    hashes = []
    for place, alpha in enumerate((16, 16, 17)):
        folder = pico.adapter(tmp_path / str(place), _all_factors(), lora_alpha=alpha)
        found = pico.directions(tmp_path / "base", folder)
        hashes.append([direction.content_hash for direction in found.directions])
    assert hashes[0] == hashes[1]
    assert not set(hashes[0]) & set(hashes[2])


def test_adapter_config_is_written_as_peft_reads_it(tmp_path: Path) -> None:
    folder = pico.adapter(tmp_path, _all_factors())
    config = peft.PeftConfig.from_pretrained(str(folder))
    assert config.peft_type == peft.PeftType.LORA
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 3
