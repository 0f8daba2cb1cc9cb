from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from builder.errors import CheckpointError, ConfigError
from builder.weights.checkpoint import Checkpoint
from builder.weights.source import locate
from builder.weights.tensors import TensorFiles
from tests.weights import pico


def _shards(folder: Path, *, index: bool) -> dict[str, torch.Tensor]:
    """Splits a saved model into three shards, with or without an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places: dict[str, str] = {}
    for number in range(3):
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        part = {name: tensors[name] for name in names[number::3]}
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    if index:
        text = json.dumps({"metadata": {}, "weight_map": places})
        (folder / "model.safetensors.index.json").write_text(text)
    return tensors


def _same(left: Any, right: Any) -> None:
    assert [d.content_hash for d in left.directions] == [d.content_hash for d in right.directions]
    for one, other in zip(left.directions, right.directions, strict=True):
        assert (one.vector == other.vector).all()
        assert one.sigma == other.sigma


@pytest.mark.parametrize("index", [True, False])
def test_sharded_checkpoint_gives_what_the_single_file_gives(tmp_path: Path, index: bool) -> None:
    base, tuned = pico.pair(tmp_path)
    whole = pico.directions(base, tuned)
    _shards(tuned, index=index)
    _same(whole, pico.directions(base, tuned))


def test_plain_bin_checkpoint_gives_what_safetensors_give(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    whole = pico.directions(base, tuned)
    torch.save(load_file(tuned / "model.safetensors"), tuned / "pytorch_model.bin")
    (tuned / "model.safetensors").unlink()
    _same(whole, pico.directions(base, tuned))


class _Payload:
    """An object whose unpickling leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    _, tuned = pico.pair(tmp_path)
    (tuned / "model.safetensors").unlink()
    trace = tmp_path / "trace"
    torch.save({"w": _Payload(trace)}, tuned / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"cannot be read safely .* to safetensors"):
        pico.directions(None, tuned, method="raw")
    (tuned / "pytorch_model.bin").write_bytes(pickle.dumps({"w": _Payload(trace)}))
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        pico.directions(None, tuned, method="raw")
    assert not trace.exists()


@pytest.mark.parametrize(
    "target",
    ["../secret.safetensors", "/etc/passwd", "a/../../x.safetensors", "..\\x", "C:\\x", ""],
)
def test_index_cannot_lead_out_of_the_folder(tmp_path: Path, target: str) -> None:
    pico.save("llama", tmp_path / "model")
    _shards(tmp_path / "model", index=True)
    path = tmp_path / "model" / "model.safetensors.index.json"
    table = json.loads(path.read_text())
    table["weight_map"]["model.norm.weight"] = target
    path.write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' points outside the folder"):
        Checkpoint.open(str(tmp_path / "model"))


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'])
def test_damaged_index_is_refused(tmp_path: Path, text: str) -> None:
    pico.save("llama", tmp_path)
    _shards(tmp_path, index=True)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        Checkpoint.open(str(tmp_path))


@pytest.mark.parametrize("index", [True, False])
def test_missing_shard_is_named(tmp_path: Path, index: bool) -> None:
    pico.save("llama", tmp_path)
    _shards(tmp_path, index=index)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"00002|shard 2 of 3"):
        Checkpoint.open(str(tmp_path))


def test_index_that_names_a_wrong_file_is_refused(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    _shards(tmp_path, index=True)
    path = tmp_path / "model.safetensors.index.json"
    table = json.loads(path.read_text())
    table["weight_map"]["no.such.tensor"] = "model-00001-of-00003.safetensors"
    path.write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="should be in this file"):
        Checkpoint.open(str(tmp_path)).tensors.raw("no.such.tensor")


def test_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({"w": torch.ones(2)}, tmp_path / f"model-{number}.safetensors")
    with pytest.raises(CheckpointError, match=r"'w' is in both model-1\.safetensors and model-2"):
        TensorFiles.open(tmp_path)


def test_damaged_safetensors_file_is_named(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its header says"):
        Checkpoint.open(str(tmp_path))


def test_truncated_safetensors_file_is_named(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable"):
        Checkpoint.open(str(tmp_path))


def test_quantized_tensor_is_refused_by_name(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    name = "model.layers.0.self_attn.o_proj.weight"

    def quantize(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].to(torch.int8)

    tuned = pico.edit(tmp_path / "base", tmp_path / "tuned", quantize)
    with pytest.raises(CheckpointError, match=r"o_proj\.weight' is stored as int8; a quantized"):
        pico.directions(tmp_path / "base", tuned)


def test_quantized_checkpoint_is_refused(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    path = tmp_path / "config.json"
    table = json.loads(path.read_text())
    table["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps(table))
    with pytest.raises(CheckpointError, match="is a quantized checkpoint"):
        Checkpoint.open(str(tmp_path))


def test_shapes_and_types_are_known_without_reading(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    with TensorFiles.open(tmp_path) as tensors:
        name = "model.layers.0.mlp.down_proj.weight"
        assert tensors.shape(name) == (pico.D_MODEL, pico.D_FF)
        assert tensors.dtype(name) == "float32"
        assert torch.equal(tensors.rows(name, 3, 5), tensors.raw(name)[3:5])
        assert name in tensors
        assert "no.such" not in tensors
        assert len(tensors) == len(load_file(tmp_path / "model.safetensors"))


def test_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        pico.directions(None, tmp_path / "nowhere", method="raw")


def test_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="is a file; a model is a folder"):
        locate(str(tmp_path / "model.gguf"))


def test_empty_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="a model needs a name"):
        locate(" ")


@pytest.mark.parametrize("name", ["x" * 5000, "y/" + "x" * 300, "a\0b", "~no-such-user-here/model"])
def test_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        locate(name)
    assert len(str(caught.value)) < 1000


def test_folder_without_configuration_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a model folder: it has no config\.json"):
        Checkpoint.open(str(tmp_path))


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights found"):
        Checkpoint.open(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"model_type": "no_such_architecture"}',
        '{"model_type": "own", "auto_map": {"AutoConfig": "evil.Config"}}',
        '{"model_type": "llama", "hidden_size": "wide"}',
        '{"model_type": "llama", "num_attention_heads": 0}',
        '{"model_type": "llama", "a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_configuration_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    pico.save("llama", tmp_path)
    (tmp_path / "config.json").write_text(text)
    trace = tmp_path / "trace"
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(trace)!r}).touch()")
    with pytest.raises(CheckpointError, match="is not of an architecture"):
        Checkpoint.open(str(tmp_path))
    assert not trace.exists()


@pytest.mark.parametrize("value", [0, -1, 10**9])
def test_absurd_number_of_layers_is_refused(tmp_path: Path, value: int) -> None:
    pico.save("llama", tmp_path)
    path = tmp_path / "config.json"
    table = json.loads(path.read_text())
    path.write_text(json.dumps(table | {"num_hidden_layers": value}))
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        pico.directions(None, tmp_path, method="raw")


def test_encoder_decoder_is_refused_by_name(tmp_path: Path) -> None:
    pico.config("t5").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="t5 is an encoder-decoder"):
        Checkpoint.open(str(tmp_path))


def test_revision_of_a_local_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a local folder, so revision 'main' means nothing"):
        locate(str(tmp_path), "main")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_hub_id_is_read_from_the_cache_at_a_recorded_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = tmp_path / "hub" / "models--org--pico"
    made = pico.save("llama", repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    checkpoint = Checkpoint.open("org/pico")
    assert (checkpoint.ref.path, checkpoint.ref.revision) == ("org/pico", COMMIT)
    assert torch.equal(checkpoint.tensor("model.norm.weight"), made.model.norm.weight)


def test_hub_id_that_cannot_be_had_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="org/none: no such folder here, nor a model"):
        locate("org/none")


def test_hub_download_asks_for_no_code_and_for_pickles_only_without_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str | None, list[str]]] = []
    folder = tmp_path / COMMIT
    folder.mkdir()

    def snapshot(repo: str, *, revision: str | None, allow_patterns: list[str], **_: Any) -> str:
        asked.append((revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    place = locate("org/pickled", "v1")
    assert place.revision == COMMIT
    assert [revision for revision, _ in asked] == ["v1", COMMIT]
    assert not any(pattern.endswith((".bin", ".py")) for pattern in asked[0][1])
    assert any(pattern.endswith(".bin") for pattern in asked[1][1])
    (folder / "model.safetensors").touch()
    locate("org/safe")
    assert len(asked) == 3


def test_archive_that_unpacks_to_more_than_it_is_is_refused_unread(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**7)
    with pytest.raises(CheckpointError, match="is compressed, or larger than any table"):
        Checkpoint.open(str(tmp_path))


def test_header_that_is_too_long_for_a_table_is_refused_unread(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    data = (2**26).to_bytes(8, "little") + b"{" + b" " * 2**26
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="which no table of tensors needs"):
        Checkpoint.open(str(tmp_path))


def test_language_model_that_is_described_otherwise_is_refused(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    table = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    table["text_config"] = {"model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(CheckpointError, match="describes its language model as"):
        _ = Checkpoint.open(str(tmp_path)).model_type
