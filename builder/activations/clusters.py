"""Which documents of a part are one text with others, of this part or of earlier ones?

Equal texts are found by their 64 bits, similar ones by their sketches (see ``near_duplicates``).
Sketches lie on disk, 256 bytes a document, while a part is frozen, and those of its different texts
stay beside it for the parts that may follow.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builder.activations.near_duplicates import SLOTS, parents, roots
from builder.errors import CorpusError
from builder.weights.reasons import reason

_WIDTH = 2 * SLOTS
_KEPT = pa.schema([("text", pa.uint64()), ("cluster", pa.uint64()), ("sketch", pa.binary(_WIDTH))])
_CHUNK = 1 << 14


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The cluster of each document of a part, and whether it is the first of it; [n] each.

    ``kept`` are the documents whose sketches later parts need: the first of each text.
    """

    cluster: npt.NDArray[np.uint64]
    is_first: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.int64]

    def repeated(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """Clusters of documents that are not the first of theirs, ascending, and their number."""
        clusters, n = np.unique(self.cluster[~self.is_first], return_counts=True)
        return clusters, n.astype(np.int64)


@dataclass(slots=True)
class SketchTable:
    """A file of sketches: those of the parts before, then those of the part being frozen."""

    path: Path
    #: Of the parts before: 64 bits of each text, and its cluster.
    texts: array[int] = field(default_factory=lambda: array("Q"))
    clusters: array[int] = field(default_factory=lambda: array("Q"))

    def append(self, sketches: npt.NDArray[np.uint16]) -> None:
        """Adds sketches of the part being frozen."""
        with self.path.open("ab") as stream:
            stream.write(np.ascontiguousarray(sketches, dtype="<u2").tobytes())

    def append_part(self, path: Path, digest: str) -> None:
        """Adds what :meth:`keep` wrote of an earlier part; raises CorpusError if it changed."""
        try:
            if file_digest(path) != digest:
                raise ValueError("it is not the file that was frozen")
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"{path}: the frozen corpus is damaged ({reason(error)}); delete the run folder "
                "and start anew"
            ) from error
        with pq.ParquetFile(path) as file, self.path.open("ab") as stream:
            for batch in file.iter_batches(_CHUNK):
                self.texts.frombytes(batch["text"].to_numpy().tobytes())
                self.clusters.frombytes(batch["cluster"].to_numpy().tobytes())
                stream.writelines(batch["sketch"].to_pylist())

    def cluster(self, texts: npt.NDArray[np.uint64], threshold: float) -> Clusters:
        """The clusters of the part's documents, of which ``texts`` are 64 bits each, in order."""
        before = np.frombuffer(self.texts, dtype=np.uint64)
        known = len(before)
        every = np.concatenate([before, texts])
        _, first, place = np.unique(every, return_index=True, return_inverse=True)
        rows = np.sort(first).astype(np.int64)
        # The place in ``rows`` of each document's text.
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))
        own = rank[place[known:]]
        root = roots(parents(self._open(), rows, known, threshold))
        names = every[rows]
        names[:known] = np.frombuffer(self.clusters, dtype=np.uint64)
        numbers = np.arange(known, len(every))
        is_first_text = rows[own] == numbers
        is_first = is_first_text & (root[own] == own)
        return Clusters(names[root[own]], is_first, np.flatnonzero(is_first_text))

    def keep(self, path: Path, texts: npt.NDArray[np.uint64], found: Clusters) -> str:
        """Writes what later parts need of this one to ``path``; returns its digest."""
        table, known = self._open(), len(self.texts)
        with (
            path.open("wb") as stream,
            pq.ParquetWriter(stream, _KEPT, compression="none") as writer,
        ):
            for start in range(0, len(found.kept), _CHUNK):
                chosen = found.kept[start : start + _CHUNK]
                rows = np.ascontiguousarray(table[known + chosen], dtype="<u2")
                arrays = [
                    pa.array(texts[chosen], pa.uint64()),
                    pa.array(found.cluster[chosen], pa.uint64()),
                    pa.array([row.tobytes() for row in rows], pa.binary(_WIDTH)),
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=_KEPT))
            writer.close()
            stream.flush()
            os.fsync(stream.fileno())
        return file_digest(path)

    def _open(self) -> npt.NDArray[np.uint16]:
        return np.memmap(self.path, dtype="<u2", mode="r").reshape(-1, SLOTS)


def file_digest(path: Path) -> str:
    """32 hex digits that follow a file's bytes, read block by block."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
