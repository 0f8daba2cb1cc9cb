"""Bad input given to whole commands: one message that says what to do, and no traceback."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.config import load_settings
from builder.errors import ConfigError
from builder.store import RunStore
from tests.test_build import refused, run, write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that is right, for tests that change a setting or the corpus of a copy."""
    return write_recipe(tmp_path_factory.mktemp("right"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished scan."""
    folder = tmp_path_factory.mktemp("finished")
    assert run("scan", write_recipe(folder)) == 0
    return folder


# --- corpora ---


def damaged_gzip(folder: Path) -> Path:
    data = bytearray(gzip.compress("\n".join(f'{{"text": "{n}"}}' for n in range(2000)).encode()))
    data[2000:2100] = b"\xff" * 100
    (folder / "a.jsonl.gz").write_bytes(data)
    return folder / "a.jsonl.gz"


def unhashable_roles(folder: Path) -> Path:
    rows = ({"messages": [{"role": role, "content": "x"}]} for role in (["a"], {"b": 1}))
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder / "a.jsonl"


def not_utf8(folder: Path) -> Path:
    texts = pa.array([b"\xff\xfe"], pa.binary())
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 1, texts.buffers())})
    pq.write_table(table, folder / "a.parquet")
    return folder / "a.parquet"


def one_array(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps([{"text": "x"}] * 30, indent=1))
    return folder / "a.json"


@pytest.mark.parametrize(
    ("make", "naming"),
    [
        (damaged_gzip, ["a.jsonl.gz", "cannot be read"]),
        (unhashable_roles, ["2 of 2 rows", "a message with an unknown role"]),
        (not_utf8, ["1 of 1 rows", "a damaged value"]),
        (one_array, ["a.json", "one JSON array", "JSON lines (one object a line) or Parquet"]),
    ],
)
def test_a_corpus_that_cannot_be_used_is_refused(
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    naming: list[str],
) -> None:
    change = f"corpus.sources=[{{path='{make(tmp_path)}'}}]"
    command = ("scan", recipe, "--set", f"runs='{tmp_path / 'runs'}'", "--set", change)
    refused(capsys, *command, naming=naming, runs=tmp_path / "runs")


def test_a_dataset_name_that_means_nothing_is_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = "corpus.sources=[{dataset='///'}]"
    command = ("scan", recipe, "--set", f"runs='{tmp_path / 'runs'}'", "--set", change)
    refused(capsys, *command, naming=["///", "cannot be loaded"], runs=tmp_path / "runs")


# --- models ---


def test_a_configuration_that_divides_by_zero_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    config["num_attention_heads"] = 0
    (tmp_path / "tuned" / "config.json").write_text(json.dumps(config))
    refused(capsys, "directions", recipe, naming=["tuned", "config.json"], runs=tmp_path / "runs")


# --- settings ---


@pytest.mark.parametrize(
    "setting",
    ["scan.top", "directions.random_controls", "directions.seed", "scan.seed", "label.contrast"],
)
@pytest.mark.parametrize("value", ["9" * 23, "9" * 5000])
def test_numbers_beyond_all_bounds_are_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str], setting: str, value: str
) -> None:
    command = ("build", recipe, "--set", f"{setting}={value}")
    refused(capsys, *command, naming=[setting, "999"], runs=recipe.parent / "runs")


@pytest.mark.parametrize(
    "setting", ["model.tuned", "model.base", "runs", "site.out", "corpus.sources.0.path"]
)
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("'" + "x" * 5000 + "'", "too long"),
        ('"a\\u0000b"', "a character that no path can hold"),
    ],
)
def test_values_that_no_path_can_have_are_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str], setting: str, value: str, fault: str
) -> None:
    command = ("build", recipe, "--set", f"{setting}={value}")
    refused(capsys, *command, naming=[setting, fault], runs=recipe.parent / "runs")
    assert run(*command) == 2
    assert len(capsys.readouterr().err) < 1000


def test_a_recipe_may_hold_a_path_that_is_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, model={"tuned": "x" * 5000})
    naming = ["model.tuned", "too long"]
    refused(capsys, "build", recipe, naming=naming, runs=tmp_path / "runs")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.toml"])
def test_a_name_that_no_recipe_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        load_settings(Path(name))


def test_a_recipe_may_begin_with_a_byte_order_mark(recipe: Path, tmp_path: Path) -> None:
    marked = tmp_path / "recipe.toml"
    marked.write_bytes(b"\xef\xbb\xbf" + recipe.read_bytes())
    assert load_settings(marked) == load_settings(recipe)


@pytest.mark.parametrize("data", [b"\xff\xfen\x00", b"a = " + b"[" * 10_000, b"a = " + b"9" * 5000])
def test_a_recipe_that_cannot_be_parsed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    (tmp_path / "recipe.toml").write_bytes(data)
    command = ("build", tmp_path / "recipe.toml")
    refused(capsys, *command, naming=["recipe.toml: "], runs=tmp_path / "runs")


@pytest.mark.parametrize(
    "override",
    ['scan.top=3\nmodel.base="x"', "scan.top=3\n[model]\nbase='x'", "scan.top=" + "[" * 10_000],
)
def test_an_override_of_more_than_its_key_is_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    command = ("build", recipe, "--set", override)
    refused(capsys, *command, naming=["--set scan.top: the value"], runs=recipe.parent / "runs")


@pytest.mark.parametrize(
    "value",
    [
        "label.base_url=http://user:s3cret@host/v1",
        "label.base_url=https://s3cret@host:8000/v1",
        "label.base_url=user:s3cret@host/v1",
        "label.base_url=['http://user:s3cret@host/v1']",
        "label='http://user:s3cret@host/v1'",
        "label.base-url=http://user:s3cret@host/v1",
    ],
)
def test_a_secret_in_the_endpoint_is_refused_and_not_repeated(
    recipe: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    assert run("build", recipe, "--set", value) == 2
    message = capsys.readouterr().err
    assert message.startswith("weightatlas: ")
    assert "label" in message
    assert "s3cret" not in message
    if value.startswith("label.base_url=http"):
        assert "label.base_url: holds a user name or password" in message
        assert "label.api_key_env" in message


@pytest.mark.parametrize("url", ["", "http://localhost:8000/v1", "https://host/v1/@team?x=a@b"])
def test_an_endpoint_without_a_secret_is_accepted(recipe: Path, url: str) -> None:
    assert load_settings(recipe, [f"label.base_url='{url}'"]).label.base_url == url


# --- run folders ---


@pytest.mark.parametrize("name", ["counts.parquet", "stats.parquet", "examples.parquet"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_shard_is_named_and_scanned_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    folder = tmp_path / "micro"
    shutil.copytree(finished / "runs" / "micro", folder)
    before = RunStore(folder / "run.duckdb")
    wanted = before.dump()
    before.close()
    (folder / "run.duckdb").unlink()
    shard = max((folder / "shards").iterdir())
    file = shard / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    command = ("scan", finished / "recipe.toml", "--set", f"runs='{tmp_path}'")
    assert run(*command) == 0
    message = capsys.readouterr().err
    assert "warning: " in message
    assert shard.name in message
    assert "scanned again" in message
    assert not list(folder.rglob("*.part"))
    with RunStore(folder / "run.duckdb") as store:
        assert store.dump() == wanted
