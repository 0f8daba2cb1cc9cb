"""A finished shard can be read, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.activations.shard_files import COUNTS_SCHEMA, read_counts
from builder.errors import StoreError


def write_counts(shard: Path, **columns: Any) -> Path:
    table = {"what": ["documents"], "name": ["s"], "layer": [None], "n": [3], **columns}
    shard.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pydict(table, schema=COUNTS_SCHEMA), shard / "counts.parquet")
    return shard / "counts.parquet"


def test_counts_come_back_as_written(tmp_path: Path) -> None:
    write_counts(tmp_path / "000000-ab")
    assert read_counts(tmp_path / "000000-ab") == [("documents", "s", 3)]


def not_utf8() -> pa.Array:
    return pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other columns", "not UTF-8"])
def test_a_shard_without_sound_counts_is_to_be_deleted(tmp_path: Path, damage: str) -> None:
    shard = tmp_path / "000000-ab"
    path = write_counts(shard)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "other columns":
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        write_counts(shard, name=not_utf8())
    with pytest.raises(
        StoreError, match=rf"counts\.parquet: is .*delete the folder {shard} and run the same"
    ):
        read_counts(shard)
