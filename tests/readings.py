"""The rule of the lists of examples, written down once more in plain Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Row = dict[str, Any]


def stand(rows: list[Row], top: int) -> list[Row]:
    """What stands for each reading of a list, most extreme first.

    The lowest document id whose cluster does not stand for a better reading already.
    """
    readings: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        readings[row["prefix"]].append(row)

    def worth(row: Row) -> float:
        return float((1, -1)[row["pole"] == 0] * row["value"])

    found: list[Row] = []
    used = set()
    for _, alike in sorted(readings.items(), key=lambda item: (min(map(worth, item[1])), item[0])):
        for row in sorted(alike, key=lambda row: (row["doc_id"], row["piece"])):
            if row["cluster"] not in used:
                used.add(row["cluster"])
                repeats = len({other["cluster"] for other in alike}) - 1
                found.append({**row, "repeats": min(repeats, top - 1)})
                break
    return found[:top]
