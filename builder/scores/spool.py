"""Where are thousands of scores while the database is busy being read? In a file, in order.

Each holds some fifty judged texts, so all of them together would fill the memory, and the database
cannot be written while it is read.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from builder.records import Judged, Score

_PAIRS = ("f1_interval", "auprc_interval", "chance")


class Spool:
    """Scores on disk, read back as often as wanted; the file goes when the spool does."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, scores: Iterable[Score]) -> None:
        """Puts scores behind those that are there."""
        for score in scores:
            row = {name: getattr(score, name) for name in Score.__slots__ if name != "judged"}
            row["faults"] = dict(score.faults)
            row["judged"] = score.judged
            self._file.write(json.dumps(row) + "\n")

    def __iter__(self) -> Iterator[Score]:
        self._file.seek(0)
        for line in self._file:
            row = json.loads(line)
            for name in _PAIRS:
                row[name] = None if row[name] is None else tuple(row[name])
            row["judged"] = tuple(
                Judged._make((*values, tuple(marked))) for *values, marked in row["judged"]
            )
            yield Score(**row)
