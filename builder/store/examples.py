"""Which windows does the database show at each pole? Those of the documents that won.

Winners are found by their values alone (:mod:`builder.store.winners`); activations and texts are
read for them only, one shard at a time.
"""

from __future__ import annotations

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.activations.candidates import pool_size
from builder.errors import StoreError
from builder.records import CONTENT_ROLES
from builder.store.shards import Shard
from builder.store.winners import EXTREME, Contest


def example_contest(top: int) -> Contest:
    """The contest for every direction, role and pole, into the table ``best``.

    By the rule of :mod:`builder.activations.candidates`, step by step.
    """
    groups = "direction, role, pole"
    keep = f"""
        worths AS (
            SELECT *, min(extreme) OVER (PARTITION BY {groups}, prefix) AS worth FROM rivals
        ), one_each AS (
            SELECT * FROM worths QUALIFY row_number() OVER (
                PARTITION BY {groups}, cluster ORDER BY worth, prefix, doc_id, piece) = 1
        ), ranked AS (
            SELECT *, dense_rank() OVER (PARTITION BY {groups} ORDER BY worth, prefix) AS rank,
                   row_number() OVER (PARTITION BY {groups}, prefix ORDER BY doc_id) AS nth
            FROM one_each
        )
        SELECT * EXCLUDE (extreme, worth, nth) FROM ranked
        WHERE rank <= {pool_size(top)} AND nth <= {top}
    """
    carried = "piece, position, start, prefix"
    return Contest("examples.parquet", "best", groups, carried, keep, pool_size(top))


def choose_examples(connection: duckdb.DuckDBPyConnection, top: int) -> None:
    """The table ``chosen`` from ``best``: rows that stand for a reading in a list.

    ``place`` is the rank in the list of the role, ``any_place`` that in the list over all content
    roles, which takes each cluster once, by its best role; either may be NULL. ``repeats`` counts
    the further rows of the reading.
    """
    connection.execute(
        f"""
        CREATE TEMP TABLE chosen AS
        WITH held AS (
            SELECT *, count(*) OVER (PARTITION BY direction, role, pole, prefix) - 1 AS repeats,
                   row_number() OVER (
                       PARTITION BY direction, role, pole, prefix ORDER BY doc_id) AS nth,
                   min({EXTREME}) OVER (PARTITION BY direction, pole, prefix) AS worth
            FROM best
        ), one_role AS (
            SELECT * FROM held WHERE role < $content QUALIFY row_number() OVER (
                PARTITION BY direction, pole, cluster
                ORDER BY worth, role, prefix, doc_id) = 1
        ), over_roles AS (
            SELECT shard, row,
                   dense_rank() OVER (
                       PARTITION BY direction, pole ORDER BY worth, role, prefix) - 1 AS any_place,
                   row_number() OVER (
                       PARTITION BY direction, pole, role, prefix ORDER BY doc_id) AS any_nth
            FROM one_role
        ), over_one AS (
            SELECT shard, row, any_place FROM over_roles WHERE any_nth = 1 AND any_place < $top
        )
        SELECT held.* EXCLUDE (rank, nth, worth), any_place,
               CASE WHEN rank <= $top AND nth = 1 THEN rank - 1 END AS place
        FROM held LEFT JOIN over_one USING (shard, row)
        WHERE any_place IS NOT NULL OR (rank <= $top AND nth = 1)
        """,
        {"content": len(CONTENT_ROLES), "top": top},
    )
    connection.execute("DROP TABLE best")


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
            SELECT row, doc_id - $offset AS doc_id, piece, start FROM chosen WHERE shard = $index
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
    check_found(connection, "chosen", "windows", shards, index)


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


def insert_examples(connection: duckdb.DuckDBPyConnection) -> None:
    """Fills ``examples`` from ``chosen``, ``windows`` and ``copies`` (documents by cluster)."""
    connection.execute(
        """
        INSERT INTO examples
        SELECT direction, role, pole, place, any_place, value, doc_id, source, start,
               position - start AS peak, coalesce(copies.n, 0), repeats, text, token_lengths, roles,
               activations, base_activations
        FROM chosen JOIN windows USING (shard, row) LEFT JOIN copies USING (cluster)
        ORDER BY direction, pole, role, place, any_place
        """
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
