"""The table of spectral features: what it holds, and that it says nothing else."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from builder.errors import DiskFullError, StoreError
from builder.records import DirectionSet, Hookpoint, ModelRef, Spectrum
from builder.weights.spectra_file import SPECTRA_SCHEMA, save_spectra

DATA_MODEL = Path(__file__).parents[2] / "docs" / "data-model.md"


def example() -> DirectionSet:
    return DirectionSet(
        ModelRef("base"),
        ModelRef("/home/somebody/tuned"),
        "delta",
        5,
        1,
        (),
        (
            Spectrum(
                Hookpoint(0, "o_proj", "layers.0.o_proj"),
                (5, 12),
                np.arange(10, 0, -1, dtype=np.float32),
                20.0,
                4.0,
                space="heads",
                shuffled_floor=0.5,
            ),
            Spectrum(
                Hookpoint(0, "q_proj", "layers.0.q_proj"),
                (2, 5),
                np.array([1.0, 0.5], dtype=np.float32),
                1.2,
                1.44,
                side="right",
                space="heads",
                rounding_floor=0.1,
                is_full=True,
                entropy=0.6,
                concentration=0.7,
                effective_rank=1.9,
            ),
            Spectrum(Hookpoint(0, "v_proj"), (2, 5), np.zeros(0, dtype=np.float32), 0.0, 0.0),
        ),
    )


def test_each_matrix_is_a_row_and_what_does_not_exist_is_null(tmp_path: Path) -> None:
    save_spectra(tmp_path / "spectra.parquet", example())
    table = pq.read_table(tmp_path / "spectra.parquet")
    assert table.schema.equals(SPECTRA_SCHEMA)
    writer, reader, zero = table.to_pylist()
    assert (writer["matrix"], writer["side"], writer["space"]) == ("o_proj", "left", "heads")
    assert [writer[f"sigma_{place}"] for place in range(1, 9)] == [10, 9, 8, 7, 6, 5, 4, 3]
    assert writer["rounding_floor"] is writer["entropy"] is None
    assert (reader["d_out"], reader["d_in"], reader["side"]) == (2, 5, "right")
    assert (reader["sigma_2"], reader["sigma_3"]) == (0.5, None)
    assert (reader["is_full"], reader["effective_rank"]) == (True, 1.9)
    assert (zero["sigma_1"], zero["frobenius"]) == (None, 0.0)


def test_the_table_is_the_same_bytes_and_names_no_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_spectra(tmp_path / name, example())
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    assert b"somebody" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_full_disk_leaves_the_old_table_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spectra.parquet"
    save_spectra(path, example())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="no space left"):
        save_spectra(path, example())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        save_spectra(tmp_path / "no" / "spectra.parquet", example())


def test_every_column_is_documented() -> None:
    text = DATA_MODEL.read_text(encoding="utf-8")
    section = text[text.index("`spectra.parquet` —") : text.index("## Shard files")]
    for column in SPECTRA_SCHEMA.names:
        shown = re.sub(r"sigma_[2-7]$", "sigma_1", column)
        assert f"`{shown}`" in section, column
