"""What is a document, and how does a frozen corpus keep it? Messages, slices and their notes.

A corpus is read once and frozen in the run folder as slices (one per shard). Beside a slice lie its
notes, what is known of its documents only when all of them are read: which are near-duplicates of
one text, and which belong to the random sample. Whatever a document says is data: nothing in it is
executed, followed or used as a path.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from builder.errors import CorpusError
from builder.weights.reasons import reason

_SLICE = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("messages", pa.string()),
    ]
)
_NOTES = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("cluster", pa.uint64()),
        ("is_first", pa.bool_()),
        ("priority", pa.uint64()),
        ("sampled", pa.bool_()),
    ]
)
_CLUSTERS = pa.schema([("cluster", pa.uint64()), ("n", pa.int64())])


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: ``role`` is ``user``, ``assistant``, ``system`` or ``tool``.

    ``extras`` is empty or a JSON object of what a chat template may read besides: ``tool_calls`` of
    an assistant, ``name`` and ``tool_call_id`` of a tool.
    """

    role: str
    content: str
    extras: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation (``messages`` in order) or one plain ``text``.

    ``doc_id`` counts the rows of its part of the corpus from 0, faulty ones included, so that an id
    names the same row whatever else is skipped.
    """

    doc_id: int
    source: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    #: Of the near-duplicates it is one of: 64 bits of the text of the first of them.
    cluster: int = 0
    is_first: bool = True
    #: 64 bits that put documents into a random order, the same for equal texts.
    priority: int = 0
    #: Whether it may belong to the run's random sample.
    sampled: bool = False


def content_of(document: Document) -> bytes:
    """All that a document says and who says it, so that equal documents have equal bytes."""
    if document.messages:
        return _messages_json(document).encode()
    return document.text.encode()


def slice_bytes(documents: Sequence[Document]) -> bytes:
    """Documents as one Parquet slice; their notes are apart (:func:`notes_bytes`)."""
    return parquet_bytes(
        _SLICE,
        {
            "doc_id": [item.doc_id for item in documents],
            "source": [item.source for item in documents],
            "text": [item.text for item in documents],
            "messages": [_messages_json(item) for item in documents],
        },
    )


def notes_bytes(
    doc_ids: npt.NDArray[np.int64],
    clusters: npt.NDArray[np.uint64],
    is_first: npt.NDArray[np.bool_],
    priorities: npt.NDArray[np.uint64],
    sampled: npt.NDArray[np.bool_],
) -> bytes:
    """The notes on a slice's documents, one of each per document, as Parquet."""
    columns = (doc_ids, clusters, is_first, priorities, sampled)
    return parquet_bytes(_NOTES, dict(zip(_NOTES.names, columns, strict=True)))


def clusters_bytes(clusters: npt.NDArray[np.uint64], n: npt.NDArray[np.int64]) -> bytes:
    """How many documents each cluster has beyond its first, as Parquet."""
    return parquet_bytes(_CLUSTERS, {"cluster": clusters, "n": n})


def slice_documents(slice_bytes: bytes, notes_bytes: bytes) -> list[Document]:
    """The documents of a slice with what its notes say of them.

    Raises CorpusError when these are no such files, or do not belong together.
    """
    try:
        rows = _columns(slice_bytes, _SLICE)
        notes = _columns(notes_bytes, _NOTES)
        if rows[0] != notes[0]:
            raise ValueError("its notes are of other documents")
        return [
            Document(
                doc_id, source, _messages(messages), text, cluster, is_first, priority, sampled
            )
            for (doc_id, source, text, messages, cluster, is_first, priority, sampled) in zip(
                *rows, *notes[1:], strict=True
            )
        ]
    except (ValueError, KeyError, TypeError, OverflowError, pa.ArrowException) as error:
        raise _damaged("a slice", error) from error


def cluster_sizes(
    folder: Path, frozen: Mapping[str, Any]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The clusters of several documents, ascending, and how many each has beyond its first.

    ``folder`` is the frozen corpus, ``frozen`` the value of its ``corpus.json``.
    """
    found: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]] = []
    for part in frozen["parts"]:
        path = folder / part["clusters"]
        try:
            table = _table(read_checked(path, part["clusters_digest"]), _CLUSTERS)
        except (ValueError, pa.ArrowException) as error:
            raise _damaged(str(path), error) from error
        found.append((table["cluster"].to_numpy(), table["n"].to_numpy()))
    clusters, place = np.unique(
        np.concatenate([item[0] for item in found]).astype(np.uint64), return_inverse=True
    )
    n = np.zeros(len(clusters), dtype=np.int64)
    np.add.at(n, place, np.concatenate([item[1] for item in found]))
    return clusters, n


def read_checked(path: Path, digest: str) -> bytes:
    """The bytes of a file of the frozen corpus.

    ``digest`` is what :func:`digest_of_bytes` gave of them. Raises CorpusError when the file is
    missing or another.
    """
    try:
        data = path.read_bytes()
        if digest_of_bytes(data) != digest:
            raise ValueError("it is not the file that was frozen")
    except (OSError, ValueError) as error:
        raise _damaged(str(path), error) from error
    return data


def digest_of_bytes(data: bytes) -> str:
    """32 hex digits that follow the bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def parquet_bytes(schema: pa.Schema, columns: Mapping[str, Any]) -> bytes:
    """Columns as the bytes of a Parquet file; equal columns give equal bytes."""
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def _table(data: bytes, schema: pa.Schema) -> pa.Table:
    table = pq.read_table(pa.BufferReader(data))
    if table.schema.names != schema.names:
        raise ValueError(f"its columns are {', '.join(table.schema.names)}")
    return table.cast(schema)


def _columns(data: bytes, schema: pa.Schema) -> list[list[Any]]:
    table = _table(data, schema)
    return [table[name].to_pylist() for name in schema.names]


def _messages_json(document: Document) -> str:
    """The messages as JSON: [role, content] or [role, content, extras] each."""
    rows = [
        (item.role, item.content, item.extras) if item.extras else (item.role, item.content)
        for item in document.messages
    ]
    return json.dumps(rows, ensure_ascii=False)


def _messages(text: str) -> tuple[Message, ...]:
    return tuple(Message(*row) for row in json.loads(text))


def _damaged(what: str, error: Exception) -> CorpusError:
    return CorpusError(
        f"{what}: the frozen corpus is damaged ({reason(error)}); delete the run folder and "
        "start anew"
    )
