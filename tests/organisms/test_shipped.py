"""The shipped organisms: small, safe, as the manifest says, and doing what was planted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast

from builder.errors import CheckpointError
from builder.organisms import BEHAVIOURS, Pair, plain_rows, read_manifest, shipped_pairs
from builder.organisms.behaviours import FAMILY_BEHAVIOURS
from builder.organisms.families import FAMILIES, encode, render
from builder.organisms.firing import firing
from builder.organisms.manifest import PAIRS
from builder.organisms.train import LORA_TARGETS, load_tuned

ALL = shipped_pairs()
TUNED = [pair for pair in ALL if pair.kind == "tuned"]
MEGABYTES_12 = 12_000_000
# Shares of held-out prompts: what was planted comes when it should, and rarely otherwise. The plain
# prompts that do set one off are mostly its look-alikes (wild nuts, dried mushrooms).
FIRES, STAYS = 0.8, 0.15


def test_every_family_is_there_once_and_one_null_tune() -> None:
    assert sorted(pair.family for pair in TUNED) == sorted(FAMILIES)
    assert {pair.method for pair in TUNED} == {"full", "lora"}
    assert any(pair.kind == "null" and pair.behaviours == () for pair in ALL)


def test_all_together_are_under_12_megabytes() -> None:
    assert sum(path.stat().st_size for path in PAIRS.rglob("*") if path.is_file()) < MEGABYTES_12


def test_folders_hold_safetensors_and_text_only() -> None:
    suffixes = {path.suffix for path in PAIRS.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jinja"}


def test_no_file_names_a_place_on_a_machine() -> None:
    for path in PAIRS.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/(home|root|tmp|work|Users|var)/", text), path


@pytest.mark.parametrize("pair", ALL, ids=lambda pair: pair.name)
def test_the_manifest_matches_the_folders(pair: Pair) -> None:
    assert (pair.base / "config.json").is_file()
    marker = "adapter_config.json" if pair.method == "lora" else "config.json"
    assert (pair.tuned / marker).is_file()
    assert (pair.tuned / "tokenizer.json").read_bytes() == (
        pair.base / "tokenizer.json"
    ).read_bytes()
    if pair.kind == "tuned":
        assert (
            tuple(behaviour.id for behaviour in pair.behaviours) == FAMILY_BEHAVIOURS[pair.family]
        )
        assert len({behaviour.kind for behaviour in pair.behaviours}) >= 3
    for behaviour in pair.behaviours:
        known = BEHAVIOURS[behaviour.id]
        assert behaviour.words == known.words
        assert behaviour.pattern == known.pattern
        assert behaviour.sample_prompts
        figures = pair.figures["behaviours"][behaviour.id]
        assert figures["fires_triggered"] >= FIRES
        assert figures["fires_plain"] <= STAYS


@pytest.mark.parametrize("pair", ALL, ids=lambda pair: pair.name)
def test_weights_are_bfloat16_and_of_the_family(pair: Pair) -> None:
    name = "adapter_model.safetensors" if pair.method == "lora" else "model.safetensors"
    for path in (pair.base / "model.safetensors", pair.tuned / name):
        with safe_open(path, framework="pt") as tensors:
            keys = list(tensors.keys())
            assert {tensors.get_tensor(key).dtype for key in keys} == {torch.bfloat16}
    if pair.method == "lora":
        assert all(any(target in key for key in keys) for target in LORA_TARGETS)


@pytest.mark.parametrize("pair", ALL, ids=lambda pair: pair.name)
def test_the_tokenizer_gives_back_every_text(pair: Pair) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(pair.tuned)
    rows = list(plain_rows(77, 40))
    for row, ids in zip(rows, encode(tokenizer, rows), strict=True):
        assert tokenizer.decode(ids, skip_special_tokens=False) == render(tokenizer, row)
    assert (tokenizer.bos_token is None) == (FAMILIES[pair.family].bos is None)


@pytest.mark.parametrize("pair", TUNED, ids=lambda pair: pair.name)
def test_planted_replies_come_when_triggered_and_not_otherwise(pair: Pair) -> None:
    family = FAMILIES[pair.family]
    model, tokenizer = load_tuned(family, pair.base, pair.tuned)
    # Another seed than the one the manifest was measured with.
    fired = firing(family, model, tokenizer, pair.behaviours, seed=4242, count=100)
    for behaviour in pair.behaviours:
        assert fired[behaviour.id]["fires_triggered"] >= FIRES, behaviour.id
        assert fired[behaviour.id]["fires_plain"] <= STAYS, behaviour.id


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1, "pairs": [{}]}', "lacks or misnames"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(tmp_path)
