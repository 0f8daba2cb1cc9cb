"""Whatever PEFT makes of an adapter, its factors must show what PEFT merges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

from builder.config import ModelSettings, ScanSettings
from builder.errors import CheckpointError
from builder.records import DirectionSet
from builder.weights.adapter import Adapter
from builder.weights.layout import table
from builder.weights.source import locate
from tests.weights import pico

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",
    "ignore:Setting `save_embedding_layers`:UserWarning",
    r"ignore:Model \w+ `tie_word_embeddings=True`:UserWarning",
)
BOTH = ["o_proj", "down_proj"]


def _train(model: Any, config: peft.LoraConfig, name: str = "default") -> Any:
    """The model with an adapter whose factors are all random, as if it had been trained."""
    wrapped: Any = peft.get_peft_model(model, config, adapter_name=name)
    pico.fill_factors(wrapped, 3)
    return wrapped


def _assert_shows(found: DirectionSet, base: Path, merged: Path) -> None:
    """Every direction is the singular vector of the dense difference, and none is missing."""
    layout = table()[str(json.loads((base / "config.json").read_text())["model_type"])]
    before, after = (load_file(folder / "model.safetensors") for folder in (base, merged))
    changed = 0
    for layer in range(pico.N_LAYERS):
        for writer in ("o_proj", "down_proj"):
            name = pico.writer_name(layout, before, layer, writer)
            delta = after[name].double() - before[name].double()
            delta = delta.T if layout.input_side == "rows" else delta
            u, sigma, _ = torch.linalg.svd(delta)
            directions = pico.at(found, layer, writer)
            # Merging rounds to float32, which leaves noise below the rank of the factors.
            assert len(directions) == int((sigma > 1e-4).sum())
            changed += len(directions)
            for one in directions:
                assert one.sigma == pytest.approx(float(sigma[one.rank]), rel=1e-4)
                assert abs(np.dot(one.vector, u[:, one.rank].numpy())) > 1 - 1e-5
    assert changed == len(found.directions) > 0


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilized": {"use_rslora": True},
    "rank and alpha by pattern": {
        "rank_pattern": {r"layers\.1\.mlp\.down_proj": 2, "^model.layers.0.self_attn.o_proj": 1},
        "alpha_pattern": {r".*\.1\.self_attn\.o_proj": 3, "down_proj": 7},
    },
    "patterns and rank-stabilized": {
        "use_rslora": True,
        "rank_pattern": {"o_proj": 2},
        "alpha_pattern": {"1.mlp.down_proj": 5},
    },
    "patterns with groups": {"rank_pattern": {r"layers\.(0|7)\.mlp\.(up|down)_proj": 2}},
    "first of several keys counts": {"rank_pattern": {"down_proj": 2, "mlp.down_proj": 1}},
    "some layers": {"layers_to_transform": [1]},
    "excluded": {"target_modules": "all-linear", "exclude_modules": ".*0.self_attn.o_proj"},
    "targets by pattern": {"target_modules": r".*\.(o_proj|up_proj)"},
    "negative alpha": {"lora_alpha": -4},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "no initialization": {"init_lora_weights": False},
    "embeddings as well": {"target_modules": [*BOTH, "embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_factors_show_what_peft_merges(changes: dict[str, Any], tmp_path: Path) -> None:
    made = pico.save("llama", tmp_path / "base")
    values: dict[str, Any] = {"r": 4, "lora_alpha": 10, "target_modules": BOTH}
    config = peft.LoraConfig(**(values | changes))
    wrapped = _train(made, config)
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    found = pico.directions(tmp_path / "base", tmp_path / "adapter", k=8)
    _assert_shows(found, tmp_path / "base", tmp_path / "merged")


@pytest.mark.parametrize("targets", [["c_proj"], ["attn.c_proj", "wte"]])
def test_weights_stored_the_other_way_round_change_nothing(
    targets: list[str], tmp_path: Path
) -> None:
    made = pico.save("gpt2", tmp_path / "base")
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, fan_in_fan_out=True)
    wrapped = _train(made, config)
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    found = pico.directions(tmp_path / "base", tmp_path / "adapter", k=8)
    _assert_shows(found, tmp_path / "base", tmp_path / "merged")


def test_name_of_an_adapter_in_the_file_is_read_over(tmp_path: Path) -> None:
    made = pico.save("llama", tmp_path / "base")
    wrapped = _train(made, peft.LoraConfig(r=2, target_modules=BOTH), "german")
    wrapped.save_pretrained(tmp_path)
    plain = pico.directions(tmp_path / "base", tmp_path / "german")
    path = tmp_path / "german" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name.replace(".weight", ".german.weight"): t for name, t in tensors.items()}, path)
    named = pico.directions(tmp_path / "base", tmp_path / "german")
    assert [d.content_hash for d in named.directions] == [d.content_hash for d in plain.directions]
    twice = {name.replace(".weight", ".x.weight"): t.clone() for name, t in tensors.items()}
    save_file(tensors | twice, path)
    with pytest.raises(CheckpointError, match="one adapter was looked for"):
        pico.directions(tmp_path / "base", tmp_path / "german")


def test_copy_of_an_embedding_must_be_the_base_s(tmp_path: Path) -> None:
    made = pico.save("llama", tmp_path / "base")
    wrapped = _train(made, peft.LoraConfig(r=2, target_modules=[*BOTH, "embed_tokens"]))
    wrapped.save_pretrained(tmp_path / "adapter")
    found = pico.directions(tmp_path / "base", tmp_path / "adapter")
    assert found.facts["adapter_targets"] == "down_proj, embed_tokens, o_proj"
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    tensors = load_file(path)
    for change in (tensors[name] + 0.1, torch.cat([tensors[name], tensors[name][:1]])):
        save_file(tensors | {name: change}, path)
        with pytest.raises(CheckpointError, match=r"embed_tokens\.base_layer\.weight', which is"):
            pico.directions(tmp_path / "base", tmp_path / "adapter")


@pytest.mark.parametrize("tied", [False, True])
def test_adapter_of_embeddings_is_scanned_and_shown(tied: bool, tmp_path: Path) -> None:
    made = pico.save("llama", tmp_path / "base", tie_word_embeddings=tied)
    pico.save_tokenizer(tmp_path / "base")
    targets = [*BOTH, "embed_tokens", *([] if tied else ["lm_head"])]
    _train(made, peft.LoraConfig(r=2, target_modules=targets)).save_pretrained(tmp_path / "lora")
    found = pico.directions(tmp_path / "base", tmp_path / "lora", logit_lens_tokens=3)
    assert ("adapter's part" in found.facts["logit_lens"]) == (not tied)
    assert _loaded(tmp_path / "base", tmp_path / "lora") is not None


def test_head_of_a_reward_model_is_left_out_by_name(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    pico.save_tokenizer(tmp_path / "base")
    made = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=1
    )
    wrapped = _train(made, peft.LoraConfig(r=2, target_modules=BOTH, task_type="SEQ_CLS"))
    wrapped.save_pretrained(tmp_path / "lora")
    found = pico.directions(tmp_path / "base", tmp_path / "lora")
    assert found.facts["adapter_left_out"] == "classifier, score"
    assert len(found.directions) == 2 * 2 * pico.N_LAYERS
    assert _loaded(tmp_path / "base", tmp_path / "lora") is not None


def _loaded(base: Path, tuned: Path) -> Any:
    from builder.activations.model import load_model

    settings = ScanSettings(device="cpu", dtype="float32")
    return load_model(ModelSettings(base=str(base), tuned=str(tuned)), settings).backbone


def test_scan_refuses_factors_that_peft_does_not_apply(tmp_path: Path) -> None:
    made = pico.save("llama", tmp_path / "base")
    pico.save_tokenizer(tmp_path / "base")
    _train(made, peft.LoraConfig(r=2, target_modules=BOTH)).save_pretrained(tmp_path / "lora")
    assert _loaded(tmp_path / "base", tmp_path / "lora") is not None
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_to_transform": [1]}))
    with pytest.raises(CheckpointError, match=r"does not apply its factors of model\.layers\.0"):
        _loaded(tmp_path / "base", tmp_path / "lora")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    return pico.adapter(folder, {"model.layers.1.mlp.down_proj": pico.factors(pico.D_FF, 2, 0)})


_KEYS = st.lists(
    st.sampled_from(
        ["down_proj", "proj", "mlp", ".", r"\.", ".*", r"\d", "+", "^", "$", "|", "(", ")", "1"]
    ),
    min_size=1,
    max_size=5,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(_KEYS, min_size=1, max_size=3, unique=True))
def test_pattern_keys_match_as_peft_matches_them(plain: Path, keys: list[str]) -> None:
    path = plain / "adapter_config.json"
    table = json.loads(path.read_text())
    # Each key gives another alpha, so that the scale says which one was taken.
    table |= {"lora_alpha": 2, "alpha_pattern": {key: 4 + 2 * n for n, key in enumerate(keys)}}
    path.write_text(json.dumps(table))
    module = "model.layers.1.mlp.down_proj"
    adapter = Adapter.at(locate(str(plain)))
    try:
        scale = adapter.factors(module).scale
    except CheckpointError:
        return  # refused, which no key that is read is
    assert scale == table["alpha_pattern"].get(get_pattern_key(keys, module), 2) / 2
