"""What happens when the second request differs from the first: other weights, settings, labels."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import safetensors.torch
import tomli_w
import torch

from builder import cli, pipeline, provenance
from builder.config import load_settings, public_name
from builder.errors import CheckpointError, ConfigError
from builder.records import Label
from builder.run_folder import read_run
from builder.store import RunStore
from tests import micro
from tests.test_build import edited, run, write_recipe

Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def examples(folder: Path, name: str = "micro") -> list[tuple[object, ...]]:
    with RunStore(folder / "runs" / name / "run.duckdb") as store:
        return store.dump()["examples"]


def test_a_model_that_changed_is_scanned_anew(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "one")
    assert run("build", recipe) == 0
    before = examples(tmp_path / "one")
    # Not a residual writer, so the directions stay what they are.
    edited(tmp_path / "one", lambda tensors: tensors[Q_PROJ].mul_(-3.0))
    assert run("build", recipe) == 0
    after = examples(tmp_path / "one")
    assert after != before
    fresh = write_recipe(tmp_path / "two")
    edited(tmp_path / "two", lambda tensors: tensors[Q_PROJ].mul_(-3.0))
    assert run("build", fresh) == 0
    assert examples(tmp_path / "two") == after


def test_a_chat_template_that_changed_is_scanned_anew(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert run("build", recipe) == 0
    before = examples(tmp_path)
    template = tmp_path / "tuned" / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|>so "))
    assert run("build", recipe) == 0
    assert examples(tmp_path) != before


def test_a_file_that_nothing_reads_changes_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert run("build", recipe) == 0
    shards = {item.name for item in (tmp_path / "runs" / "micro" / "shards").iterdir()}
    (tmp_path / "tuned" / "README.md").write_text("A card.")
    (tmp_path / "tuned" / "optimizer.pt").write_bytes(b"state")
    # The base is not scanned: its directions are taken anew, but no shard is made again for it.
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    assert run("build", recipe) == 0
    assert {item.name for item in (tmp_path / "runs" / "micro" / "shards").iterdir()} == shards
    (tmp_path / "runs" / "micro" / "stages" / "models.json").write_text("{")
    assert run("build", recipe) == 0


def test_a_title_and_label_settings_reach_the_site(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert run("build", recipe) == 0
    changes = ("--set", "model.title=A new title", "--set", "label.examples=7")
    assert run("build", recipe, *changes) == 0
    assert "A new title" in (tmp_path / "site" / "index.html").read_text()
    with RunStore(tmp_path / "runs" / "micro" / "run.duckdb") as store:
        assert store.meta()["settings"]["label"]["examples"] == 7


def test_a_resumed_scan_is_recorded_whole(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert run("build", recipe) == 0
    folder = tmp_path / "runs" / "micro"
    whole = pipeline.status(folder)["stages"]["scan"]
    shutil.rmtree(min((folder / "shards").iterdir()))
    assert run("build", recipe) == 0
    again = pipeline.status(folder)["stages"]["scan"]
    assert again["tokens"] == whole["tokens"]
    assert again["seconds"] >= whole["seconds"]
    (folder / "stages" / "scan.json").unlink()
    assert run("build", recipe) == 0
    assert pipeline.status(folder)["stages"]["scan"]["tokens"] == whole["tokens"]


def test_a_model_that_is_gone_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path, model={"base": "base", "tuned": "tuned"})
    assert run("build", recipe) == 0
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    assert run("build", recipe) == 2
    assert f"{tmp_path / 'base'}: is not there any more" in capsys.readouterr().err


def test_an_adapter_beside_a_whole_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    # transformers would load it on top of the model, where the directions know nothing of it.
    (tmp_path / "tuned" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 1, "target_modules": ["o_proj"]})
    )
    assert run("build", recipe) == 2
    assert "a whole model and an adapter" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_tensors_under_names_that_would_not_be_loaded_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    recipe = write_recipe(tmp_path)
    for which in ("base", "tuned"):
        path = tmp_path / which / "model.safetensors"
        tensors = safetensors.torch.load_file(path)
        renamed = {prefix + name: tensor for name, tensor in tensors.items()}
        safetensors.torch.save_file(renamed, path, metadata={"format": "pt"})
    assert run("build", recipe) == 2
    assert "tensors are not in its files" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("corpus.json"))


def test_a_missing_tensor_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path)
    edited(tmp_path, lambda tensors: tensors.pop(Q_PROJ))
    assert run("build", recipe) == 2
    assert "layers.1.self_attn.q_proj.weight" in capsys.readouterr().err


def test_a_tensor_of_another_shape_is_named_with_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)

    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        tensors[Q_PROJ] = tensors[Q_PROJ][:, :16].contiguous()

    edited(tmp_path, narrow)
    assert run("build", recipe) == 2
    message = capsys.readouterr().err
    assert "q_proj.weight" in message
    assert "[32, 16]" in message
    assert "[32, 32]" in message


@pytest.mark.parametrize("name", [Q_PROJ, "model.embed_tokens.weight"])
def test_weights_beside_the_writers_must_be_finite_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    recipe = write_recipe(tmp_path)
    edited(tmp_path, lambda tensors: tensors[name].view(-1).__setitem__(3, float("nan")))
    assert run("build", recipe) == 2
    assert name.removeprefix("model.") in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("*.part"))


def test_an_adapter_names_its_base_from_its_own_place(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 1, "base_model_name_or_path": "../base"}
    (tmp_path / "base").mkdir()
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(
        {
            f"base_model.model.m.lora_{side}.weight": torch.ones(shape)
            for side, shape in {"A": (1, 4), "B": (4, 1)}.items()
        },
        tmp_path / "lora" / "adapter_model.safetensors",
    )
    from builder.config import ModelSettings
    from builder.weights.pair import Finder

    lora = str(tmp_path / "lora")
    assert Finder(ModelSettings(tuned=lora)).tuned().whole.folder == (tmp_path / "base").resolve()
    (tmp_path / "other").mkdir()
    given = ModelSettings(tuned=lora, base=str(tmp_path / "other"))
    assert Finder(given).tuned().whole.folder == tmp_path / "other"
    for base, error in (("", ConfigError), ("../gone", CheckpointError)):
        config["base_model_name_or_path"] = base
        (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(error):
            Finder(ModelSettings(tuned=lora)).tuned()


# --- a refused request can be corrected ---


def test_a_request_is_corrected_as_its_message_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    with (tmp_path / "corpus.jsonl").open("a") as stream:
        stream.write("{broken\n" * 2)
    assert run("build", recipe) == 2
    assert "corpus.max_bad_share" in capsys.readouterr().err
    assert run("build", recipe, "--set", "corpus.max_bad_share=0.1") == 0


def test_labels_before_a_scan_are_refused_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert run("label", recipe) == 2
    assert "nothing is scanned yet" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_what_is_left_out_during_the_scan_is_in_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "tuned" / "chat_template.jinja").write_text("{% for %}")
    assert run("build", recipe) == 0
    chats = sum(bool(item.messages) for item in micro.documents(40))
    assert f"{chats} rows left out: the chat template" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "naming"),
    [
        ("site.out='{folder}/recipe.toml'", "is a file, not a folder"),
        ("site.out='{folder}/base'", "not an empty folder"),
        ("scan.device=foo", "scan.device"),
        ("scan.device=meta", "scan.device"),
        ("label.labeler=openai", "label.model"),
        ("runs='{folder}/recipe.toml'", "is a file"),
    ],
)
def test_a_wrong_request_is_found_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, naming: str
) -> None:
    recipe = write_recipe(tmp_path)
    assert run("build", recipe, "--set", setting.format(folder=tmp_path)) == 2
    assert naming in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_tokenizer_that_cannot_be_read_is_found_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "tuned" / "tokenizer.json").write_text("{")
    assert run("build", recipe) == 2
    assert "cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# --- results of earlier requests stay ---


def test_a_build_adds_to_the_site_it_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert run("build", recipe) == 0
    assert run("build", write_recipe(tmp_path, name="second")) == 0
    assert {item.name for item in (tmp_path / "site" / "m").iterdir()} == {"micro", "second"}
    (tmp_path / "runs" / "micro" / "run.duckdb").write_text("junk")
    assert run("build", tmp_path / "recipe.toml") == 0
    assert "micro is no longer in" in capsys.readouterr().err
    assert {item.name for item in (tmp_path / "site" / "m").iterdir()} == {"second"}


def test_labels_of_another_labeler_stay(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert run("build", recipe) == 0
    place = read_run(recipe).database_path
    with RunStore(place, read_only=False) as store:
        first = store.directions()[0].id
        store.replace_labels([Label(first, "max", "a-model", "rivers", "why")], fingerprint="f")
        ours = [label for label in store.labels() if label.labeler == "keywords"]
    assert run("build", recipe) == 0
    pipeline.make_labels(read_run(recipe))
    with RunStore(place) as store:
        labels = store.labels()
        assert store.label_fingerprint("a-model") == "f"
    assert [label for label in labels if label.labeler == "keywords"] == ours
    assert [label.text for label in labels if label.labeler == "a-model"] == ["rivers"]


def test_labels_that_all_failed_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path)
    counts = {"labelled": 0, "no_pattern": 0, "failed": 3}
    monkeypatch.setattr(pipeline, "make_labels", lambda _run, **_options: counts)
    assert cli.main(["label", str(recipe)]) == 1
    counts["no_pattern"] = 1
    assert cli.main(["label", str(recipe)]) == 0


# --- what is published ---


def test_no_user_folder_or_host_is_published(tmp_path: Path) -> None:
    home = tmp_path / "home" / "alice"
    recipe = write_recipe(home)
    assert run("build", recipe, "--set", "label.base_url='http://inner.example:8000/v1'") == 0
    (home / "site" / "check.txt").write_text("")
    published = [*(home / "site").rglob("*"), home / "runs" / "micro" / "run.duckdb"]
    for path in published:
        if path.is_file():
            content = path.read_bytes()
            assert b"alice" not in content, path
            assert b"inner.example" not in content, path


def test_a_dataset_in_a_local_folder_is_published_without_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "alice" / "talks"
    folder.mkdir(parents=True)
    recipe = write_recipe(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    lines = (json.dumps({"text": row.get("text", "a river stone")}) for row in rows)
    (folder / "train.jsonl").write_text("\n".join(lines))
    table = tomllib.loads(recipe.read_text())
    table["corpus"] = {"sources": [{"dataset": str(folder)}]}
    recipe.write_text(tomli_w.dumps(table))
    assert run("build", recipe) == 0
    with RunStore(tmp_path / "runs" / "micro" / "run.duckdb") as store:
        assert {c.name for c in store.counts() if c.what == "documents"} == {"talks"}
        assert "alice" not in json.dumps(store.meta())
    for path in (tmp_path / "site").rglob("*.html"):
        assert "alice" not in path.read_text(), path


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("/home/alice/my-tune", "my-tune"),
        ("../alice/my-tune", "my-tune"),
        ("~/alice/my-tune", "my-tune"),
        ("/", "local files"),
    ],
)
def test_a_local_name_is_published_without_its_place(name: str, shown: str) -> None:
    assert public_name(name) == shown


def test_settings_in_public_keep_what_decides_results(tmp_path: Path) -> None:
    settings = load_settings(write_recipe(tmp_path))
    shown = provenance.public_settings(settings)
    assert shown["scan"]["top"] == settings.scan.top
    assert shown["model"] | {"title": ""} == {
        **settings.model.model_dump(),
        "base": "base",
        "tuned": "tuned",
    }
    assert shown["corpus"]["sources"][0]["path"] == "corpus.jsonl"
