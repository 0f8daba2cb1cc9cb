"""Neuronpedia's layout: its tables and keys, both poles as features, and what is left out."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import cli
from builder.errors import ConfigError, StoreError
from builder.exports import neuronpedia
from builder.exports.neuronpedia import Exported, Names, export_neuronpedia
from builder.exports.rows import tokens_of
from builder.exports.written import line, whole_folder
from builder.records import ACTIVATION_SCALE, ANY_ROLE, POLES, Example, Label, Window
from builder.store import RunStore
from builder.weights.direction_file import load_directions, save_directions
from tests.pages.fixture import make_run

#: Columns of Neuronpedia's tables that have no default there (its schema.prisma).
NEEDED = {
    "features": {"modelId", "layer", "index"},
    "activations": {
        "id", "tokens", "index", "layer", "modelId", "maxValue", "maxValueTokenIndex", "minValue",
        "values", "creatorId",
    },
    "explanations": {"id", "modelId", "layer", "index", "description", "authorId"},
    "release": {"name", "description", "creatorName", "creatorId", "urls"},
    "model": {"id", "creatorId", "layers", "neuronsPerLayer", "owner"},
    "sourceset": {"modelId", "name", "description", "creatorName", "creatorId", "urls"},
    "source": {"id", "modelId", "setName", "creatorId"},
}  # fmt: skip
NAMES = Names.of("pico-chat")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(
        tmp_path_factory.mktemp("runs") / "run", name="pico-chat", title="Pico Chat", seed=4,
        layers=2, ranks=2, documents=30, with_base=True,
    )  # fmt: skip
    with RunStore(folder / "run.duckdb", read_only=False) as store:
        store.replace_labels([Label(store.directions()[0].id, "max", "undecided", None)])
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    out = tmp_path_factory.mktemp("out") / "export"
    return out, export_neuronpedia(run, out, NAMES)


def rows(place: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(place.read_bytes()) if place.suffix == ".gz" else place.read_bytes()
    return [json.loads(text) for text in data.splitlines()]


def every(out: Path, name: str) -> list[dict[str, Any]]:
    return [row for place in sorted(out.rglob(f"{name}/batch-*.jsonl.gz")) for row in rows(place)]


def test_every_source_has_the_files_of_the_layout(
    exported: tuple[Path, Exported], run: Path
) -> None:
    out, found = exported
    with RunStore(run / "run.duckdb") as store:
        own = [row for row in store.directions() if row.kind != "control"]
    sources = {(row.hookpoint.layer, row.hookpoint.writer.replace("_", "-")) for row in own}
    folder = out / "pico-chat"
    assert {place.name for place in folder.iterdir()} == {
        f"{layer}-weightatlas-pico-chat-{writer}" for layer, writer in sources
    }
    for source in folder.iterdir():
        assert {place.relative_to(source).as_posix() for place in source.rglob("*.*")} == {
            "release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl",
            "features/batch-0.jsonl.gz", "activations/batch-0.jsonl.gz",
            "explanations/batch-0.jsonl.gz",
        }  # fmt: skip
    assert found.written["sources"] == len(sources)
    assert found.written["features"] == 2 * len(own)


def test_every_line_has_what_the_tables_need_and_all_lines_of_a_file_the_same_keys(
    exported: tuple[Path, Exported],
) -> None:
    for place in exported[0].rglob("*.jsonl*"):
        name = place.parent.name if place.suffix == ".gz" else place.name.partition(".")[0]
        found = rows(place)
        for row in found:
            assert NEEDED[name] <= set(row)
            assert set(row) == set(found[0])
            assert all(row[key] is not None for key in NEEDED[name])


def test_rows_name_each_other(exported: tuple[Path, Exported]) -> None:
    out, _ = exported
    features = {(row["modelId"], row["layer"], row["index"]) for row in every(out, "features")}
    assert len(features) == len(every(out, "features"))
    for name in ("activations", "explanations"):
        found = every(out, name)
        assert {(row["modelId"], row["layer"], row["index"]) for row in found} <= features
        assert len({row["id"] for row in found}) == len(found)
    for source in (out / "pico-chat").iterdir():
        (about,), (held,) = rows(source / "source.jsonl"), rows(source / "sourceset.jsonl")
        assert about["id"] == source.name
        assert (about["modelId"], about["setName"]) == (held["modelId"], held["name"])
        assert rows(source / "release.jsonl")[0]["name"] == held["releaseName"]
        assert rows(source / "model.jsonl")[0]["id"] == held["modelId"]
        for row in rows(source / "features" / "batch-0.jsonl.gz"):
            assert (row["layer"], row["sourceSetName"]) == (about["id"], held["name"])


def test_poles_are_features_that_point_the_opposite_way(
    exported: tuple[Path, Exported], run: Path
) -> None:
    held = load_directions(run / "directions.safetensors")
    vectors = {item.id: item.vector for item in held.directions}
    found = {row["vectorLabel"]: row for row in every(exported[0], "features")}
    for name, row in found.items():
        direction, pole = name.split()
        sign = 1 if pole == "max" else -1
        assert row["vector"] == pytest.approx((sign * vectors[direction]).tolist(), abs=1e-6)
        assert row["maxActApprox"] > 0
        assert sum(row["freq_hist_data_bar_heights"]) > 0
        assert row["freq_hist_data_bar_values"][-1] == pytest.approx(row["maxActApprox"], abs=0.02)
        other = found[f"{direction} {POLES[1 - POLES.index(pole)]}"]
        assert row["pos_str"] == other["neg_str"]
        assert row["pos_values"] == [-value for value in other["neg_values"]]
        assert row["pos_values"] == sorted(row["pos_values"], reverse=True)
        assert 0 < row["frac_nonzero"] + other["frac_nonzero"] <= 1.000001


def test_activations_are_those_of_the_examples(exported: tuple[Path, Exported], run: Path) -> None:
    labels = {
        (row["layer"], row["index"]): row["vectorLabel"] for row in every(exported[0], "features")
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for row in every(exported[0], "activations"):
        found.setdefault(labels[row["layer"], row["index"]], []).append(row)
    compared = 0
    with RunStore(run / "run.duckdb") as store:
        for direction in {name.split()[0] for name in found}:
            for pole in POLES:
                sign = 1 if pole == "max" else -1
                examples = store.examples(direction, pole=pole, role=ANY_ROLE)
                for example, row in zip(examples, found[f"{direction} {pole}"], strict=True):
                    assert "".join(row["tokens"]) == example.window.text
                    assert len(row["tokens"]) == len(row["values"])
                    expected = sign * example.activations / ACTIVATION_SCALE
                    assert np.allclose(row["values"], expected, atol=1e-5)
                    assert row["maxValue"] == pytest.approx(sign * example.value, abs=1e-4)
                    assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"]
                    compared += 1
    assert compared > 50


def test_a_character_that_is_split_stands_once() -> None:
    window = Window(0, "chat", 0, "a\N{PARTY POPPER}b", np.asarray([1, 2, 2, 3], dtype=np.uint32))
    values = np.zeros(4, dtype=np.int16)
    example = Example("d", "user", "max", 0, 0.0, 1, 0, window, values, values.astype(np.uint8))
    assert tokens_of(example) == ["a", "\N{PARTY POPPER}", "", "b"]


def test_what_has_no_place_is_counted(exported: tuple[Path, Exported], run: Path) -> None:
    _, found = exported
    with RunStore(run / "run.duckdb") as store:
        own = {row.id for row in store.directions() if row.kind != "control"}
        labels = [label for label in store.labels() if label.direction in own]
        failures = [failure for failure in store.label_failures() if failure.direction in own]
        controls = len(store.directions()) - len(own)
    texts = sum(bool(label.text) for label in labels)
    assert found.written["explanations"] == texts > 0
    assert found.left_out["answers of no consistent pattern"] == len(labels) - texts > 0
    assert found.left_out["failures of a labeler"] == len(failures) > 0
    assert found.left_out["controls"] == controls > 0
    assert found.left_out["activations of the base, for an example"] == found.written["activations"]


def test_scores_stand_in_the_notes(exported: tuple[Path, Exported]) -> None:
    notes = [row["notes"] for row in every(exported[0], "explanations")]
    assert any("F1 0." in note and "by detection" in note for note in notes)
    assert all("labeled by" in note for note in notes)


def test_equal_runs_give_equal_bytes(
    exported: tuple[Path, Exported], run: Path, tmp_path: Path
) -> None:
    export_neuronpedia(run, tmp_path / "again", NAMES)
    files = [place for place in exported[0].rglob("*") if place.is_file()]
    for place in files:
        again = tmp_path / "again" / place.relative_to(exported[0])
        assert again.read_bytes() == place.read_bytes(), place.name


def test_batches_hold_no_more_than_they_may(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: tuple[Path, Exported]
) -> None:
    monkeypatch.setattr(neuronpedia, "BATCH", 2)
    found = export_neuronpedia(run, tmp_path / "small", NAMES)
    assert found == exported[1]
    batches = list((tmp_path / "small").rglob("features/batch-*.jsonl.gz"))
    assert len(batches) == found.written["features"] / 2
    key = "vectorLabel"
    assert sorted(row[key] for row in every(tmp_path / "small", "features")) == sorted(
        row[key] for row in every(exported[0], "features")
    )


def test_a_folder_that_is_there_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        export_neuronpedia(run, tmp_path, NAMES)
    part = tmp_path / "out.part"
    part.mkdir()
    with pytest.raises(ConfigError, match="in the way"):
        export_neuronpedia(run, tmp_path / "out", NAMES)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["mine", "out.part"]


def test_a_failure_leaves_nothing_and_the_rest_of_a_kill_is_taken_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoreError, match="no-such"), whole_folder(out) as folder:
        (folder / "no-such" / "a").touch()
    assert not list(tmp_path.iterdir())
    killed = tmp_path / "out.part"
    killed.mkdir()
    (killed / ".weightatlas-export").touch()
    (killed / "half").touch()
    with whole_folder(out) as folder:
        (folder / "whole").touch()
    assert [place.name for place in out.iterdir()] == ["whole"]
    assert not killed.exists()


def test_directions_of_other_weights_are_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    held = load_directions(run / "directions.safetensors")
    first = dataclasses.replace(held.directions[0], content_hash="f" * 16)
    changed = dataclasses.replace(held, directions=(first, *held.directions[1:]))
    save_directions(other / "directions.safetensors", changed)
    with pytest.raises(StoreError, match="other weights"):
        export_neuronpedia(other, tmp_path / "out", NAMES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["Pico Chat", "../up", "", "a" * 129, "pico.chat"])
def test_names_that_are_not_taken_there_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="names are of"):
        export_neuronpedia(run, tmp_path / "out", Names.of("x", model=name))


@given(st.text(max_size=40))
def test_any_run_name_becomes_one_that_is_taken(text: str) -> None:
    names = Names.of(text)
    assert neuronpedia._NAME.fullmatch(names.model)


@given(
    st.dictionaries(st.text(max_size=9), st.text(), max_size=4), st.sampled_from(["", "\\u0000"])
)
def test_a_line_survives_the_importers_search_for_nul(row: dict[str, str], extra: str) -> None:
    row["token"] = f"\\{extra}\0{extra}"
    text = line(row).decode("ascii")
    assert json.loads(text) == row
    assert text.count("\n") == 1
    # What importJsonlString of Neuronpedia does before it reads a line.
    imported = json.loads(text.replace("\\u0000", " "))
    assert imported == {
        key.replace("\0", " "): value.replace("\0", " ") for key, value in row.items()
    }


def test_the_command_says_what_it_wrote_and_left_out(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "run.toml").write_text('name = "pico-chat"\n[model]\ntuned = "x"\nbase = "y"\n')
    command = ["export", str(folder), "--to", "neuronpedia", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--model-id", "pico"]) == 0
    said = capsys.readouterr().out
    assert "features" in said
    assert "left out: " in said
    assert (tmp_path / "out" / "pico").is_dir()
    assert cli.main(command) == 2
    tables = ["export", str(folder), "--to", "parquet", "--out", str(tmp_path / "tables")]
    assert cli.main(tables) == 0
    assert (tmp_path / "tables" / "examples.parquet").is_file()
    assert cli.main([*tables, "--release", "x"]) == 2
