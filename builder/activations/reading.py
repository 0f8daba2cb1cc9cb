"""Which documents does a corpus have? Reading local files and ``datasets`` names, in order.

Every row of every source is either a document or a counted fault with its reason. Without weights
the sources follow one another; with weights each next document comes from a source drawn at random
by its weight, from a seeded generator, among those that still have rows.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from builder.activations.corpus import Document
from builder.activations.rows import (
    BadRow,
    CorpusTally,
    chat_columns,
    document_of,
    source_name,
    text_columns,
)
from builder.config import CorpusSettings, Source
from builder.errors import CorpusError, shown
from builder.weights.reasons import reason

_SUFFIXES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz", ".parquet")
#: A line longer than this many bytes is a fault, not a document; it bounds memory.
MAX_LINE_BYTES = 64 << 20
_ONE_ARRAY = (
    "the file begins as one JSON array, but JSON lines (one object a line) or Parquet is needed"
)


def corpus_stamp(settings: CorpusSettings) -> str:
    """A digest of the settings and of every local file's name and bytes.

    Raises CorpusError when a path is missing, matches nothing, is of an unknown kind or cannot be
    read.
    """
    digest = hashlib.blake2b(settings.model_dump_json().encode(), digest_size=16)
    files = [path for source in settings.sources if source.path for path in source_files(source)]
    with tqdm(
        None, "corpus check", total=_bytes(files), unit="B", unit_scale=True, delay=1, disable=None
    ) as bar:
        for path in files:
            # Bytes: a name may hold what is not UTF-8.
            digest.update(os.fsencode(path.name) + b"\0")
            try:
                with path.open("rb") as stream:
                    while block := stream.read(1 << 22):
                        digest.update(block)
                        bar.update(len(block))
            except OSError as error:
                raise CorpusError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def source_files(source: Source) -> list[Path]:
    """The files of a local source, sorted by name; see :class:`builder.config.Source`.

    Raises CorpusError when there is none, or one of an unknown kind.
    """
    try:
        return _found_files(source)
    except (OSError, ValueError) as error:
        # A name too long, closed to us or with a NUL.
        why = error.strerror if isinstance(error, OSError) else error
        raise CorpusError(f"{shown(source.path)!r}: cannot be looked up ({why})") from error


def _found_files(source: Source) -> list[Path]:
    place = Path(source.path)
    if place.is_dir():
        files = sorted(item for item in place.iterdir() if _readable(item))
        if not files:
            raise CorpusError(f"{place}: holds no {', '.join(_SUFFIXES)} file")
        return files
    if place.exists():
        if not _readable(place):
            raise CorpusError(f"{place}: unknown kind of file; known are {', '.join(_SUFFIXES)}")
        return [place]
    files = sorted(Path(name) for name in glob.glob(source.path, recursive=True))  # noqa: PTH207 - absolute patterns
    files = [item for item in files if _readable(item)]
    if not files:
        raise CorpusError(f"{source.path}: no such corpus file")
    return files


@dataclass(slots=True)
class _Reading:
    """A source that is being read: its rows, and how many were read, faulty and documents."""

    source: Source
    rows: Iterator[dict[str, Any] | BadRow]
    read: int = 0
    documents: int = 0
    bad: int = 0
    first_bad: list[BadRow] = field(default_factory=list)

    def next_document(self, tally: CorpusTally) -> Document | None:
        """The next document, None after the last; the faults before it are counted."""
        for row in self.rows:
            doc_id, tally.rows = tally.rows, tally.rows + 1
            self.read += 1
            found = row if isinstance(row, BadRow) else document_of(row, self.source, doc_id, tally)
            if isinstance(found, Document):
                self.documents += 1
                tally.documents[found.source] += 1
                return found
            self.bad += 1
            tally.dropped[found.reason] += 1
            self.first_bad = [*self.first_bad, found][:3]
        return None

    def check(self, max_bad_share: float) -> None:
        """Raises CorpusError if too many of the rows that were read cannot be used."""
        if self.read and self.bad / self.read > max_bad_share:
            places = "; ".join(f"{item.where}: {item.reason}" for item in self.first_bad)
            raise CorpusError(
                f"{self.source.path or self.source.dataset}: {self.bad} of {self.read} rows cannot "
                f"be used, more than the {max_bad_share:.0%} allowed (corpus.max_bad_share); "
                f"first: {places}"
            )


def read_documents(settings: CorpusSettings, tally: CorpusTally) -> Iterator[Document]:
    """Every document of the corpus in order; rows, faults and notes are counted in ``tally``.

    Raises CorpusError when more than ``max_bad_share`` of a source's rows are faulty (with the
    first places and reasons), or when the corpus has no document at all.
    """
    weighted = any(source.weight is not None for source in settings.sources)
    readings = [_Reading(source, _rows(source)) for source in settings.sources]
    order = _mixed(readings, settings, tally) if weighted else _in_turn(readings, settings, tally)
    kept = 0
    for document in order:
        kept += 1
        yield document
        if kept == settings.max_documents:
            break
    for reading in readings:
        reading.check(settings.max_bad_share)
    if not kept:
        raise CorpusError("the corpus is empty: no source has a single usable row")


def _in_turn(
    readings: Sequence[_Reading], settings: CorpusSettings, tally: CorpusTally
) -> Iterator[Document]:
    for reading in readings:
        while (document := reading.next_document(tally)) is not None:
            yield document
        reading.check(settings.max_bad_share)


def _mixed(
    readings: Sequence[_Reading], settings: CorpusSettings, tally: CorpusTally
) -> Iterator[Document]:
    """The sources' documents, each next one of a source drawn by its weight while it lasts.

    A source without a weight has weight 1. PCG64 and sums in order give the same on any machine.
    """
    rng = np.random.Generator(np.random.PCG64(settings.seed % 2**64))
    open_ = list(readings)
    while open_:
        bounds = np.cumsum([1.0 if r.source.weight is None else r.source.weight for r in open_])
        place = int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))
        reading = open_[min(place, len(open_) - 1)]
        document = reading.next_document(tally)
        if document is not None:
            yield document
            continue
        reading.check(settings.max_bad_share)
        open_.remove(reading)
        if open_:
            name = source_name(reading.source)
            tally.noted[f"documents of {name}, which ran out before others"] += reading.documents


def _bytes(files: Sequence[Path]) -> int:
    """Size of the files; one that cannot be looked at counts nothing, reading it will tell."""
    total = 0
    for path in files:
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _readable(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(_SUFFIXES)


def _rows(source: Source) -> Iterator[dict[str, Any] | BadRow]:
    rows = _file_rows(source) if source.path else _dataset_rows(source)
    for number, row in enumerate(rows):
        if source.max_rows is not None and number >= source.max_rows:
            return
        yield row


def _file_rows(source: Source) -> Iterator[dict[str, Any] | BadRow]:
    for path in source_files(source):
        try:
            if path.name.lower().endswith(".parquet"):
                yield from _parquet_rows(path, _columns(source))
            else:
                yield from _json_lines(path)
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise CorpusError(f"{path}: cannot be read: {error}") from error


def _columns(source: Source) -> frozenset[str]:
    """The columns that a document may be made of."""
    return frozenset({*chat_columns(source), *text_columns(source), source.source_column})


def _parquet_rows(path: Path, wanted: frozenset[str]) -> Iterator[dict[str, Any] | BadRow]:
    """The wanted columns of every row; the others may hold what Python has no value for."""
    with pq.ParquetFile(path) as file:
        names = sorted(wanted & set(file.schema_arrow.names))
        if not names:
            yield from ({} for _ in range(file.metadata.num_rows))
            return
        before = 0
        for batch in file.iter_batches(batch_size=1024, columns=names):
            # A column "text.x" comes along with "text".
            places = [at for at, name in enumerate(batch.schema.names) if name in wanted]
            yield from _python_rows(batch.select(places), path, before)
            before += batch.num_rows


def _python_rows(batch: pa.RecordBatch, path: Path, before: int) -> list[dict[str, Any] | BadRow]:
    """The rows of a batch; one with bytes that are not UTF-8, or with no date, is a fault."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError):
        rows: list[dict[str, Any] | BadRow] = []
        for at in range(batch.num_rows):
            try:
                rows += batch.slice(at, 1).to_pylist()
            except (ValueError, OverflowError):
                rows.append(BadRow(f"{path.name} row {before + at + 1}", "a damaged value"))
        return rows


def _json_lines(path: Path) -> Iterator[dict[str, Any] | BadRow]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as stream:
        number = 0
        first = True
        while line := stream.readline(MAX_LINE_BYTES):
            number += 1
            where = f"{path.name} line {number}"
            fault = ""
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                fault = f"line longer than {MAX_LINE_BYTES >> 20} MiB"
            elif not line.strip():
                continue
            if first and line.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
                fault = _ONE_ARRAY
            first = False
            if fault:
                yield BadRow(where, fault)
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                yield BadRow(where, "not valid JSON")
                continue
            yield row if isinstance(row, dict) else BadRow(where, "not a JSON object")


def _dataset_rows(source: Source) -> Iterator[dict[str, Any] | BadRow]:
    # Imported here: `datasets` takes a second to load and local files do not need it.
    import datasets

    try:
        rows = datasets.load_dataset(
            source.dataset,
            source.config,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )
        for row in rows:
            yield dict(row)
    # Nothing of ours runs in there, and the library passes on whatever its many readers raise.
    except Exception as error:
        raise CorpusError(
            f"{source.dataset} (split {source.split}): cannot be loaded "
            f"({type(error).__name__}: {reason(error)}); a dataset is a name on the hub or a "
            "folder that the datasets library can read"
        ) from error
