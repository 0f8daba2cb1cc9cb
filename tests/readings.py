"""The rule of the lists of examples, written down once more in plain Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Row = dict[str, Any]


def readings(rows: list[Row]) -> list[list[Row]]:
    """The rows of one list by reading, best first; of each cluster one, at its best reading."""
    worth: defaultdict[int, float] = defaultdict(lambda: 9.0)
    for row in rows:
        worth[row["prefix"]] = min(worth[row["prefix"]], (1, -1)[row["pole"] == 0] * row["value"])

    def order(row: Row) -> tuple[Any, ...]:
        return (worth[row["prefix"]], row["prefix"], row["doc_id"], row["piece"])

    clusters: dict[int, Row] = {}
    for row in sorted(rows, key=order):
        clusters.setdefault(row["cluster"], row)
    found: dict[int, list[Row]] = {}
    for row in sorted(clusters.values(), key=order):
        found.setdefault(row["prefix"], []).append(row)
    return list(found.values())
