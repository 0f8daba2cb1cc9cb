"""How do the parts of several frozen corpora become one corpus?

Slices and their notes stay as they are, under new numbers: shards depend on their bytes. What
depends on the order of the parts is computed anew from the notes: which documents are copies of
earlier ones, and which texts later parts have to be compared with. Clusters of near-duplicates were
found in each run apart: documents of two runs are one text where the first of their clusters are
equal.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builder.activations.clusters import file_digest
from builder.activations.corpus import clusters_bytes, digest_of_bytes, read_checked
from builder.errors import StoreError


class JoinedCorpus:
    """The corpus folder of a joined run, filled part by part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[dict[str, Any]] = []
        self._slices = 0
        self._clusters: npt.NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        self._texts: npt.NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)

    def add(self, part: Mapping[str, Any], folder: Path) -> None:
        """Adds a part whose files are in ``folder``: slices and notes as they are, what it has in
        common with earlier parts anew.
        """
        renamed: list[dict[str, Any]] = []
        for item in part["slices"]:
            named = dict(item)
            for key, ending in (("name", "parquet"), ("notes", "notes.parquet")):
                named[key] = f"{self._slices:06d}.{ending}"
                link(folder / item[key], self.folder / named[key])
            renamed.append(named)
            self._slices += 1
        name = f"part{len(self.parts):03d}"
        joined = {
            **part,
            "slices": renamed,
            **self._put_clusters(renamed, name),
            **self._put_sketches(part, folder, name),
        }
        self.parts.append(joined)

    def _put_clusters(self, slices: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
        """Counts the documents that are not the first of their cluster, over all parts so far.

        ``repeated``: by source, how many documents more than clusters begin here are the first of
        theirs by the notes, which know the parts of their own run alone.
        """
        found = [self._notes(item) for item in slices]
        clusters = np.concatenate([item[0] for item in found] or [self._clusters[:0]])
        is_first = np.concatenate([item[1] for item in found] or [np.zeros(0, dtype=np.bool_)])
        sources = [source for item in found for source in item[2]]
        values, first, n = np.unique(clusters, return_index=True, return_counts=True)
        is_new = ~np.isin(values, self._clusters)
        repeated = Counter(sources[at] for at in np.flatnonzero(is_first).tolist())
        repeated.subtract(sources[at] for at in first[is_new].tolist())
        further = n - is_new
        data = clusters_bytes(values[further > 0], further[further > 0].astype(np.int64))
        file = f"{name}.clusters.parquet"
        (self.folder / file).write_bytes(data)
        self._clusters = np.union1d(self._clusters, values)
        return {
            "clusters": file,
            "clusters_digest": digest_of_bytes(data),
            "repeated": {source: n for source, n in sorted(repeated.items()) if n},
        }

    def _notes(
        self, item: Mapping[str, Any]
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_], list[str]]:
        notes, documents = (
            pq.read_table(
                pa.BufferReader(read_checked(self.folder / item[name], item[digest])),
                columns=columns,
            )
            for name, digest, columns in (
                ("notes", "notes_digest", ["cluster", "is_first"]),
                ("name", "digest", ["source"]),
            )
        )
        return (
            notes["cluster"].to_numpy(),
            notes["is_first"].to_numpy(),
            documents["source"].to_pylist(),
        )

    def _put_sketches(self, part: Mapping[str, Any], folder: Path, name: str) -> dict[str, str]:
        """Keeps, for parts that may follow, the sketches of texts that no earlier part has."""
        file = f"{name}.sketches.parquet"
        place = folder / part["sketches"]
        if file_digest(place) != part["sketches_digest"]:
            raise StoreError(f"{place}: is damaged; delete the run folder to start anew")
        before = self._texts
        with (
            pq.ParquetFile(place) as source,
            pq.ParquetWriter(self.folder / file, source.schema_arrow, compression="none") as out,
        ):
            for batch in source.iter_batches(1 << 14):
                texts = batch["text"].to_numpy()
                out.write_batch(batch.filter(pa.array(~np.isin(texts, before))))
                self._texts = np.union1d(self._texts, texts)
        return {"sketches": file, "sketches_digest": file_digest(self.folder / file)}


def link_folder(place: Path, to: Path) -> None:
    """Makes the folder ``to`` of links to the files of another, which are never changed."""
    to.mkdir()
    for item in sorted(place.iterdir()):
        link(item, to / item.name)


def link(place: Path, to: Path) -> None:
    """One more name for a file, which is never changed in place; a copy on another file system."""
    try:
        os.link(place, to)
    except OSError:
        shutil.copyfile(place, to)
