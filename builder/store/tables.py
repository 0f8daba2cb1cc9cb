"""Which files can others have of a run? Its tables as Parquet, and a clean copy of its database.

Tables name directions by id, and poles and roles by name, so that each can be read by itself.
Rows are sorted and written by one thread: equal databases give equal bytes. The copy of a database
equals it row by row, but DuckDB puts a random number into every file it makes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import duckdb

from builder.errors import DiskFullError, StoreError, is_disk_full
from builder.records import MODELS, POLES, ROLES
from builder.store.described import insert_meta
from builder.store.masks import MASKED, Mask, add_mask, masked_column
from builder.store.schema import SCHEMA, connect, remove

Level = Literal["tables", "examples", "database"]
#: What can be published, from least to most; each holds those before it.
LEVELS: tuple[Level, ...] = ("tables", "examples", "database")

#: Columns that hold an index, and the names by that index.
_NAMES = {"pole": POLES, "other_pole": POLES, "role": ROLES, "model": MODELS}
#: Tables without texts or activations, with what each holds.
TABLES: dict[str, str] = {
    "directions": "every direction: place, singular value, tokens by the logit lens, neighbours",
    "labels": "every label of every labeler, with where it comes from",
    "label_failures": "why a labeler gave no label",
    "scores": "how labels did on texts that their labeler never saw",
    "ranges": "extent, mean and spread of activations by role",
    "shifts": "how far tuning moved activations by role",
    "spectra": "singular values of every matrix",
    "sources": "sources of the most extreme documents, and whether they are enriched",
    "saturation": "how extremes grew with the corpus",
    "similar_labels": "poles that are said to respond to much the same",
    "spend": "what language models were asked, and what that cost",
    "counts": "documents, tokens, and what was left out",
}
#: Tables with texts or activations.
TEXTS: dict[str, str] = {
    "examples": "max-activating texts with an activation for each token",
    "quantile_examples": "activations of random documents in between",
    "reservoir": "the texts of those random documents",
    "histograms": "counts of activations in 400 bins",
}
#: Judged texts are most of the scores, and name places in lists that other tables hold.
_LEFT_OUT = {"scores": ("judged",)}
#: Bytes of the light tables of any run, and for each of its directions.
_TABLES_BYTES, _DIRECTION_BYTES = 30_000, 1_200
#: What all Parquet files take at most for each byte of the database.
_TEXTS_SHARE = 0.6


def tables_of(level: Level) -> dict[str, str]:
    """The tables that a level publishes, each with what it holds."""
    return TABLES if level == "tables" else TABLES | TEXTS


def write_tables(
    database: Path, folder: Path, level: Level, mask: Mask | None = None
) -> Iterator[Path]:
    """Writes the tables of a level as ``<table>.parquet`` (zstd) into ``folder``, one at a time.

    Texts go through ``mask``. Memory stays below that of a connection whatever the size. Raises
    StoreError if the database cannot be read or a file not be written.
    """
    try:
        with connect(database, read_only=True) as connection:
            connection.execute("SET threads = 1")
            add_mask(connection, mask)
            for table in tables_of(level):
                path = folder / f"{table}.parquet"
                connection.execute(
                    f"COPY ({_readable(connection, table)}) TO '{_quoted(path)}' "
                    "(FORMAT parquet, COMPRESSION zstd)"
                )
                yield path
    except duckdb.Error as error:
        raise _failure(folder, "the tables", error) from error


def copy_database(
    database: Path, target: Path, public: Callable[[Any], Any], mask: Mask | None = None
) -> None:
    """Makes ``target`` a database with the rows of ``database``, and nothing else of the file.

    What was deleted or replaced in a database stays in its unused blocks; a copy has none. Facts
    in ``meta`` pass through ``public``, which takes out what is nobody's business, and texts go
    through ``mask``.
    Raises StoreError if that fails; then there is no ``target``.
    """
    remove(target)
    try:
        with connect(target, read_only=False) as connection:
            connection.execute("SET threads = 1")
            connection.execute(f"ATTACH '{_quoted(database)}' AS origin (READ_ONLY)")
            connection.execute(SCHEMA)
            add_mask(connection, mask)
            for table in _tables(connection):
                if table == "meta":
                    rows = connection.execute("SELECT * FROM origin.meta ORDER BY key").fetchall()
                    facts = {key: public(json.loads(value)) for key, value in rows}
                    insert_meta(connection, facts)
                else:
                    shown = "".join(
                        f", {masked_column(table, column, column)} AS {column}"
                        for column in MASKED.get(table, ())
                    ).removeprefix(", ")
                    every = f"* REPLACE ({shown})" if shown else "*"
                    connection.execute(
                        f"INSERT INTO main.{table} SELECT {every} FROM origin.main.{table}"
                    )
            connection.execute("DETACH origin")
            connection.execute("CHECKPOINT")
    except duckdb.Error as error:
        remove(target)
        raise _failure(target, "the copy of the database", error) from error


def download_bytes(database: Path, level: Level) -> int:
    """About how many bytes the files of a level take for one run, rather more; writes nothing.

    The light tables by a measured rate for each direction, texts by that for each byte of the
    database; a copy of the database is about as large as it is. Raises StoreError without one.
    """
    if not database.is_file():
        raise StoreError(f"{database}: no database here; run `weightatlas scan` first")
    try:
        with connect(database, read_only=True) as connection:
            found = connection.execute("SELECT count(*) FROM directions").fetchall()
    except duckdb.Error as error:
        raise StoreError(f"{database}: cannot be read: {error}") from error
    size = database.stat().st_size
    total = _TABLES_BYTES + _DIRECTION_BYTES * int(found[0][0])
    if level != "tables":
        total += int(_TEXTS_SHARE * size)
    return total + (size if level == "database" else 0)


def _readable(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """A query for a table's rows in order, with names in place of indices."""
    columns = connection.sql(f"SELECT * FROM {table} LIMIT 0").columns
    numbered = table != "directions" and "direction" in columns
    chosen = []
    for column in columns:
        if column in _LEFT_OUT.get(table, ()):
            continue
        if numbered and column in ("direction", "other"):
            names = "directions" if column == "direction" else "others"
            chosen.append(f"{names}.id AS {column}")
        elif column in _NAMES and table != "spend":
            cases = " ".join(
                f"WHEN {index} THEN '{name}'" for index, name in enumerate(_NAMES[column])
            )
            chosen.append(f"CASE {table}.{column} {cases} END AS {column}")
        else:
            shown = masked_column(table, column, f"{table}.{column}")
            chosen.append(shown if shown == f"{table}.{column}" else f"{shown} AS {column}")
    source = table
    if numbered:
        source += f" JOIN directions ON directions.direction = {table}.direction"
    if "other" in columns:
        source += f" JOIN directions AS others ON others.direction = {table}.other"
    keys = [c for c in columns if c in _ORDER] or columns
    order = ", ".join(f"{table}.{key}" for key in keys)
    return f"SELECT {', '.join(chosen)} FROM {source} ORDER BY {order}"


#: Columns that tell the rows of every table apart; sorting by texts and lists would take memory.
_ORDER = (
    "direction", "pole", "role", "model", "layer", "matrix", "labeler", "candidate", "scorer",
    "split", "place", "any_place", "source", "doc_id", "stage", "what", "name",
)  # fmt: skip


def _tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    rows = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'origin' ORDER BY table_name"
    ).fetchall()
    return [name for (name,) in rows]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _failure(place: Path, what: str, error: duckdb.Error) -> StoreError:
    if is_disk_full(error):
        return DiskFullError(f"{place}: no space left for {what}")
    return StoreError(f"{place}: {what} could not be written: {error}")
