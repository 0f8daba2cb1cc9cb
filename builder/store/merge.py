"""How do shard files become a run's database?

Merging is associative and does not depend on the order of the shards: a document is kept by its
text (duplicates are counted, the copy with the lowest id stands for all), ties are broken by
document id and position, integers add exactly.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from builder.activations.shard_files import COUNTS_SCHEMA, STATS_SCHEMA, read_shard_file
from builder.errors import DiskFullError, StoreError, is_disk_full
from builder.records import CONTENT_ROLES, HISTOGRAM_BINS, ROLES, DirectionSet
from builder.store.schema import SCHEMA, SCHEMA_VERSION, connect, insert_rows, remove

#: A window's text and its token ends, cut from a document; lists and strings count from 1.
_MACROS = """
CREATE TEMP MACRO window_from(ends, start) AS
    CASE WHEN start = 0 THEN 0 ELSE ends[start]::BIGINT END;
CREATE TEMP MACRO window_text(text, ends, start, n) AS
    substring(text, window_from(ends, start) + 1,
              ends[start + n]::BIGINT - window_from(ends, start));
CREATE TEMP MACRO window_ends(ends, start, n) AS
    list_transform(ends[start + 1 : start + n],
                   lambda e: (e::BIGINT - window_from(ends, start))::UINTEGER);
"""


def write_database(
    path: Path,
    directions: DirectionSet,
    shards: Sequence[Path],
    *,
    top: int,
    reservoir: int,
    meta: Mapping[str, Any],
    counts: Sequence[tuple[str, str, int]] = (),
) -> None:
    """Builds ``path`` from shard folders (see the schemas above), atomically.

    Shards are merged in the order of their names, so the result does not depend on the order
    given. ``top`` examples are kept per direction, role and pole, ``reservoir`` random documents.
    ``counts`` are further (what, name, n) rows, such as what was dropped before the scan.
    Raises StoreError when a shard cannot be read or the disk is full.
    """
    part = path.with_name(path.name + ".part")
    remove(part)
    ordered = sorted(shards, key=lambda shard: shard.name)
    try:
        with contextlib.closing(connect(part, read_only=False)) as connection:
            connection.execute(SCHEMA)
            connection.execute(_MACROS)
            connection.execute("BEGIN")
            _insert_meta(connection, {"schema_version": SCHEMA_VERSION, **meta})
            _insert_directions(connection, directions)
            _merge_stats(connection, ordered, len(directions.directions))
            _merge_examples(connection, ordered, top)
            _merge_reservoir(connection, ordered, reservoir)
            _merge_counts(connection, ordered, counts)
            connection.execute("COMMIT")
            connection.execute("CHECKPOINT")
        part.replace(path)
        remove(path.with_name(path.name + ".wal"))
    except StoreError:
        remove(part)
        raise
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        remove(part)
        if is_disk_full(error):
            raise DiskFullError(
                f"{path}: no space left; free some and run again, finished shards are kept"
            ) from error
        raise StoreError(
            f"{path}: the merge failed and nothing was changed: {error}\n"
            "if a file of a shard is missing or damaged, delete that shard's folder and run the "
            "same command again"
        ) from error


def _insert_meta(connection: duckdb.DuckDBPyConnection, meta: Mapping[str, Any]) -> None:
    insert_rows(connection, "meta", [(key, json.dumps(meta[key])) for key in sorted(meta)])


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _insert_directions(connection: duckdb.DuckDBPyConnection, directions: DirectionSet) -> None:
    tokens = ("token", "logit", pa.float32())
    items = directions.directions
    table = pa.table(
        {
            "direction": pa.array(range(len(items)), pa.int32()),
            "id": [item.id for item in items],
            "content_hash": [item.content_hash for item in items],
            "layer": pa.array([item.hookpoint.layer for item in items], pa.int32()),
            "writer": [item.hookpoint.writer for item in items],
            "module": [item.hookpoint.module for item in items],
            "rank": pa.array([item.rank for item in items], pa.int32()),
            "kind": [item.kind for item in items],
            "sigma": pa.array([_finite(item.sigma) for item in items], pa.float64()),
            "energy": pa.array([_finite(item.energy) for item in items], pa.float64()),
            "residual": pa.array([_finite(item.residual) for item in items], pa.float64()),
            "promoted": _pairs([item.promoted for item in items], *tokens),
            "suppressed": _pairs([item.suppressed for item in items], *tokens),
            "gap": pa.array([_finite(item.gap) for item in items], pa.float64()),
            "group_ranks": pa.array([item.group for item in items], pa.list_(pa.int32())),
            "reads": _pairs([item.reads for item in items], "source", "share", pa.float64()),
            "neighbours": _pairs([i.neighbours for i in items], "id", "cosine", pa.float64()),
        }
    )
    connection.register("incoming", table)
    connection.execute("INSERT INTO directions SELECT * FROM incoming")
    connection.unregister("incoming")
    insert_rows(
        connection,
        "spectra",
        [
            (
                item.hookpoint.layer,
                item.hookpoint.writer,
                item.hookpoint.module,
                *item.shape,
                item.side,
                item.space,
                item.frobenius,
                _finite(item.stable_rank),
                item.sigmas.tolist(),
                item.is_full,
                _finite(item.entropy),
                _finite(item.concentration),
                _finite(item.effective_rank),
                _finite(item.shuffled_floor),
                _finite(item.rounding_floor),
            )
            for item in directions.spectra
        ],
    )


def _pairs(
    rows: Sequence[Sequence[tuple[str, float]]], name: str, number: str, kind: pa.DataType
) -> pa.Array:
    """A list of (name, number) per row, as DuckDB takes it in."""
    form = pa.list_(pa.struct([(name, pa.string()), (number, kind)]))
    return pa.array([[{name: text, number: value} for text, value in row] for row in rows], form)


def _merge_stats(
    connection: duckdb.DuckDBPyConnection, shards: Sequence[Path], n_directions: int
) -> None:
    """Adds up histograms and moments, one shard in memory at a time, in the order given."""
    shape = (n_directions, len(ROLES))
    counts: npt.NDArray[np.int64] = np.zeros((*shape, HISTOGRAM_BINS), dtype=np.int64)
    n = np.zeros(shape, dtype=np.int64)
    total, squares = np.zeros(shape), np.zeros(shape)
    low = np.full(shape, np.inf, dtype=np.float32)
    high = np.full(shape, -np.inf, dtype=np.float32)
    for shard in tqdm(shards, "merge", unit=" shards", delay=1, disable=None):
        table = read_shard_file(shard, "stats.parquet", STATS_SCHEMA)
        at = (table["direction"].to_numpy(), table["role"].to_numpy())
        n[at] += table["n"].to_numpy()
        total[at] += table["total"].to_numpy()
        squares[at] += table["squares"].to_numpy()
        low[at] = np.minimum(low[at], table["minimum"].to_numpy())
        high[at] = np.maximum(high[at], table["maximum"].to_numpy())
        flat = table["counts"].combine_chunks().flatten().to_numpy()
        counts[at] += flat.reshape(-1, HISTOGRAM_BINS)
    where = np.nonzero(n)
    direction = pa.array(where[0], pa.int32())
    role = pa.array(where[1], pa.uint8())
    mean = total[where] / n[where]
    variance = np.maximum(squares[where] / n[where] - mean**2, 0.0)
    ranges = pa.table(
        {
            "direction": direction,
            "role": role,
            "n": n[where],
            "minimum": low[where],
            "maximum": high[where],
            "mean": mean,
            "std": np.sqrt(variance),
        }
    )
    histograms = pa.table(
        {
            "direction": direction,
            "role": role,
            "counts": pa.FixedSizeListArray.from_arrays(counts[where].ravel(), HISTOGRAM_BINS),
        }
    )
    for name, table in (("ranges", ranges), ("histograms", histograms)):
        connection.register("incoming", table)
        connection.execute(f"INSERT INTO {name} SELECT * FROM incoming")
        connection.unregister("incoming")


def _merge_examples(
    connection: duckdb.DuckDBPyConnection, shards: Sequence[Path], top: int
) -> None:
    """Keeps the ``top`` documents of every direction, role and pole over all shards.

    Texts that occur several times count once: the copy with the lowest document id stands for
    them, and ``duplicates`` says how many more there are.
    """
    files = [str(shard / "examples.parquet") for shard in shards]
    if not files:
        return
    connection.execute(
        """
        CREATE TEMP TABLE kept AS
        WITH distinct_texts AS (
            SELECT direction, role, pole, text_hash, min(doc_id) AS doc_id,
                   sum(duplicates + 1) - 1 AS duplicates
            FROM read_parquet($files) GROUP BY ALL
        ), best AS (
            SELECT all_rows.* EXCLUDE (duplicates), distinct_texts.duplicates
            FROM read_parquet($files) AS all_rows
            JOIN distinct_texts USING (direction, role, pole, text_hash, doc_id)
        )
        SELECT *, row_number() OVER (
            PARTITION BY direction, role, pole
            ORDER BY CASE pole WHEN 0 THEN -value ELSE value END, doc_id, position) - 1 AS place
        FROM best QUALIFY place < $top
        """,
        {"files": files, "top": top},
    )
    connection.execute(
        """
        INSERT INTO examples
        WITH one_role AS (
            SELECT direction, role, pole, text_hash, value, doc_id, position FROM kept
            WHERE role < $content
            QUALIFY row_number() OVER (
                PARTITION BY direction, pole, text_hash
                ORDER BY CASE pole WHEN 0 THEN -value ELSE value END, role) = 1
        ), any_role AS (
            SELECT direction, role, pole, text_hash, row_number() OVER (
                PARTITION BY direction, pole
                ORDER BY CASE pole WHEN 0 THEN -value ELSE value END, doc_id, position) - 1
                AS any_place
            FROM one_role QUALIFY any_place < $top
        ), texts AS (
            SELECT * FROM read_parquet($documents)
            WHERE doc_id IN (SELECT doc_id FROM kept)
        )
        SELECT direction, role, pole, place, any_place, value, doc_id, source, start,
               position - start AS peak, duplicates,
               window_text(text, token_ends, start, len(activations)),
               window_ends(token_ends, start, len(activations)),
               activations, texts.roles[start + 1 : start + len(activations)]
        FROM kept LEFT JOIN any_role USING (direction, role, pole, text_hash)
        JOIN texts USING (doc_id)
        ORDER BY direction, pole, role, place
        """,
        {
            "content": len(CONTENT_ROLES),
            "top": top,
            "documents": [str(shard / "documents.parquet") for shard in shards],
        },
    )
    connection.execute("DROP TABLE kept")


def _merge_reservoir(
    connection: duckdb.DuckDBPyConnection, shards: Sequence[Path], reservoir: int
) -> None:
    if not shards:
        return
    connection.execute(
        """
        INSERT INTO reservoir
        WITH one_text AS (
            SELECT * FROM read_parquet($files)
            QUALIFY row_number() OVER (PARTITION BY text_hash ORDER BY doc_id) = 1
        ), chosen AS (
            SELECT row_number() OVER (ORDER BY priority, doc_id) - 1 AS place, *
            FROM one_text QUALIFY place < $reservoir
        )
        SELECT place, doc_id, source, start, window_text(text, token_ends, start, length),
               window_ends(token_ends, start, length),
               texts.roles[start + 1 : start + length]
        FROM chosen JOIN read_parquet($documents) AS texts USING (doc_id) ORDER BY place
        """,
        {
            "files": [str(shard / "reservoir.parquet") for shard in shards],
            "documents": [str(shard / "documents.parquet") for shard in shards],
            "reservoir": reservoir,
        },
    )


def _merge_counts(
    connection: duckdb.DuckDBPyConnection,
    shards: Sequence[Path],
    further: Sequence[tuple[str, str, int]],
) -> None:
    rows = [{"what": what, "name": name, "layer": None, "n": n} for what, name, n in further]
    tables = [read_shard_file(shard, "counts.parquet", COUNTS_SCHEMA) for shard in shards]
    incoming = pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema=COUNTS_SCHEMA)])
    connection.register("incoming", incoming)
    connection.execute(
        "INSERT INTO counts SELECT what, name, layer, sum(n) FROM incoming "
        "GROUP BY ALL ORDER BY ALL"
    )
    connection.unregister("incoming")
