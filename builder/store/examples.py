"""Which windows does the database show at each pole? Those of the documents that won.

Winners are found by their values alone (:mod:`builder.store.winners`); activations and texts are
read for them only, one shard at a time.
"""

from __future__ import annotations

import itertools

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builder.activations.candidates import depth, standing
from builder.errors import StoreError
from builder.records import CONTENT_ROLES
from builder.store.shards import Shard
from builder.store.winners import EXTREME, Contest


def example_contest(top: int) -> Contest:
    """The contest for every direction, role and pole, into the table ``best``.

    By the rule of :func:`builder.activations.candidates.best_candidates`, step by step; ``rank``
    counts the readings that hold a cluster which no better one holds.
    """
    groups = "direction, role, pole"
    keep = f"""
        worths AS (
            SELECT *, min(extreme) OVER (PARTITION BY {groups}, prefix) AS worth FROM rivals
        ), one_each AS (
            SELECT * FROM worths QUALIFY row_number() OVER (
                PARTITION BY {groups}, prefix, cluster ORDER BY doc_id, piece) = 1
        ), of_clusters AS (
            SELECT *, row_number() OVER (
                PARTITION BY {groups}, cluster ORDER BY worth, prefix) AS of_cluster
            FROM one_each QUALIFY of_cluster <= {top}
        ), of_readings AS (
            SELECT *, row_number() OVER (
                PARTITION BY {groups}, prefix ORDER BY doc_id) AS of_reading
            FROM of_clusters QUALIFY of_reading <= {top}
        ), brought AS (
            SELECT *, of_reading = 1 AND bool_or(of_cluster = 1) OVER (
                PARTITION BY {groups}, prefix) AS brings
            FROM of_readings
        ), ranked AS (
            SELECT *, (sum(brings::INTEGER) OVER (
                PARTITION BY {groups} ORDER BY worth, prefix))::BIGINT AS rank,
                bool_or(brings) OVER (PARTITION BY {groups}, prefix) AS own
            FROM brought
        )
        SELECT * EXCLUDE (extreme, worth, of_cluster, of_reading, brings, own) FROM ranked
        WHERE rank - own::INTEGER < {depth(top)}
    """
    carried = "piece, position, start, prefix"
    return Contest("examples.parquet", "best", groups, carried, keep, depth(top))


def choose_examples(connection: duckdb.DuckDBPyConnection, top: int) -> None:
    """The table ``chosen`` from ``best``: rows that stand for a reading in a list.

    ``place`` is the rank in the list of the role, ``any_place`` that in the list over all content
    roles; either may be NULL. ``repeats`` counts the further rows of the reading.
    """
    held = connection.execute(
        f"""
        SELECT direction, pole, role, shard, row, prefix, cluster FROM (
            SELECT *, min({EXTREME}) OVER (PARTITION BY direction, role, pole, prefix) AS worth
            FROM best)
        ORDER BY direction, pole, worth, role, prefix, doc_id
        """
    ).fetchnumpy()
    names = ("direction", "pole", "role", "shard", "row", "prefix", "cluster")
    rows = list(zip(*(held[name].tolist() for name in names), strict=True))
    places: dict[tuple[int, int, int], list[int | None]] = {}
    for _, both in itertools.groupby(rows, key=lambda row: row[:2]):
        listed = list(both)
        for role in (None, *sorted({row[2] for row in listed})):
            own = (
                ((row[2:5]), (row[2], row[5]), row[6])
                for row in listed
                if (row[2] < len(CONTENT_ROLES) if role is None else row[2] == role)
            )
            for place, (key, repeats) in enumerate(standing(own, top)):
                found = places.setdefault(key, [None, None, repeats])
                found[0 if role is None else 1] = place
    incoming = pa.table(
        {
            "shard": pa.array([key[1] for key in places], pa.int32()),
            "row": pa.array([key[2] for key in places], pa.int64()),
            "any_place": pa.array([found[0] for found in places.values()], pa.int32()),
            "place": pa.array([found[1] for found in places.values()], pa.int32()),
            "repeats": pa.array([found[2] for found in places.values()], pa.int64()),
        }
    )
    connection.register("incoming", incoming)
    connection.execute(
        "CREATE TEMP TABLE chosen AS SELECT best.* EXCLUDE (rank), any_place, place, repeats "
        "FROM best JOIN incoming USING (shard, row)"
    )
    connection.unregister("incoming")
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
