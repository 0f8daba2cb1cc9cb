"""Which windows does the database show at each pole? Those of the documents that won.

Winners are found by their values alone (:mod:`builder.store.winners`); activations and texts are
read for them only, one shard at a time.
"""

from __future__ import annotations

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.errors import StoreError
from builder.records import CONTENT_ROLES
from builder.store.shards import Shard
from builder.store.winners import EXTREME, Contest


def example_contest(top: int) -> Contest:
    """The contest for every direction, role and pole, into the table ``best``."""
    groups = "direction, role, pole"
    carried = "piece, position, start, prefix, repeats::BIGINT AS repeats"
    ties = "doc_id, position"
    return Contest("examples.parquet", "best", groups, carried, ties, top, "prefix", "repeats")


def create_windows(connection: duckdb.DuckDBPyConnection) -> None:
    """An empty table ``windows`` for :func:`fetch_windows`."""
    connection.execute(
        """
        CREATE TEMP TABLE windows (
            shard INTEGER, row BIGINT, source VARCHAR, text VARCHAR, token_lengths UINTEGER[],
            roles UTINYINT[], activations SMALLINT[], base_activations SMALLINT[])
        """
    )


def fetch_windows(connection: duckdb.DuckDBPyConnection, shards: list[Shard], index: int) -> None:
    """Adds the windows of one shard's winners to the table ``windows``."""
    connection.execute(
        """
        INSERT INTO windows
        WITH own AS (
            SELECT row, doc_id - $offset AS doc_id, piece, start FROM best WHERE shard = $index
        ), cut AS (
            SELECT own.*, activations, base_activations
            FROM own JOIN read_parquet($examples, file_row_number = true) AS incoming
            ON incoming.file_row_number = own.row
        )
        SELECT $index, row, source,
               window_text(text, token_ends, cut.start - first, len(activations)),
               window_lengths(token_ends, cut.start - first, len(activations)),
               roles[cut.start - first + 1 : cut.start - first + len(activations)],
               activations, base_activations
        FROM cut JOIN read_parquet($documents) AS pieces USING (doc_id, piece)
        """,
        {
            "index": index,
            "offset": shards[index].doc_offset,
            "examples": str(shards[index].folder / "examples.parquet"),
            "documents": str(shards[index].folder / "documents.parquet"),
        },
    )
    check_found(connection, "best", "windows", shards, index)


def check_found(
    connection: duckdb.DuckDBPyConnection, named: str, found: str, shards: list[Shard], index: int
) -> None:
    """Raises StoreError if a shard's rows in ``named`` and ``found`` are not equally many."""
    wanted, held = connection.execute(
        f"SELECT (SELECT count(*) FROM {named} WHERE shard = $index), "
        f"(SELECT count(*) FROM {found} WHERE shard = $index)",
        {"index": index},
    ).fetchall()[0]
    if wanted != held:
        folder = shards[index].folder
        raise StoreError(
            f"{folder}: names {wanted} windows, but its documents.parquet gives {held}; delete the "
            f"folder {folder} and run the same command again"
        )


def insert_examples(connection: duckdb.DuckDBPyConnection, top: int) -> None:
    """Fills ``examples`` from ``best``, ``windows`` and ``copies`` (further documents by cluster).

    ``any_place`` is the rank in the list that takes each cluster once, by its best content role.
    """
    connection.execute(
        f"""
        INSERT INTO examples
        WITH ranked AS (
            SELECT *, row_number() OVER (
                PARTITION BY direction, role, pole
                ORDER BY {EXTREME}, doc_id, position) - 1 AS place
            FROM best
        ), one_role AS (
            SELECT * FROM best WHERE role < $content
            QUALIFY row_number() OVER (
                PARTITION BY direction, pole, cluster
                ORDER BY {EXTREME}, role, doc_id, position) = 1
        ), any_role AS (
            SELECT shard, row, row_number() OVER (
                PARTITION BY direction, pole ORDER BY {EXTREME}, doc_id, position) - 1 AS any_place
            FROM one_role QUALIFY any_place < $top
        )
        SELECT direction, role, pole, place, any_place, value, doc_id, source, start,
               position - start AS peak, coalesce(copies.n, 0), repeats, text, token_lengths, roles,
               activations, base_activations
        FROM ranked JOIN windows USING (shard, row) LEFT JOIN any_role USING (shard, row)
        LEFT JOIN copies USING (cluster)
        ORDER BY direction, pole, role, place
        """,
        {"content": len(CONTENT_ROLES), "top": top},
    )


def register_copies(
    connection: duckdb.DuckDBPyConnection,
    clusters: tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]],
) -> None:
    """The table ``copies``: how many documents of a cluster are not its first."""
    connection.register("incoming", pa.table({"cluster": clusters[0], "n": clusters[1]}))
    connection.execute(
        "CREATE TEMP TABLE copies AS SELECT cluster::UBIGINT AS cluster, sum(n)::BIGINT AS n "
        "FROM incoming GROUP BY cluster"
    )
    connection.unregister("incoming")
