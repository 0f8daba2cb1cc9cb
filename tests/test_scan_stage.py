"""What a scan says while it runs, what it does with damage, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from builder import pipeline
from builder.cli.arguments import make_parser
from builder.cli.named_run import compute_flags
from builder.config import parse_settings
from builder.errors import ConfigError
from builder.execute import InProcess, run_lock
from builder.run_folder import read_run, stage_record
from builder.scan_stage import scan_executor
from tests import micro
from tests.test_build import run, write_recipe


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this is about the merge."""
    monkeypatch.setattr(pipeline, "merge_shards", lambda *_arguments: None)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose scan has four shards."""
    return write_recipe(tmp_path, documents=micro.documents(60))


def stop_after(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the scan of this process end, as by Ctrl-C, when ``n`` shards are done."""
    load = InProcess.load
    done = 0

    def loaded(executor: InProcess, job: Any) -> Any:
        compute = load(executor, job)

        def counted(prepared: Any) -> Any:
            nonlocal done
            if done == n:
                raise KeyboardInterrupt
            done += 1
            return compute(prepared)

        return counted

    monkeypatch.setattr(InProcess, "load", loaded)


def test_status_says_how_far_a_scan_is_and_whether_it_runs(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recipe.parent / "runs" / "micro"
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert run("scan", recipe) == 130
    capsys.readouterr()
    assert run("status", folder) == 0
    shown = capsys.readouterr().out
    assert "60 documents, 2 of 4 shards scanned" in shown
    assert "no process works here now; the same command goes on" in shown
    with run_lock(folder):
        assert run("status", folder) == 0
        shown = capsys.readouterr().out
        assert "scanning (local, 1 worker): " in shown
        assert " tokens/s, about 1 min left" in shown
        assert run("status", folder, "--json") == 0
        status = json.loads(capsys.readouterr().out)
    assert status["running"] is True
    scan = status["scan"]
    assert (scan["shards_done"], scan["shards"], scan["documents_done"]) == (2, 4, 32)
    assert scan["tokens"] > 0
    assert scan["seconds_left"] > 0
    assert "scan" not in status["stages"]

    assert run("scan", recipe) == 0
    capsys.readouterr()
    assert run("status", folder) == 0
    shown = capsys.readouterr().out
    assert "4 of 4 shards scanned" in shown
    assert "goes on" not in shown
    assert "scanning" not in shown


def test_a_run_without_a_scan_has_a_status(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("directions", recipe) == 0
    capsys.readouterr()
    assert run("status", recipe.parent / "runs" / "micro") == 0
    assert "shards" not in capsys.readouterr().out


def test_what_is_left_out_is_counted_while_the_scan_runs(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (recipe.parent / "corpus.jsonl").open("a") as corpus:
        corpus.write("{half\n")
    (recipe.parent / "tuned" / "chat_template.jinja").write_text("{% for %}")
    stop_after(2, monkeypatch)
    assert run("scan", recipe, "--set", "corpus.max_bad_share=0.1") == 130
    dropped = pipeline.status(recipe.parent / "runs" / "micro")["dropped"]
    assert dropped["not valid JSON"] == 1
    (refused,) = (n for reason, n in dropped.items() if "chat template" in reason)
    assert refused == sum(bool(item.messages) for item in micro.documents(60)[:32])


def test_a_damaged_shard_is_said_counted_and_scanned_again(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("scan", recipe) == 0
    folder = recipe.parent / "runs" / "micro"
    shards = sorted((folder / "shards").iterdir())
    whole = {path: path.read_bytes() for shard in shards for path in shard.iterdir()}
    victim = shards[2] / "stats.parquet"
    data = bytearray(whole[victim])
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    kept = (shards[1] / "stats.parquet").stat().st_mtime_ns
    capsys.readouterr()
    assert run("scan", recipe) == 0
    said = capsys.readouterr().err
    assert f"{shards[2]}: stats.parquet is not as it was written; this shard is scanned" in said
    assert {path: path.read_bytes() for path in whole} == whole
    assert (shards[1] / "stats.parquet").stat().st_mtime_ns == kept
    record = stage_record(folder, "scan")
    assert record is not None
    assert record["damaged_shards"] == 1
    assert run("scan", recipe) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_finished_scan_loads_no_model(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("scan", recipe) == 0
    record = stage_record(recipe.parent / "runs" / "micro", "scan")

    def loaded(*_arguments: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(InProcess, "load", loaded)
    assert run("scan", recipe) == 0
    assert stage_record(recipe.parent / "runs" / "micro", "scan") == record


def test_a_second_scan_of_one_run_folder_is_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("directions", recipe) == 0
    with run_lock(recipe.parent / "runs" / "micro"):
        assert run("scan", recipe) == 1
    assert "another weightatlas process is working here" in capsys.readouterr().err
    assert run("scan", recipe) == 0


def test_a_read_only_run_folder_is_named_and_finished_shards_stay(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert run("scan", recipe) == 130
    shards = recipe.parent / "runs" / "micro" / "shards"
    kept = sorted(shards.iterdir())
    opened = os.open

    def read_only(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_ACCMODE and "runs" in str(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        assert run("scan", recipe) == 1
    said = capsys.readouterr().err
    assert f"{shards.parent}: cannot be written: Read-only file system" in said
    assert sorted(shards.iterdir()) == kept
    assert run("scan", recipe) == 0


def test_who_computes_is_free_and_changes_no_shard(recipe: Path) -> None:
    assert run("scan", recipe) == 0
    folder = recipe.parent / "runs" / "micro"
    shards = {path: path.stat().st_mtime_ns for path in (folder / "shards").iterdir()}
    assert run("scan", folder, "--workers", 2) == 0
    assert run("scan", folder, "--executor", "ray", "--set", "compute.threads=1") == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "shards").iterdir()} == shards


def test_flags_are_settings(recipe: Path) -> None:
    options = make_parser().parse_args(
        ["scan", str(recipe), "--address", "auto", "--workers", "3", "--with-base"]
    )
    settings = read_run(recipe, tuple(compute_flags(options))).settings
    assert settings.compute.executor == "ray"
    assert settings.compute.address == "auto"
    assert settings.compute.workers == 3
    assert settings.scan.with_base is True


def test_an_address_without_a_cluster_is_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("scan", recipe, "--executor", "local", "--address", "auto") == 2
    assert "--executor ray" in capsys.readouterr().err


@pytest.mark.parametrize("compute", [{"workers": 2}, {"executor": "ray"}])
def test_a_model_over_all_gpus_is_one_workers(compute: dict[str, Any]) -> None:
    table = {"name": "x", "model": {"tuned": "x"}, "scan": {"device": "spread"}}
    with pytest.raises(ConfigError, match="'spread' gives one model all GPUs"):
        scan_executor(parse_settings({**table, "compute": compute}))
    assert scan_executor(parse_settings(table)).workers == 1
