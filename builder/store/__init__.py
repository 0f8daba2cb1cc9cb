"""What is a run's database, and what does it hold? The only SQL of the project.

``run.duckdb`` is built in one go from the directions and the shard files of a scan
(:func:`write_database`), beside its final place and then renamed, so that a reader never meets half
a database and a killed merge leaves nothing behind. Labels are the one thing replaced later, in
one transaction. Everything is read through :class:`RunStore`.

DuckDB lets one process hold a file for writing and refuses all others meanwhile, so only the merge
and the label stage open it for writing.
"""

from __future__ import annotations

from builder.store.example_tables import AT_ONCE
from builder.store.masks import Mask
from builder.store.merge import NO_CLUSTERS, Clusters, write_database
from builder.store.overview_tables import LEAST_RARE, MOST_RARE, RARE
from builder.store.rows import (
    Bulk,
    Count,
    DirectionRow,
    ListedExample,
    Peak,
    Saturation,
    SourceShare,
)
from builder.store.run_store import RunStore
from builder.store.schema import column_sizes
from builder.store.shards import Shard
from builder.store.tables import (
    LEVELS,
    Level,
    copy_database,
    download_bytes,
    tables_of,
    write_tables,
)

__all__ = [
    "AT_ONCE",
    "LEAST_RARE",
    "LEVELS",
    "MOST_RARE",
    "NO_CLUSTERS",
    "RARE",
    "Bulk",
    "Clusters",
    "Count",
    "DirectionRow",
    "Level",
    "ListedExample",
    "Mask",
    "Peak",
    "RunStore",
    "Saturation",
    "Shard",
    "SourceShare",
    "column_sizes",
    "copy_database",
    "download_bytes",
    "tables_of",
    "write_database",
    "write_tables",
]
