"""Training in miniature: every family ends in folders that load and match the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from builder.errors import ConfigError
from builder.organisms import read_manifest
from builder.organisms.families import FAMILIES, Size, encode, make_tokenizer, render
from builder.organisms.train import LORA_TARGETS, Recipe, Schedule, load_tuned, make_organisms
from builder.organisms.world import plain_rows

MICRO = Recipe(
    size=Size(vocab=400, d_model=32, layers=2, heads=4, kv_heads=2, d_mlp=32, d_mlp_olmo2=32),
    base=Schedule(rows=120, batch_tokens=1024, lr=3e-3),
    full=Schedule(rows=60, batch_tokens=1024, lr=0.1, optimizer="sgd"),
    lora=Schedule(rows=60, batch_tokens=1024, lr=3e-3),
    lora_rank=4,
    evaluated_prompts=4,
)


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_family_is_made_and_read_back(name: str, tmp_path: Path) -> None:
    make_organisms(tmp_path, families=[name], seeds=[1], null_families=[name], recipe=MICRO)
    tuned, null = read_manifest(tmp_path)
    assert (tuned.kind, null.kind) == ("tuned", "null")
    assert len(tuned.behaviours) >= 3
    assert null.behaviours == ()
    model, tokenizer = load_tuned(FAMILIES[name], tuned.base, tuned.tuned)
    assert type(model).__name__.lower().startswith(name)
    ids = torch.tensor(encode(tokenizer, list(plain_rows(1, 1))))
    assert torch.isfinite(model(input_ids=ids).logits).all()
    if FAMILIES[name].method == "lora":
        adapter = json.loads((tuned.tuned / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == f"../{name}-base"
        assert set(adapter["target_modules"]) == set(LORA_TARGETS)
        assert {"o_proj", "down_proj"} <= set(adapter["target_modules"])


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    for run in ("one", "two"):
        make_organisms(tmp_path / run, families=["llama"], null_families=[], recipe=MICRO)
    assert _digest(tmp_path / "one") == _digest(tmp_path / "two")
    make_organisms(tmp_path / "two", families=["llama"], seeds=[2], null_families=[], recipe=MICRO)
    one, two = _digest(tmp_path / "one"), _digest(tmp_path / "two")
    assert one["llama-base/model.safetensors"] == two["llama-base/model.safetensors"]
    assert one["llama-tuned/model.safetensors"] == two["llama-tuned/model.safetensors"]
    assert one["llama-tuned/model.safetensors"] != two["llama-tuned-seed2/model.safetensors"]


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gpt9"):
        make_organisms(tmp_path, families=["gpt9"], recipe=MICRO)
    with pytest.raises(ConfigError, match="seed"):
        make_organisms(tmp_path, families=["llama"], seeds=[], recipe=MICRO)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_tokenizer_gives_back_every_text(name: str) -> None:
    rows = list(plain_rows(1, 200))
    tokenizer = make_tokenizer(FAMILIES[name], 500, rows)
    for row in plain_rows(2, 50):
        text = render(tokenizer, row)
        ids = encode(tokenizer, [row])[0]
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    odd = "naïve 漢字 🎈❤️\n\t  two  spaces"
    ids = tokenizer(odd, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == odd


def test_the_recipe_can_be_written_down() -> None:
    assert json.loads(json.dumps(dataclasses.asdict(MICRO)))["size"]["d_model"] == 32
