"""How do shard files become a run's database? In which order are its tables filled?

Merging is associative and depends neither on the order of the shards nor on how often one is given:
integers add exactly, floats within rounding, near-duplicates are one by their cluster, and ties are
broken by document and position. Rows stand in the same order every time.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from builder.activations.shard_files import COUNTS_SCHEMA, read_shard_file
from builder.config import ScanSettings
from builder.errors import DiskFullError, StoreError, is_disk_full
from builder.records import DirectionSet
from builder.store.described import insert_directions, insert_meta
from builder.store.examples import (
    choose_examples,
    create_windows,
    example_contest,
    fetch_windows,
    insert_examples,
    register_copies,
)
from builder.store.samples import (
    choose_samples,
    fetch_sample_windows,
    insert_near_duplicates,
    insert_peaks_and_quantiles,
    insert_reservoir,
)
from builder.store.schema import SCHEMA, SCHEMA_VERSION, connect, insert_table, remove
from builder.store.shards import Shard, distinct_shards
from builder.store.statistics import StatsMerge, insert_saturation
from builder.store.tails import insert_sources, tail_contest
from builder.store.windows import MACROS

#: Of DuckDB's own; with Python's and Arrow's a merge stays below 1 GB.
_MEMORY = "400MB"

Clusters = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]
NO_CLUSTERS: Clusters = (np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64))


def write_database(
    path: Path,
    directions: DirectionSet,
    shards: Sequence[Shard],
    *,
    settings: ScanSettings,
    meta: Mapping[str, Any],
    clusters: Clusters = NO_CLUSTERS,
    counts: Sequence[tuple[str, str, int]] = (),
) -> None:
    """Builds ``path`` from finished shards (see SHARD_FILES), atomically.

    Of ``settings`` it follows how much is kept: ``top``, ``tail``, ``reservoir``, ``held_out``,
    ``quantiles``. ``clusters``: of clusters of near-duplicates, the documents that are not the
    first (a cluster may stand there several times). ``counts`` are further (what, name, n) rows,
    such as what was dropped before the scan. Raises StoreError when a shard cannot be read or the
    disk is full.
    """
    part = path.with_name(path.name + ".part")
    remove(part)
    try:
        with contextlib.closing(connect(part, read_only=False, memory=_MEMORY)) as connection:
            connection.execute(SCHEMA)
            connection.execute(MACROS)
            connection.execute("BEGIN")
            insert_meta(connection, {"schema_version": SCHEMA_VERSION, **meta})
            insert_directions(connection, directions)
            register_copies(connection, clusters)
            _merge(
                connection, distinct_shards(shards), len(directions.directions), settings, counts
            )
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


def _merge(
    connection: duckdb.DuckDBPyConnection,
    shards: list[Shard],
    n_directions: int,
    settings: ScanSettings,
    further: Sequence[tuple[str, str, int]],
) -> None:
    counted = _insert_counts(connection, shards, further)
    if not shards:
        return
    stats = StatsMerge(n_directions)
    # Every shard is gone through for its statistics, for two contests, and for what won in them.
    with tqdm(None, "merge", total=4 * len(shards), unit=" steps", delay=1, disable=None) as bar:
        for shard in shards:
            stats.add(shard)
            bar.update()
        stats.insert(connection)
        tail_contest(settings.tail).run(connection, shards, bar.update)
        insert_sources(connection, n_directions, _of(counted, "distinct"), _lengths(counted))
        connection.execute("DROP TABLE tail")
        levels = {int(name): n for name, n in _of(counted, "levels").items()}
        insert_saturation(connection, shards, stats.content_spread(), levels)
        del stats
        example_contest(settings.top).run(connection, shards, bar.update)
        choose_examples(connection, settings.top)
        choose_samples(connection, shards, settings.reservoir, settings.held_out)
        create_windows(connection)
        for index in range(len(shards)):
            fetch_windows(connection, shards, index)
            fetch_sample_windows(connection, shards, index)
            bar.update()
    insert_examples(connection)
    insert_reservoir(connection)
    insert_near_duplicates(connection)
    insert_peaks_and_quantiles(connection, shards, n_directions, settings.quantiles)


def _insert_counts(
    connection: duckdb.DuckDBPyConnection,
    shards: Sequence[Shard],
    further: Sequence[tuple[str, str, int]],
) -> Counter[tuple[str, str]]:
    """Fills ``counts``; returns the sums by (what, name)."""
    rows = [{"what": what, "name": name, "layer": None, "n": n} for what, name, n in further]
    tables = [read_shard_file(shard.folder, "counts.parquet", COUNTS_SCHEMA) for shard in shards]
    incoming = pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema=COUNTS_SCHEMA)])
    summed = incoming.group_by(["what", "name", "layer"]).aggregate([("n", "sum")])
    summed = summed.rename_columns(["what", "name", "layer", "n"])
    order = [(name, "ascending") for name in ("what", "name", "layer")]
    insert_table(connection, "counts", summed.sort_by(order))
    found: Counter[tuple[str, str]] = Counter()
    for row in summed.to_pylist():
        found[row["what"], row["name"]] += row["n"]
    return found


def _lengths(counted: Counter[tuple[str, str]]) -> dict[str, dict[int, int]]:
    """Per source, how many of its distinct documents are in each class of length."""
    found: dict[str, dict[int, int]] = {}
    for name, n in _of(counted, "length").items():
        length, _, source = name.partition(" ")
        found.setdefault(source, {})[int(length)] = n
    return found


def _of(counted: Counter[tuple[str, str]], what: str) -> dict[str, int]:
    return {name: n for (kind, name), n in counted.items() if kind == what}
