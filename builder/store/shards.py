"""Which shards does a merge read, and how do their rows become those of the whole run?

A shard is known by the fingerprint in its folder's name: given twice, it counts once. Rows name
documents by their number within a part of the corpus; ``doc_offset`` makes that the run's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from builder.activations.shard_files import SHARD_FILES
from builder.errors import StoreError

#: Rows of the first chunk, and the most of any; they decide about memory, not about results.
_FIRST_CHUNK, _LARGEST_CHUNK = 400_000, 6_400_000


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard's folder, and what its document numbers are counted from."""

    folder: Path
    doc_offset: int = 0

    @property
    def fingerprint(self) -> str:
        """What the shard depends on: its folder's name after the number."""
        return self.folder.name.partition("-")[2] or self.folder.name


def distinct_shards(shards: Iterable[Shard]) -> list[Shard]:
    """Each shard once, in the order of the corpus."""
    ordered = sorted(shards, key=lambda shard: (shard.doc_offset, shard.folder.name))
    found: dict[str, Shard] = {}
    for shard in ordered:
        found.setdefault(shard.fingerprint, shard)
    return list(found.values())


def chunks(shards: Sequence[Shard], file: str) -> list[list[int]]:
    """Indices of shards in order, grouped so that each chunk has as many rows as all before it.

    The more shards were seen, the fewer rows of a further one are better than the best so far.
    """
    found: list[list[int]] = []
    rows = before = 0
    for index, shard in enumerate(shards):
        n = row_count(shard.folder, file)
        if not found or rows + n > min(max(before, _FIRST_CHUNK), _LARGEST_CHUNK):
            found.append([])
            before, rows = before + rows, 0
        found[-1].append(index)
        rows += n
    return found


def row_count(folder: Path, file: str) -> int:
    """Rows of one Parquet file of a shard.

    Raises StoreError if it is missing, damaged or has other columns than it should.
    """
    path = folder / file
    try:
        with pq.ParquetFile(path) as opened:
            names = opened.schema_arrow.names
            if names != SHARD_FILES[file].names:
                raise pa.ArrowInvalid(f"its columns are {', '.join(names)}")
            return int(opened.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise StoreError(
            f"{path}: {what}; delete the folder {folder} and run the same command again"
        ) from error
