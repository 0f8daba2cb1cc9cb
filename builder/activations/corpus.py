"""Which documents are scanned? Reading local files and ``datasets`` names into plain documents.

Every row of every source, in order, is either a document or a counted fault with its reason. The
corpus is read once and frozen in the run folder as slices (one per shard), so that a resumed scan
reads the same bytes, workers need no network, and a source that changed meanwhile is noticed.
Whatever a row says is data: nothing in it is executed, followed or used as a path.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import gzip
import hashlib
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from builder.config import CorpusSettings, Source, public_name
from builder.errors import CorpusError, shown
from builder.weights.reasons import reason

#: How often rows name their chat, in the order they are looked for.
MESSAGES_COLUMNS = ("messages", "conversation", "conversations", "chat", "dialogue")
TEXT_COLUMNS = ("text", "content", "document", "body")
#: ShareGPT-style speakers and what the chat templates call them.
_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_KNOWN_ROLES = frozenset({"user", "assistant", "system", "tool"})
_SURROGATES = re.compile("[\ud800-\udfff]")
_SUFFIXES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz", ".parquet")
#: A line longer than this many bytes is a fault, not a document; it bounds memory.
MAX_LINE_BYTES = 64 << 20
_ONE_ARRAY = (
    "the file begins as one JSON array, but JSON lines (one object a line) or Parquet is needed"
)


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation (``messages``: (role, content) in order) or one plain ``text``.

    ``doc_id`` counts the rows of the corpus from 0, faulty ones included, so that an id names the
    same row whatever else is skipped.
    """

    doc_id: int
    source: str
    messages: tuple[tuple[str, str], ...] = ()
    text: str = ""
    #: Of the near-duplicates it is one of: 64 bits of the text of the first of them.
    cluster: int = 0
    is_first: bool = True
    #: 64 bits that put documents into a random order, the same for equal texts.
    priority: int = 0
    #: Whether it may belong to the run's random sample.
    sampled: bool = False


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no document: where it stands and why."""

    where: str
    reason: str


@dataclass(slots=True)
class CorpusTally:
    """What reading found: documents per source name, faults and notes per reason."""

    documents: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)


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


def read_documents(settings: CorpusSettings, tally: CorpusTally) -> Iterator[Document]:
    """Every document of the corpus in order; faults and notes are counted in ``tally``.

    Raises CorpusError when more than ``max_bad_share`` of a source's rows are faulty (with the
    first places and reasons), or when the corpus has no document at all.
    """
    doc_id = 0
    kept = 0
    for source in settings.sources:
        rows = bad = 0
        first_bad: list[BadRow] = []
        for row in _rows(source):
            rows += 1
            result = row if isinstance(row, BadRow) else _document(row, source, doc_id, tally)
            doc_id += 1
            if isinstance(result, BadRow):
                bad += 1
                tally.dropped[result.reason] += 1
                first_bad = [*first_bad, result][:3]
                continue
            tally.documents[result.source] += 1
            kept += 1
            yield result
            if settings.max_documents is not None and kept >= settings.max_documents:
                break
        if rows and bad / rows > settings.max_bad_share:
            places = "; ".join(f"{item.where}: {item.reason}" for item in first_bad)
            raise CorpusError(
                f"{source.path or source.dataset}: {bad} of {rows} rows cannot be used, more than "
                f"the {settings.max_bad_share:.0%} allowed (corpus.max_bad_share); first: {places}"
            )
        if settings.max_documents is not None and kept >= settings.max_documents:
            break
    if not kept:
        raise CorpusError("the corpus is empty: no source has a single usable row")


def write_slice(path: Path, documents: Sequence[Document]) -> str:
    """Writes documents as one Parquet slice; returns the digest that :func:`read_slice` checks."""
    table = pa.table(
        {
            "doc_id": pa.array([item.doc_id for item in documents], pa.int64()),
            "source": pa.array([item.source for item in documents], pa.string()),
            "text": pa.array([item.text for item in documents], pa.string()),
            "messages": pa.array([json.dumps(item.messages) for item in documents], pa.string()),
        }
    )
    pq.write_table(table, path, compression="zstd")
    return _digest(path.read_bytes())


def read_slice(path: Path, digest: str | None = None) -> list[Document]:
    """The documents of a slice, as they were written.

    ``digest`` is what :func:`write_slice` returned. Raises CorpusError when the file is missing,
    damaged or another.
    """
    try:
        data = path.read_bytes()
        if digest is not None and _digest(data) != digest:
            raise ValueError("it is not the file that was frozen")
        rows = pq.read_table(pa.BufferReader(data)).to_pylist()
        return [
            Document(
                row["doc_id"],
                row["source"],
                tuple((role, content) for role, content in json.loads(row["messages"])),
                row["text"],
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path}: the frozen corpus is damaged ({reason(error)}); delete the run folder and "
            "start anew"
        ) from error


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


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
    return frozenset({*_chat_columns(source), *_text_columns(source), source.source_column})


def _chat_columns(source: Source) -> tuple[str, ...]:
    return (source.messages_column,) if source.messages_column else MESSAGES_COLUMNS


def _text_columns(source: Source) -> tuple[str, ...]:
    return (source.text_column,) if source.text_column else TEXT_COLUMNS


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


def _document(
    row: dict[str, Any], source: Source, doc_id: int, tally: CorpusTally
) -> Document | BadRow:
    name = row.get(source.source_column)
    label = name if isinstance(name, str) and name else source.name or _default_name(source)
    label = _clean(label, tally)[:200]
    where = f"{_default_name(source)} row {doc_id}"
    chat = next((row[key] for key in _chat_columns(source) if isinstance(row.get(key), list)), None)
    if chat is not None:
        return _conversation(chat, doc_id, label, where, tally)
    text = next((row[key] for key in _text_columns(source) if isinstance(row.get(key), str)), None)
    if text is None:
        return BadRow(where, "neither text nor messages")
    if not text.strip():
        return BadRow(where, "empty text")
    return Document(doc_id, label, text=_clean(text, tally))


def _conversation(
    chat: list[Any], doc_id: int, source: str, where: str, tally: CorpusTally
) -> Document | BadRow:
    messages: list[tuple[str, str]] = []
    for item in chat:
        if not isinstance(item, dict):
            return BadRow(where, "a message that is not an object")
        role = item.get("role", item.get("from"))
        content = item.get("content", item.get("value"))
        role = _SPEAKERS.get(role, role) if isinstance(role, str) else None
        if role not in _KNOWN_ROLES:
            return BadRow(where, "a message with an unknown role")
        if not isinstance(content, str):
            return BadRow(where, "a message whose content is not text")
        messages.append((role, _clean(content, tally)))
    if not any(content.strip() for _, content in messages):
        return BadRow(where, "empty conversation")
    return Document(doc_id, source, messages=tuple(messages))


def _default_name(source: Source) -> str:
    return source.name or public_name(source.path or source.dataset)


def _clean(text: str, tally: CorpusTally) -> str:
    """The text without lone surrogates, which no tokenizer and no UTF-8 file can hold."""
    cleaned, found = _SURROGATES.subn("\ufffd", text)
    tally.noted["lone surrogates replaced"] += found
    return cleaned
