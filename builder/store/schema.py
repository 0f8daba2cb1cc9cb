"""The tables of ``run.duckdb`` and how a connection to it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

#: Raised when tables change; an older file is refused with the advice to merge again.
SCHEMA_VERSION = 6

SCHEMA = """
CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE directions (
    direction INTEGER PRIMARY KEY, id VARCHAR NOT NULL UNIQUE, content_hash VARCHAR NOT NULL,
    layer INTEGER NOT NULL, writer VARCHAR NOT NULL, module VARCHAR NOT NULL,
    rank INTEGER NOT NULL, kind VARCHAR NOT NULL, sigma DOUBLE, energy DOUBLE, residual DOUBLE,
    promoted STRUCT(token VARCHAR, logit FLOAT)[], suppressed STRUCT(token VARCHAR, logit FLOAT)[],
    gap DOUBLE, group_ranks INTEGER[] NOT NULL, reads STRUCT(source VARCHAR, share DOUBLE)[],
    neighbours STRUCT(id VARCHAR, cosine DOUBLE)[]);
CREATE TABLE spectra (
    layer INTEGER NOT NULL, matrix VARCHAR NOT NULL, module VARCHAR NOT NULL,
    d_out INTEGER NOT NULL, d_in INTEGER NOT NULL, side VARCHAR NOT NULL, space VARCHAR NOT NULL,
    frobenius DOUBLE NOT NULL, stable_rank DOUBLE, sigmas FLOAT[] NOT NULL,
    is_full BOOLEAN NOT NULL, entropy DOUBLE, concentration DOUBLE, effective_rank DOUBLE,
    shuffled_floor DOUBLE, rounding_floor DOUBLE);
CREATE TABLE examples (
    direction INTEGER NOT NULL, role UTINYINT NOT NULL, pole UTINYINT NOT NULL,
    place INTEGER, any_place INTEGER, value FLOAT NOT NULL, doc_id BIGINT NOT NULL,
    source VARCHAR NOT NULL, start INTEGER NOT NULL, peak INTEGER NOT NULL,
    duplicates BIGINT NOT NULL, repeats BIGINT NOT NULL, text VARCHAR NOT NULL,
    token_lengths UINTEGER[] NOT NULL, roles UTINYINT[] NOT NULL,
    activations SMALLINT[] NOT NULL, base_activations SMALLINT[]);
CREATE TABLE histograms (
    direction INTEGER NOT NULL, role UTINYINT NOT NULL, model UTINYINT NOT NULL,
    counts BIGINT[] NOT NULL);
CREATE TABLE ranges (
    direction INTEGER NOT NULL, role UTINYINT NOT NULL, model UTINYINT NOT NULL, n BIGINT NOT NULL,
    minimum FLOAT NOT NULL, maximum FLOAT NOT NULL, mean DOUBLE NOT NULL, std DOUBLE NOT NULL);
CREATE TABLE shifts (
    direction INTEGER NOT NULL, role UTINYINT NOT NULL, n BIGINT NOT NULL, mean DOUBLE NOT NULL,
    std DOUBLE NOT NULL, outside DOUBLE NOT NULL);
CREATE TABLE sources (
    direction INTEGER NOT NULL, pole UTINYINT NOT NULL, source VARCHAR NOT NULL,
    n BIGINT NOT NULL, tail BIGINT NOT NULL, documents BIGINT NOT NULL,
    all_documents BIGINT NOT NULL, p_value DOUBLE NOT NULL, q_value DOUBLE NOT NULL);
CREATE TABLE saturation (
    direction INTEGER NOT NULL, pole UTINYINT NOT NULL, documents BIGINT[] NOT NULL,
    extremes FLOAT[] NOT NULL, gain DOUBLE);
CREATE TABLE reservoir (
    place INTEGER PRIMARY KEY, split VARCHAR NOT NULL, doc_id BIGINT NOT NULL,
    source VARCHAR NOT NULL, start INTEGER NOT NULL, duplicates BIGINT NOT NULL,
    text VARCHAR NOT NULL, token_lengths UINTEGER[] NOT NULL, roles UTINYINT[] NOT NULL);
CREATE TABLE near_duplicates (doc_id BIGINT PRIMARY KEY, lowest BIGINT NOT NULL);
CREATE TABLE sample_peaks (
    direction INTEGER NOT NULL, highest SMALLINT[] NOT NULL, lowest SMALLINT[] NOT NULL);
CREATE TABLE quantile_examples (
    direction INTEGER NOT NULL, pole UTINYINT NOT NULL, place INTEGER NOT NULL,
    sample INTEGER NOT NULL, value FLOAT NOT NULL, peak INTEGER NOT NULL,
    activations SMALLINT[] NOT NULL, base_activations SMALLINT[]);
CREATE TABLE counts (
    what VARCHAR NOT NULL, name VARCHAR NOT NULL, layer INTEGER, n BIGINT NOT NULL);
CREATE TABLE labels (
    direction INTEGER NOT NULL, pole UTINYINT NOT NULL, labeler VARCHAR NOT NULL,
    candidate INTEGER NOT NULL, is_chosen BOOLEAN NOT NULL, text VARCHAR,
    explanation VARCHAR NOT NULL, keywords VARCHAR[] NOT NULL, kind VARCHAR NOT NULL,
    confidence DOUBLE, agreement DOUBLE, prompt_hash VARCHAR NOT NULL,
    example_docs BIGINT[] NOT NULL, prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL, cost DOUBLE, author VARCHAR NOT NULL,
    created VARCHAR NOT NULL, PRIMARY KEY (direction, pole, labeler, candidate));
CREATE TABLE label_failures (
    direction INTEGER NOT NULL, pole UTINYINT NOT NULL, labeler VARCHAR NOT NULL,
    candidate INTEGER NOT NULL, reason VARCHAR NOT NULL, detail VARCHAR NOT NULL,
    prompt_hash VARCHAR NOT NULL, prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL, cost DOUBLE,
    PRIMARY KEY (direction, pole, labeler, candidate));
CREATE TABLE scores (
    direction INTEGER NOT NULL, pole UTINYINT NOT NULL, labeler VARCHAR NOT NULL,
    candidate INTEGER NOT NULL, scorer VARCHAR NOT NULL, split VARCHAR NOT NULL,
    judge VARCHAR NOT NULL, text VARCHAR NOT NULL, f1 DOUBLE, auprc DOUBLE, f1_interval DOUBLE[],
    auprc_interval DOUBLE[], chance DOUBLE[], base_rate DOUBLE NOT NULL,
    between_share DOUBLE NOT NULL, n_positive BIGINT NOT NULL, n_negative BIGINT NOT NULL,
    unparsed BIGINT NOT NULL, faults MAP(VARCHAR, BIGINT) NOT NULL, prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL, cost DOUBLE,
    judged STRUCT(stratum UTINYINT, place INTEGER, doc_id BIGINT, truth BOOLEAN, verdict FLOAT,
                  weight DOUBLE, "first" INTEGER, length INTEGER, marked UINTEGER[])[] NOT NULL,
    PRIMARY KEY (direction, pole, labeler, candidate, scorer, split));
CREATE TABLE similar_labels (
    direction INTEGER NOT NULL, pole UTINYINT NOT NULL, place INTEGER NOT NULL,
    other INTEGER NOT NULL, other_pole UTINYINT NOT NULL, similarity DOUBLE NOT NULL,
    measure VARCHAR NOT NULL, PRIMARY KEY (direction, pole, place));
CREATE TABLE spend (
    stage VARCHAR NOT NULL, model VARCHAR NOT NULL, requests BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, unmetered BIGINT NOT NULL,
    cost DOUBLE, PRIMARY KEY (stage, model));
"""


#: What a connection may take in memory, unless told otherwise.
MEMORY = "1GB"


def connect(
    path: Path, *, read_only: bool, memory: str = MEMORY, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection that uses at most ``memory`` and spills beside the database."""
    # Extensions are never fetched: everything needed is built in, and the network is not ours.
    connection = duckdb.connect(
        str(path),
        read_only=read_only,
        config={
            "autoinstall_known_extensions": "false",
            "memory_limit": MEMORY,
            **({"threads": str(threads)} if threads else {}),
            "temp_directory": str(path.with_name(path.name + ".tmp")),
        },
    )
    # Set afterwards: a database that is open here already is opened again with the same settings
    # only, and then all connections to it have the latest.
    if memory != MEMORY:
        connection.execute("SET memory_limit = $1", [memory])
    # On by itself where Python has no script, as in worker processes; then it goes to stdout.
    connection.execute("SET enable_progress_bar = false")
    return connection


def remove(path: Path) -> None:
    """Deletes a database and its write-ahead log, if they are there."""
    for victim in (path, path.with_name(path.name + ".wal")):
        victim.unlink(missing_ok=True)


def insert_rows(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Inserts tuples in the order of the table's columns."""
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


def insert_records(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Inserts dictionaries whose keys are the columns of the table, all at once."""
    if not rows:
        return
    types = connection.sql(f"SELECT * FROM {table} LIMIT 0").to_arrow_table().schema
    insert_table(connection, table, pa.Table.from_pylist(list(rows), schema=types))


def insert_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Inserts an Arrow table whose columns are those of the table ``name``, in its order."""
    connection.register("incoming", table)
    connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
    connection.unregister("incoming")


def column_sizes(path: Path) -> dict[str, int]:
    """Bytes that each ``table.column`` of a database takes up, in whole blocks."""
    sizes: dict[str, int] = {}
    with connect(path, read_only=True) as connection:
        block: int = connection.execute("SELECT block_size FROM pragma_database_size()").fetchall()[
            0
        ][0]
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        for (table,) in tables:
            found = connection.execute(
                "SELECT column_name, count(DISTINCT block_id) FROM pragma_storage_info($table) "
                "WHERE persistent GROUP BY ALL",
                {"table": table},
            ).fetchall()
            for column, blocks in found:
                sizes[f"{table}.{column}"] = blocks * block
    return sizes
