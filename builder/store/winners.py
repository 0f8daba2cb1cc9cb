"""Which documents are the most extreme over all shards? A running best of each list.

Only narrow columns are compared, some shards at a time, against the best so far: one of those that
are the same up to the peak, one of each cluster of near-duplicates, then the most extreme by value,
ties by document and position. That is associative, so neither order nor number of the shards
changes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb

from builder.store.shards import Shard, chunks

#: What is equal but for rounding may be this much below the last of a list and still belong to one
#: that is in it.
_SLACK = 1e-5
#: Sorts the most extreme first at either pole.
EXTREME = "CASE pole WHEN 0 THEN -value ELSE value END"


@dataclass(frozen=True, slots=True)
class Contest:
    """Lists of winners, filled from one file of every shard into the table ``table``.

    A list is what has the same ``groups``; ``carried`` are further columns of the file that come
    along; ``ties`` decide among equal values. ``same`` names what one row stands for all of (the
    first by ``ties``), and ``repeats`` the column that counts the others, if the file has them.
    """

    file: str
    table: str
    groups: str
    carried: str
    ties: str
    best: int
    same: str = ""
    repeats: str = ""

    def run(
        self,
        connection: duckdb.DuckDBPyConnection,
        shards: Sequence[Shard],
        on_shards: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Fills the table: groups, carried columns, ``value``, ``doc_id`` (the run's), ``cluster``,
        ``shard`` (its index) and ``row`` (in the file). ``on_shards`` is told how many were read.
        """
        columns = f"{self.groups}, {self.carried}, value, doc_id, cluster"
        alone = "rivals"
        if self.same:
            alike = f"PARTITION BY {self.groups}, {self.same}"
            alone = (
                f"(SELECT * REPLACE ((sum({self.repeats} + 1) OVER ({alike}) - 1)::BIGINT "
                f"AS {self.repeats}) FROM rivals "
                f"QUALIFY row_number() OVER ({alike} ORDER BY {self.ties}) = 1)"
            )
        connection.execute(
            f"CREATE TEMP TABLE {self.table} AS SELECT {columns}, 0::INTEGER AS shard, "
            "0::BIGINT AS row FROM read_parquet($file) LIMIT 0",
            {"file": str(shards[0].folder / self.file)},
        )
        for chunk in chunks(shards, self.file):
            parts = " UNION ALL ".join(
                f"SELECT {self.groups}, {self.carried}, value, "
                f"doc_id + {shards[index].doc_offset} AS doc_id, cluster, {index} AS shard, "
                f"file_row_number AS row FROM read_parquet($f{index}, file_row_number = true)"
                for index in chunk
            )
            files = {f"f{index}": str(shards[index].folder / self.file) for index in chunk}
            connection.execute(
                f"""
                CREATE OR REPLACE TEMP TABLE {self.table} AS
                WITH bars AS (
                    SELECT {self.groups}, max({EXTREME}) AS bar FROM {self.table}
                    GROUP BY {self.groups} HAVING count(*) = {self.best}
                ), rivals AS (
                    SELECT * FROM {self.table}
                    UNION ALL
                    SELECT incoming.* FROM ({parts}) AS incoming LEFT JOIN bars
                    USING ({self.groups}) WHERE bar IS NULL OR {EXTREME} <= bar + {_SLACK}
                ), one_each AS (
                    SELECT * FROM {alone} QUALIFY row_number() OVER (
                        PARTITION BY {self.groups}, cluster
                        ORDER BY {EXTREME}, {self.ties}) = 1
                )
                SELECT * FROM one_each QUALIFY row_number() OVER (
                    PARTITION BY {self.groups} ORDER BY {EXTREME}, {self.ties})
                    <= {self.best}
                """,
                files,
            )
            on_shards(len(chunk))
