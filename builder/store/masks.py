"""Which texts of a run are given out as something covered them? A function of SQL for that.

Scans, labels and scores read texts as they are; pages and files for others read them through a
mask. It is put where texts leave the database, so that no reader can forget it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import duckdb

#: From a text to what is shown of it, of the same length.
Mask = Callable[[str], str]

#: Columns of each table that hold text of the corpus, or what a labeler wrote about it.
MASKED = {
    "examples": ("text",),
    "reservoir": ("text",),
    "labels": ("text", "explanation", "keywords"),
    "label_failures": ("detail",),
    "scores": ("text",),
}
_NUMBERS = itertools.count()
_LISTS = frozenset({"keywords"})


def add_mask(connection: duckdb.DuckDBPyConnection, mask: Mask | None) -> None:
    """Makes ``masked(text)`` known to a connection; without a mask it gives the text itself."""
    function = "CAST(text AS VARCHAR)"
    if mask is not None:
        # All connections of a process to one file share their functions, but not their macros.
        name = f"masked_{next(_NUMBERS)}"
        # DuckDB takes functions only, no callable objects.
        connection.create_function(name, lambda text: mask(text), ["VARCHAR"], "VARCHAR")
        function = f"{name}(text)"
    connection.execute(f"CREATE OR REPLACE TEMP MACRO masked(text) AS {function}")


def masked_column(table: str, column: str, name: str) -> str:
    """``name``, which holds that column, as SQL gives it out."""
    if column not in MASKED.get(table, ()):
        return name
    if column in _LISTS:
        return f"list_transform({name}, lambda each: masked(each))"
    return f"masked({name})"


def masked_values(mask: Mask | None, row: dict[str, Any], table: str) -> dict[str, Any]:
    """A row by column with its texts as they are given out."""
    if mask is None:
        return row
    for column in MASKED[table]:
        value = row.get(column)
        if isinstance(value, str):
            row[column] = mask(value)
        elif value is not None:
            row[column] = [mask(each) for each in value]
    return row
