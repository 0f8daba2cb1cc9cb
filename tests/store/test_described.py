"""What is merged into a run's database is read out of it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.config import ScanSettings
from builder.errors import StoreError
from builder.records import READERS, WRITERS
from builder.store import RunStore, schema, write_database
from tests.pages.directed import fixture_directions


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return bool(np.array_equal(left, right))
    if isinstance(left, float) and math.isnan(left):
        return right is None or math.isnan(right)
    return bool(left == right)


def test_directions_and_spectra_are_read_as_they_were_merged(tmp_path: Path) -> None:
    directions = fixture_directions(np.random.default_rng(0), "run", 2, 3)
    path = tmp_path / "run.duckdb"
    write_database(path, directions, [], settings=ScanSettings(), meta={})
    with RunStore(path) as store:
        rows, spectra = store.directions(), store.spectra()
    assert len(rows) == len(directions.directions)
    for row, item in zip(rows, directions.directions, strict=True):
        for field in dataclasses.fields(item):
            if field.name in {"promoted", "suppressed"}:  # logits are kept in float32
                continue
            if field.name != "vector":
                assert same(getattr(item, field.name), getattr(row, field.name)), field.name
    order = [(item.hookpoint.layer, item.hookpoint.writer) for item in spectra]
    assert order == [(layer, name) for layer in (0, 1) for name in (*WRITERS, *READERS)]
    merged = {item.hookpoint: item for item in directions.spectra}
    for spectrum in spectra:
        for field in dataclasses.fields(spectrum):
            given = getattr(merged[spectrum.hookpoint], field.name)
            assert same(given, getattr(spectrum, field.name)), field.name


def test_a_database_of_another_schema_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directions = fixture_directions(np.random.default_rng(0), "run", 1, 1)
    path = tmp_path / "run.duckdb"
    with monkeypatch.context() as patched:
        patched.setattr("builder.store.merge.SCHEMA_VERSION", schema.SCHEMA_VERSION - 1)
        write_database(path, directions, [], settings=ScanSettings(), meta={})
    old, new = schema.SCHEMA_VERSION - 1, schema.SCHEMA_VERSION
    said = rf"schema {old}, this .* reads {new}; delete it and run .*scan"
    with pytest.raises(StoreError, match=said):
        RunStore(path)
