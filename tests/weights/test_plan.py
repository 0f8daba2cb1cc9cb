"""The plan says what would be read, and reads none of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from builder import cli
from builder.config import DirectionSettings, ModelSettings
from builder.errors import CheckpointError, ConfigError
from builder.weights.plan import plan_directions
from builder.weights.tensors import TensorFiles

from . import pico


@pytest.fixture
def _no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("a byte of the weights was read")

    for name in ("raw", "rows", "piece"):
        monkeypatch.setattr(TensorFiles, name, refuse)


@pytest.mark.usefixtures("_no_reading")
@pytest.mark.parametrize("matrices", ["writers", "all"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "olmo2"])
def test_plan_counts_the_stored_bytes_of_every_matrix(
    family: str, matrices: str, tmp_path: Path
) -> None:
    pico.save(family, tmp_path / "base")
    (tmp_path / "tuned").symlink_to(tmp_path / "base")
    model = ModelSettings(base=str(tmp_path / "base"), tuned=str(tmp_path / "tuned"))
    plan = plan_directions(model, DirectionSettings.model_validate({"matrices": matrices}))
    writers = [m for m in plan.matrices if m.hookpoint.writer in ("o_proj", "down_proj")]
    assert len(writers) == 2 * pico.N_LAYERS
    assert (len(plan.matrices) > len(writers)) is (matrices == "all")
    for matrix in plan.matrices:
        assert matrix.bytes == 2 * 4 * math.prod(matrix.shape)  # two models in float32
    assert plan.bytes == sum(matrix.bytes for matrix in plan.matrices)


@pytest.mark.usefixtures("_no_reading")
def test_plan_of_an_adapter_counts_its_factors(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    factors = pico.factors(pico.D_FF, 4, 1)
    adapter = pico.adapter(tmp_path / "adapter", {"model.layers.1.mlp.down_proj": factors})
    plan = plan_directions(
        ModelSettings(base=str(tmp_path / "base"), tuned=str(adapter)), DirectionSettings()
    )
    assert [m.hookpoint.key for m in plan.matrices] == ["L01.down_proj"]
    assert plan.bytes == 4 * 4 * (pico.D_FF + pico.D_MODEL)


def test_expected_memory_grows_with_the_largest_matrix(tmp_path: Path) -> None:
    peaks = []
    for width in (48, 4800):
        folder = tmp_path / str(width)
        pico.save("llama", folder, intermediate_size=width)
        model = ModelSettings(tuned=str(folder))
        peaks.append(plan_directions(model, DirectionSettings(method="raw")).peak_memory)
    assert peaks[1] - peaks[0] >= 4 * pico.D_MODEL * (4800 - 48)


def test_directions_command_needs_no_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = pico.pair(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    asked = ["directions", "--base", str(base), "--tuned", str(tuned)]
    assert cli.main([*asked, "--plan"]) == 0
    plan = capsys.readouterr().out
    assert "L01.down_proj" in plan
    assert "4 matrices, 40,960 bytes to read" in plan
    assert not (tmp_path / "runs").exists()
    assert cli.main([*asked, "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 40960
    assert cli.main([*asked, "--matrices", "all", "--set", "directions.k=3"]) == 0
    assert "L01.up_proj" in capsys.readouterr().out
    run = tmp_path / "runs" / "tuned"
    assert {"directions.safetensors", "spectra.parquet", "run.toml"} <= {
        path.name for path in run.iterdir()
    }
    assert cli.main(["directions", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["spectra"]) == 7 * pico.N_LAYERS
    assert found["directions"] == 2 * 2 * 3 + 4 * pico.N_LAYERS


def test_directions_command_takes_a_folder_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tuned = pico.pair(tmp_path / "models")
    out = tmp_path / "elsewhere" / "mine"
    assert cli.main(["directions", "--tuned", str(tuned), "--raw", "--out", str(out)]) == 0
    assert (out / "directions.safetensors").is_file()
    assert cli.main(["scan", str(out)]) == 2
    assert "corpus.sources: needed for a scan" in capsys.readouterr().err


def test_directions_command_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["directions"]) == 2
    assert "give a recipe, a run folder, or --tuned MODEL" in capsys.readouterr().err
    _, tuned = pico.pair(tmp_path)
    assert cli.main(["directions", "--tuned", str(tuned), "--plan"]) == 2
    assert "model.base is needed for a weight difference" in capsys.readouterr().err
    assert cli.main(["directions", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "--out" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="no such folder"):
        plan_directions(ModelSettings(tuned=str(tmp_path / "none")), DirectionSettings())
    with pytest.raises(ConfigError, match="needs a name"):
        plan_directions(ModelSettings(tuned=" "), DirectionSettings())


def test_models_that_flags_name_mean_the_same_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = pico.pair(tmp_path / "org")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["directions", "--base", "org/base", "--tuned", "org/tuned"]) == 0
    first = (tmp_path / "runs" / "tuned" / "directions.safetensors").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["directions", str(tmp_path / "runs" / "tuned")]) == 0
    assert (tmp_path / "runs" / "tuned" / "directions.safetensors").read_bytes() == first
    text = (tmp_path / "runs" / "tuned" / "run.toml").read_text(encoding="utf-8")
    assert str(base) in text
    assert str(tuned) in text


def test_same_command_is_answered_after_a_corpus_was_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tuned = pico.pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = ["directions", "--base", str(base), "--tuned", str(tuned)]
    assert cli.main(asked) == 0
    run = tmp_path / "runs" / "tuned"
    settings = (run / "run.toml").read_text(encoding="utf-8")
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n', encoding="utf-8")
    texts = json.dumps(str(tmp_path / "texts.jsonl"))
    with_corpus = settings.replace("sources = []", f"sources = [{{path = {texts}}}]")
    assert with_corpus != settings
    (run / "run.toml").write_text(with_corpus, encoding="utf-8")
    (run / "corpus").mkdir()
    (run / "corpus" / "corpus.json").write_text("{}", encoding="utf-8")
    assert cli.main(asked) == 0
    assert cli.main([*asked, "--plan"]) == 0
    assert cli.main([*asked, "--set", "directions.k=3"]) == 2
    assert "directions.k" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tuned", "~nobody-of-this-name/x"], "cannot be looked up as a folder"),
        (["--tuned", "x" * 300], "x"),
        (["--tuned", "org/tune", "--out", "runs/" + "x" * 300], "org/tune"),
        (["--tuned", "org/tune", "--out", ""], "--out: needs a folder of its own"),
        (["--tuned", "org/tune", "--out", ".."], "--out: needs a folder of its own"),
        (["--tuned", "org/tune", "--out", "a", "--set", "name=b"], "--out says name and runs"),
        (["--tuned", "org/tune", "--raw", "--base", "org/base"], "leave --base out"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["directions", *flags, "--plan"]) == 2
    assert message in capsys.readouterr().err


def test_messages_hold_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pico.save("llama", tmp_path / "base")
    factors = pico.factors(pico.D_FF, 2, 1)
    adapter = pico.adapter(
        tmp_path / "adapter", {"model.layers.0.mlp.down_proj": factors}, peft_type="\x1b]0;x\x07"
    )
    assert cli.main(["directions", "--tuned", str(adapter), "--base", str(tmp_path / "base")]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\\x1b]0;x\\x07" in said


@pytest.mark.usefixtures("_no_reading")
def test_plan_says_what_is_read_besides_the_matrices(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    pico.save_tokenizer(tuned)
    model = ModelSettings(base=str(base), tuned=str(tuned))
    plan = plan_directions(model, DirectionSettings())
    o_proj, down_proj = pico.D_MODEL * pico.D_MODEL, pico.D_MODEL * pico.D_FF
    assert plan.besides == {
        "base controls": 4 * (o_proj + down_proj),
        "promoted and suppressed tokens": 4 * pico.VOCABULARY * pico.D_MODEL,
    }
    none = DirectionSettings.model_validate({**pico.NO_CONTROLS, "logit_lens_tokens": 0})
    assert plan_directions(model, none).besides == {}
