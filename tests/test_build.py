"""The whole build on a micro pair, and every way in which a request can be wrong."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tomli_w
import torch

from builder import cli
from builder.activations.corpus import Document
from builder.store import RunStore
from tests import micro

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def write_corpus(path: Path, documents: Sequence[Document]) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for item in documents:
            messages = [{"role": turn.role, "content": turn.content} for turn in item.messages]
            row = {"messages": messages} if messages else {"text": item.text}
            stream.write(json.dumps({**row, "source": item.source}) + "\n")
    return path


def write_recipe(
    folder: Path, *, name: str = "micro", documents: Sequence[Document] = (), **changes: Any
) -> Path:
    """A recipe for a micro pair and a corpus, all inside ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    base, tuned = micro.write_pair(folder)
    corpus = write_corpus(folder / "corpus.jsonl", documents or micro.documents(40))
    table: dict[str, Any] = {
        "name": name,
        "runs": str(folder / "runs"),
        "model": {"base": str(base), "tuned": str(tuned)},
        "directions": {"k": 2, "random_controls": 1, "base_controls": 0, "shuffled_controls": 0},
        "corpus": {"sources": [{"path": str(corpus), "licence": "CC0"}]},
        "scan": {"top": 3, "window": 8, "shard_documents": 16, "reservoir": 20},
        "site": {"out": str(folder / "site")},
    }
    for key, value in changes.items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished build."""
    folder = tmp_path_factory.mktemp("built")
    assert run("build", write_recipe(folder)) == 0
    return folder


def test_a_build_ends_with_a_site_and_a_database(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (built / "site" / "index.html").is_file()
    with RunStore(built / "runs" / "micro" / "run.duckdb") as store:
        # k = 2 of two writers and one random direction at each of three layers
        assert len(store.directions()) == micro.N_LAYERS * 5
        assert len(store.labels()) + len(store.label_failures()) == micro.N_LAYERS * 10
        meta = store.meta()
    assert meta["versions"]["torch"] == torch.__version__
    assert str(built.parent) not in json.dumps(meta), "the published database names the machine"
    assert run("status", built / "runs" / "micro", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["shards"] == status["shards_done"] == 3
    stages = {"directions", "corpus", "scan", "merge", "labels", "scores", "site"}
    assert set(status["stages"]) == stages


def test_a_finished_build_does_nothing_again(built: Path) -> None:
    run_folder = built / "runs" / "micro"
    before = {p: p.stat().st_mtime_ns for p in run_folder.rglob("*") if p.is_file()}
    assert run("build", built / "recipe.toml") == 0
    after = {p: p.stat().st_mtime_ns for p in run_folder.rglob("*") if p.is_file()}
    changed = {p.name for p in before if after.get(p) != before[p]} - {"site.json", ".lock"}
    assert not changed


def test_stages_one_by_one_equal_a_build(built: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    shutil.copy(built / "recipe.toml", recipe)
    place = ("--set", f"runs='{tmp_path}'")
    for command in ("directions", "scan", "label", "score"):
        assert run(command, recipe, *place) == 0
    assert run("render", tmp_path / "micro", "--out", tmp_path / "site") == 0
    assert (tmp_path / "site" / "index.html").is_file()
    with (
        RunStore(built / "runs" / "micro" / "run.duckdb") as one,
        RunStore(tmp_path / "micro" / "run.duckdb") as two,
    ):
        assert one.dump() == two.dump()


def test_a_run_folder_is_a_recipe(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "micro"
    shutil.copytree(built / "runs" / "micro", copy)
    assert run("scan", copy) == 0
    assert run("label", copy) == 0


# --- requests that are wrong ---


def refused(
    capsys: pytest.CaptureFixture[str], *arguments: object, naming: Sequence[str], runs: Path
) -> None:
    """Asserts one clear message, exit code 2, and no half-written run."""
    capsys.readouterr()
    assert run(*arguments) == 2
    streams = capsys.readouterr()
    message = "\n".join(line for line in streams.err.splitlines() if "it/s" not in line)
    assert message.startswith("weightatlas: ")
    assert "Traceback" not in streams.err
    for text in naming:
        assert text in message, message
    assert not list(runs.rglob("*.part"))
    assert not list(runs.rglob("run.duckdb"))
    assert not list(runs.rglob("corpus.json"))


def edited(folder: Path, change: Any, *, which: str = "tuned") -> None:
    """Rewrites a model's tensors by ``change(dict)``."""
    path = folder / which / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


O_PROJ = "model.layers.1.self_attn.o_proj.weight"


def test_a_missing_path_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, model={"tuned": str(tmp_path / "nowhere")})
    refused(capsys, "build", recipe, naming=["nowhere", "no such folder"], runs=tmp_path / "runs")
    refused(capsys, "build", tmp_path / "no.toml", naming=["no.toml"], runs=tmp_path / "runs")
    recipe = write_recipe(tmp_path, corpus={"sources": [{"path": str(tmp_path / "no.jsonl")}]})
    refused(capsys, "build", recipe, naming=["no.jsonl"], runs=tmp_path / "runs")


def test_a_folder_that_is_no_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("hello")
    recipe = write_recipe(tmp_path, model={"tuned": str(tmp_path / "notes")})
    refused(capsys, "build", recipe, naming=["notes", "config.json"], runs=tmp_path / "runs")


def test_models_of_other_shapes_are_refused_with_both_shapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)

    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        tensors[O_PROJ] = tensors[O_PROJ][:, :16].contiguous()

    edited(tmp_path, narrow)
    refused(
        capsys,
        "build",
        recipe,
        naming=["L01.o_proj", "[32, 32]", "[32, 16]"],
        runs=tmp_path / "runs",
    )


def test_models_of_other_architectures_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config |= {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    refused(capsys, "build", recipe, naming=["qwen2", "llama"], runs=tmp_path / "runs")


def test_a_checkpoint_that_needs_unsafe_unpickling_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "tuned" / "model.safetensors").unlink()
    marker = tmp_path / "executed"
    # What a hostile pickle does: calls a function while it is loaded.
    hostile = f"cos\nsystem\n(S'touch {marker}'\ntR."
    (tmp_path / "tuned" / "pytorch_model.bin").write_bytes(hostile.encode())
    refused(capsys, "build", recipe, naming=["pytorch_model.bin"], runs=tmp_path / "runs")
    assert not marker.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    recipe = write_recipe(tmp_path)
    edited(tmp_path, lambda tensors: tensors[O_PROJ].view(-1).__setitem__(5, value))
    refused(capsys, "build", recipe, naming=["L01.o_proj"], runs=tmp_path / "runs")


def test_identical_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, model={"tuned": str(tmp_path / "base")})
    refused(capsys, "build", recipe, naming=["identical"], runs=tmp_path / "runs")


def test_a_corpus_with_too_many_bad_rows_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    with (tmp_path / "corpus.jsonl").open("a") as stream:
        stream.write("{broken\n" * 2)
    refused(
        capsys, "build", recipe, naming=["2 of 42 rows", "not valid JSON"], runs=tmp_path / "runs"
    )


def test_a_few_bad_rows_are_skipped_counted_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, documents=micro.documents(220))
    with (tmp_path / "corpus.jsonl").open("a") as stream:
        stream.write('{broken\n{"title": "neither"}\n')
    assert run("build", recipe) == 0
    assert "1 rows left out: not valid JSON" in capsys.readouterr().out
    with RunStore(tmp_path / "runs" / "micro" / "run.duckdb") as store:
        dropped = {c.name: c.n for c in store.counts() if c.what == "dropped"}
    assert dropped == {"not valid JSON": 1, "neither text nor messages": 1}
    pages = "".join(p.read_text() for p in (tmp_path / "site").rglob("*.html"))
    assert "neither text nor messages" in pages


def test_an_empty_corpus_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "corpus.jsonl").write_text("")
    refused(capsys, "build", recipe, naming=["empty"], runs=tmp_path / "runs")


def test_a_tokenizer_without_chat_template_still_reads_plain_text(tmp_path: Path) -> None:
    documents = [Document(i, "s", text=f"river stone {i} lantern market") for i in range(30)]
    recipe = write_recipe(tmp_path, documents=documents)
    for which in ("base", "tuned"):
        (tmp_path / which / "chat_template.jinja").unlink()
    assert run("build", recipe) == 0
    with RunStore(tmp_path / "runs" / "micro" / "run.duckdb") as store:
        assert {c.n for c in store.counts() if c.what == "documents"} == {30}


def test_conversations_that_no_template_can_render_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chats = [d for d in micro.documents(60) if d.messages]
    recipe = write_recipe(tmp_path, documents=chats)
    for which in ("base", "tuned"):
        (tmp_path / which / "chat_template.jinja").unlink()
    assert run("build", recipe) == 2
    assert "chat template" in capsys.readouterr().err


def test_a_document_of_two_megabytes_is_cut_not_fatal(tmp_path: Path) -> None:
    long = Document(0, "long", text="river stone " * 180_000)
    recipe = write_recipe(tmp_path, documents=[long, *micro.documents(20)])
    assert run("build", recipe) == 0
    with RunStore(tmp_path / "runs" / "micro" / "run.duckdb") as store:
        assert [c.n for c in store.counts() if c.what == "noted"] == [1]


def test_an_unknown_setting_lists_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, scan={"topp": 3})
    refused(
        capsys,
        "build",
        recipe,
        naming=["unknown setting 'topp'", "batch_tokens", "top"],
        runs=tmp_path / "runs",
    )
    recipe = write_recipe(tmp_path)
    command = ("build", recipe, "--set", "scan.windw=3")
    refused(capsys, *command, naming=["'windw'", "window"], runs=tmp_path / "runs")


def test_a_run_folder_made_with_other_settings_is_refused(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (built / "runs" / "micro" / "run.toml").read_text()
    assert run("build", built / "recipe.toml", "--set", "scan.top=4") == 2
    message = capsys.readouterr().err
    assert "scan.top: 3 there, 4 now" in message
    assert (built / "runs" / "micro" / "run.toml").read_text() == before


def test_a_corpus_that_changed_under_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert run("build", recipe) == 0
    with (tmp_path / "corpus.jsonl").open("a") as stream:
        stream.write('{"text": "one more"}\n')
    assert run("build", recipe) == 2
    assert "changed since this run began" in capsys.readouterr().err


@pytest.mark.parametrize("limit_kb", [4, 40, 200])
def test_no_space_left_is_one_message_and_the_run_goes_on_later(
    tmp_path: Path, limit_kb: int
) -> None:
    recipe = write_recipe(tmp_path, documents=micro.documents(60))

    def small_files() -> None:
        # Writing beyond the limit fails as on a full disk, in Python and in native libraries.
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb << 10, resource.RLIM_INFINITY))

    full = subprocess.run(
        [sys.executable, "-m", "builder.cli", "build", str(recipe)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_files,
    )
    assert full.returncode == 2, full.stderr[-3000:]
    assert "no space left" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list((tmp_path / "runs").rglob("run.duckdb"))
    assert run("build", recipe) == 0
