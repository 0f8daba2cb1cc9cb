from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import DiskFullError, StoreError
from builder.records import Direction, DirectionSet, Hookpoint, ModelRef, Spectrum
from builder.weights import direction_file
from builder.weights.direction_file import load_directions, save_directions
from tests.weights import pico


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return bool(left.dtype == right.dtype and np.array_equal(left, right))
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, (Direction, DirectionSet, Hookpoint, ModelRef, Spectrum)):
        return all(_same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    return bool(left == right)


def _example() -> DirectionSet:
    generator = np.random.default_rng(0)
    place = Hookpoint(3, "o_proj", "model.layers.3.self_attn.o_proj")
    directions = (
        Direction(
            place,
            0,
            generator.standard_normal(5).astype(np.float32),
            "0123456789abcdef",
            sigma=1 / 3,
            energy=0.1,
            residual=1e-17,
            promoted=((" \u00e9t\u00e9\u202e", 1.1), ("</script>", -0.2)),
            suppressed=(("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), 2.0),),
            gap=1e-3,
            group=(0, 1, 7),
            reads=(("head 3", 1 / 3), ("head 0", 1e-17)),
            neighbours=(("L02.o_proj.u00", -0.3), ("L03.down_proj.u01", 0.0)),
        ),
        Direction(Hookpoint(3, "random"), 0, np.ones(5, dtype=np.float32), "f" * 16, "control"),
    )
    return DirectionSet(
        ModelRef("org/base", "c" * 40),
        ModelRef("tuned", kind="adapter"),
        "delta",
        5,
        4,
        directions,
        (
            Spectrum(place, (5, 9), np.array([2.0, 1 / 3], dtype=np.float32), 2.5, 1.7),
            Spectrum(Hookpoint(3, "down_proj"), (5, 7), np.zeros(0, dtype=np.float32), 0.0, 0.0),
            Spectrum(
                Hookpoint(3, "q_proj", "model.layers.3.self_attn.q_proj"),
                (8, 5),
                np.array([1.0], dtype=np.float32),
                1.0,
                1.0,
                side="right",
                space="heads",
                shuffled_floor=1 / 3,
                rounding_floor=1e-9,
                is_full=True,
                entropy=0.0,
                concentration=1.0,
                effective_rank=1.0,
            ),
        ),
        {"zero_matrices": "L03.down_proj"},
    )


def test_saved_directions_are_loaded_exactly(tmp_path: Path) -> None:
    path = tmp_path / "directions.safetensors"
    save_directions(path, _example())
    assert _same(load_directions(path), _example())
    assert [entry.name for entry in tmp_path.iterdir()] == ["directions.safetensors"]


def test_computed_directions_are_loaded_exactly(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    pico.save_tokenizer(tuned)
    found = pico.directions(base, tuned, random_controls=1, logit_lens_tokens=3)
    save_directions(tmp_path / "d.safetensors", found)
    assert _same(load_directions(tmp_path / "d.safetensors"), found)


@given(text=st.text(), logit=st.floats(allow_nan=False, allow_infinity=False))
def test_any_token_text_survives(
    tmp_path_factory: pytest.TempPathFactory, text: str, logit: float
) -> None:
    path = tmp_path_factory.mktemp("d") / "d.safetensors"
    example = _example()
    direction = replace(example.directions[0], promoted=((text, logit),))
    changed = replace(example, directions=(direction,), facts={text: text})
    save_directions(path, changed)
    assert _same(load_directions(path), changed)


def test_set_without_directions_is_loaded_exactly(tmp_path: Path) -> None:
    empty = replace(_example(), directions=(), spectra=(), base=None)
    save_directions(tmp_path / "d", empty)
    assert _same(load_directions(tmp_path / "d"), empty)


def test_same_directions_make_the_same_file(tmp_path: Path) -> None:
    made = set()
    for name in map(str, range(10)):
        save_directions(tmp_path / name, _example())
        made.add((tmp_path / name).read_bytes())
    assert len(made) == 1


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    save_directions(tmp_path / "d", _example())
    code = (
        "import sys; from pathlib import Path; "
        "from builder.weights.direction_file import load_directions; "
        f"load_directions(Path({str(tmp_path / 'd')!r})); "
        "print([m for m in ('torch', 'transformers', 'duckdb') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert result.stdout.strip() == "[]"


def test_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file; 'weightatlas directions' makes it"):
        load_directions(tmp_path / "directions.safetensors")


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "d"
    save_directions(path, _example())
    whole = path.read_bytes()
    generator = np.random.default_rng(1)
    for place in {0, len(whole) - 1, *generator.integers(0, len(whole), 60).tolist()}:
        damaged = bytearray(whole)
        damaged[place] ^= 0x04
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"d: is .*'weightatlas directions' again"):
            load_directions(path)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_file_is_refused_with_what_to_do(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "d"
    save_directions(path, _example())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError, match=r"is damaged .* remove it and run 'weightatlas direct"):
        load_directions(path)


def test_columns_that_say_something_else_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = direction_file._columns

    def longer(directions: DirectionSet) -> dict[str, Any]:
        return json.loads(json.dumps(original(directions))) | {"d_model": 6}  # type: ignore[no-any-return]

    monkeypatch.setattr(direction_file, "_columns", longer)
    save_directions(tmp_path / "d", _example())
    with pytest.raises(StoreError, match="its arrays do not fit its columns"):
        load_directions(tmp_path / "d")


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("directions", "rank", -1),
        ("directions", "group", [1.5]),
        ("directions", "neighbours", [["L00.o_proj.u00", "near"]]),
        ("directions", "reads", None),
        ("directions", "gap", "NaN"),
        ("spectra", "side", "both"),
        ("spectra", "count", -2),
        ("spectra", "is_full", 1),
        ("spectra", "shape", [5, 9, 1]),
        ("spectra", "more", 1),
    ],
)
def test_columns_that_no_save_writes_are_refused(
    table: str, column: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = direction_file._columns

    def changed(directions: DirectionSet) -> dict[str, Any]:
        columns: dict[str, Any] = json.loads(json.dumps(original(directions)))
        columns[table][0][column] = value
        return columns

    monkeypatch.setattr(direction_file, "_columns", changed)
    save_directions(tmp_path / "d", _example())
    with pytest.raises(StoreError, match=rf"is damaged \({table}.0.{column}"):
        load_directions(tmp_path / "d")


def test_vectors_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    example = _example()
    broken = replace(example.directions[0], vector=np.full(5, np.inf, dtype=np.float32))
    save_directions(tmp_path / "d", replace(example, directions=(broken,)))
    with pytest.raises(StoreError, match="hold what is no number"):
        load_directions(tmp_path / "d")


def test_file_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = direction_file._columns

    def older(directions: DirectionSet) -> dict[str, Any]:
        columns = original(directions) | {"format": "weightatlas directions 1"}
        del columns["directions"][0]["gap"]
        return columns

    monkeypatch.setattr(direction_file, "_columns", older)
    save_directions(tmp_path / "d", _example())
    with pytest.raises(StoreError, match="holds 'weightatlas directions 1', this is"):
        load_directions(tmp_path / "d")


def test_full_disk_leaves_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d"
    save_directions(path, _example())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="no space left"):
        save_directions(path, replace(_example(), facts={}))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        save_directions(tmp_path / "no" / "d", _example())
