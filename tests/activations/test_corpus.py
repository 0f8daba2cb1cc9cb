"""A frozen corpus gives back what was put into it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builder.activations import corpus
from builder.activations.corpus import (
    Document,
    Message,
    cluster_sizes,
    clusters_bytes,
    digest_of_bytes,
    notes_bytes,
    read_checked,
    slice_bytes,
    slice_documents,
)
from builder.errors import CorpusError

CALLS = '{"tool_calls": [{"function": {"arguments": {"at": "ü"}, "name": "look"}}]}'
DOCUMENTS = [
    Document(
        3,
        "s",
        messages=(Message("user", "ä🙂\n\x00\x07"), Message("assistant", "", CALLS)),
        cluster=2**64 - 1,
        is_first=False,
        priority=7,
        sampled=True,
    ),
    Document(9, "t", text="\u202e plain", cluster=0, priority=2**63),
]


def notes_of(documents: list[Document]) -> bytes:
    return notes_bytes(
        np.array([item.doc_id for item in documents], dtype=np.int64),
        np.array([item.cluster for item in documents], dtype=np.uint64),
        np.array([item.is_first for item in documents], dtype=np.bool_),
        np.array([item.priority for item in documents], dtype=np.uint64),
        np.array([item.sampled for item in documents], dtype=np.bool_),
    )


def test_slices_and_notes_give_back_their_documents() -> None:
    assert slice_documents(slice_bytes(DOCUMENTS), notes_of(DOCUMENTS)) == DOCUMENTS


@pytest.mark.parametrize(
    ("documents", "notes"),
    [
        (slice_bytes(DOCUMENTS)[:-30], notes_of(DOCUMENTS)),
        (notes_of(DOCUMENTS), notes_of(DOCUMENTS)),
        (slice_bytes(DOCUMENTS), notes_of(DOCUMENTS[::-1])),
        (slice_bytes(DOCUMENTS), notes_of(DOCUMENTS[:1])),
    ],
)
def test_damaged_slices_and_the_notes_of_others_are_refused(documents: bytes, notes: bytes) -> None:
    with pytest.raises(CorpusError, match="the frozen corpus is damaged"):
        slice_documents(documents, notes)


def test_a_file_that_is_not_the_frozen_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    path.write_bytes(b"frozen")
    digest = digest_of_bytes(b"frozen")
    assert read_checked(path, digest) == b"frozen"
    damaged = r"s\.parquet: the frozen corpus is damaged .*; delete the run folder and start anew"
    path.write_bytes(b"another")
    with pytest.raises(CorpusError, match=damaged):
        read_checked(path, digest)
    path.unlink()
    with pytest.raises(CorpusError, match=damaged):
        read_checked(path, digest)


def test_equal_documents_alone_have_equal_content() -> None:
    said = [
        Document(0, "s", text="hi"),
        Document(0, "s", messages=(Message("user", "hi"),)),
        Document(0, "s", messages=(Message("assistant", "hi"),)),
        Document(0, "s", messages=(Message("user", "hi"), Message("assistant", ""))),
        Document(0, "s", messages=(Message("user", "hi"), Message("assistant", "", CALLS))),
    ]
    assert len({corpus.content_of(document) for document in said}) == len(said)
    assert corpus.content_of(said[1]) == corpus.content_of(Document(5, "t", said[1].messages))


def test_cluster_sizes_are_summed_over_the_parts(tmp_path: Path) -> None:
    parts = []
    for number, (clusters, n) in enumerate([([5, 2**64 - 1], [1, 2]), ([], []), ([0, 5], [4, 3])]):
        data = clusters_bytes(np.array(clusters, dtype=np.uint64), np.array(n, dtype=np.int64))
        (tmp_path / str(number)).write_bytes(data)
        parts.append({"clusters": str(number), "clusters_digest": digest_of_bytes(data)})
    found, more = cluster_sizes(tmp_path, {"parts": parts})
    assert dict(zip(found.tolist(), more.tolist(), strict=True)) == {0: 4, 5: 4, 2**64 - 1: 2}
    (tmp_path / "1").write_bytes(b"")
    with pytest.raises(CorpusError, match="damaged"):
        cluster_sizes(tmp_path, {"parts": parts})
