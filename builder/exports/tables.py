"""How does a run become Parquet files? Every table, texts and activations included."""

from __future__ import annotations

from pathlib import Path

from builder.exports.written import whole_folder
from builder.store import RunStore, write_tables


def export_tables(run: Path, out: Path) -> int:
    """Writes the tables of the run in folder ``run`` into ``out``; returns how many.

    Raises ConfigError if ``out`` is there already, StoreError if the run cannot be read or ``out``
    cannot be written.
    """
    database = run / "run.duckdb"
    RunStore(database).close()  # a database of another version is told as such
    with whole_folder(out) as folder:
        return sum(1 for _ in write_tables(database, folder, "examples"))
