"""Which documents are the most extreme over all shards? A running best of each list.

Only narrow columns are compared, some shards at a time, against the best so far. What is kept of
rivals is the contest's own (:mod:`builder.store.examples`, :mod:`builder.store.tails`), by rules
that neither the order nor the number of the shards changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb

from builder.store.shards import Shard, chunks

#: What is equal but for rounding may be this much below the last of a list and still belong to it.
SLACK = 1e-5
#: Sorts the most extreme first at either pole.
EXTREME = "CASE pole WHEN 0 THEN -value ELSE value END"


@dataclass(frozen=True, slots=True)
class Contest:
    """Lists of winners, filled from one file of every shard into the table ``table``.

    A list is what has the same ``groups``; ``carried`` are further columns of the file that come
    along. ``keep`` makes of the table ``rivals`` what stays, with ``rank``, the place from 1; a
    list whose ranks reach ``places`` is full.
    """

    file: str
    table: str
    groups: str
    carried: str
    keep: str
    places: int

    def run(
        self,
        connection: duckdb.DuckDBPyConnection,
        shards: Sequence[Shard],
        on_shards: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Fills the table: groups, carried columns, ``value``, ``doc_id`` (the run's), ``cluster``,
        ``shard`` (its index), ``row`` (in the file) and ``rank``. ``on_shards`` is told how many
        were read.
        """
        columns = f"{self.groups}, {self.carried}, value, doc_id, cluster"
        connection.execute(
            f"CREATE TEMP TABLE {self.table} AS SELECT {columns}, 0::INTEGER AS shard, "
            "0::BIGINT AS row, 0::BIGINT AS rank FROM read_parquet($file) LIMIT 0",
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
                    GROUP BY {self.groups} HAVING max(rank) >= {self.places}
                ), rivals AS (
                    SELECT * EXCLUDE (rank), {EXTREME} AS extreme FROM {self.table}
                    UNION ALL
                    SELECT incoming.*, {EXTREME} FROM ({parts}) AS incoming LEFT JOIN bars
                    USING ({self.groups}) WHERE bar IS NULL OR {EXTREME} <= bar + {SLACK}
                ), {self.keep}
                """,
                files,
            )
            on_shards(len(chunk))
