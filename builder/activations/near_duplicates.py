"""Which documents are copies of one text? MinHash sketches, bands, and parents.

A document is sketched by MinHash (Broder 1997; the library is rensa) over its word triples. Two
documents whose sketches agree in one band of slots are compared, and the share of equal slots
estimates the Jaccard similarity of their triples. Each document's parent is the lowest earlier one
that is similar enough; those that lead to the same root are one cluster, named after the root's
text. A document looks back only, so that what is added later changes no earlier cluster.

Long buckets are looked at from their start alone, which bounds the comparisons: a document that
resembles none of the first few documents of any of its buckets begins a cluster of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import rensa

from builder.activations.corpus import Document

#: Slots of a sketch. The estimate of a similarity s has a standard error of sqrt(s (1 - s) / 128).
SLOTS = 128
_SEED = 1
#: Of a similarity at the threshold, at least this share of pairs share a band.
_FOUND = 0.99
#: The first documents of a bucket that its later ones are compared with.
_FIRST_OF_BUCKET = 8
#: Only so many characters of a document are sketched; it bounds memory.
_MOST_CHARACTERS = 1 << 18
#: Shorter texts are compared by runs of characters: one other word is most of their triples.
_FEW_WORDS = 12
_CHARACTER_RUN = 5
#: Triples held in memory at once, beyond those of one document.
_MOST_SHINGLES = 1 << 17
#: Sketches held in memory at once.
_CHUNK = 1 << 14
#: Scripts that put no spaces between words: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_UNSPACED += "\U00020000-\U0003ffff"
_WORD = re.compile(f"[^\\W{_UNSPACED}]+|[{_UNSPACED}]")


def sketches(documents: Sequence[Document]) -> npt.NDArray[np.uint16]:
    """One sketch per document [n, SLOTS]: the low 16 bits of each slot's smallest hash."""
    found = np.empty((len(documents), SLOTS), dtype=np.uint16)
    held: list[list[str]] = []
    size = 0
    for number, document in enumerate(documents, start=1):
        held.append(_shingles(_sketched_text(document)))
        size += len(held[-1])
        if size >= _MOST_SHINGLES or number == len(documents):
            matrix = rensa.RMinHash.digest_matrix_from_token_sets(held, SLOTS, _SEED)
            slots = np.array(matrix.to_rows(), dtype=np.uint32)
            found[number - len(held) : number] = slots & 0xFFFF
            held, size = [], 0
    return found


def parents(
    table: npt.NDArray[np.uint16], rows: npt.NDArray[np.int64], known: int, threshold: float
) -> npt.NDArray[np.int64]:
    """For each of ``rows`` the place in ``rows`` of its parent, or its own place if it has none.

    ``table`` holds the sketches [n, SLOTS] and may lie on disk; ``rows`` are the documents to
    compare, ascending, each another text. The first ``known`` of them have their clusters and are
    parents only. Memory is some 50 bytes a row, whatever the table's size.
    """
    found = np.arange(len(rows), dtype=np.int64)
    needed = int(np.ceil(threshold * SLOTS - 1e-9))
    width = band_width(threshold)
    for band in range(SLOTS // width):
        keys = _band_keys(table, rows, band * width, width)
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        starts = np.flatnonzero(np.concatenate(([True], ~same)))
        start = np.repeat(starts, np.diff(np.append(starts, len(order))))
        rank = np.arange(len(order)) - start
        for ahead in range(_FIRST_OF_BUCKET):
            later = np.flatnonzero((rank > ahead) & (order >= known))
            if not later.size:
                break
            child, candidate = order[later], order[start[later] + ahead]
            worth = candidate < found[child]
            child, candidate = child[worth], candidate[worth]
            alike = _alike(table, rows[child], rows[candidate], needed)
            found[child[alike]] = candidate[alike]
    return found


def roots(parent: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where following the parents ends, for each place."""
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            return parent
        parent = further


def band_width(threshold: float) -> int:
    """The widest band by which pairs at the threshold are still found as often as they should."""
    for width in range(SLOTS, 1, -1):
        if 1 - (1 - threshold**width) ** (SLOTS // width) >= _FOUND:
            return width
    return 1


def _band_keys(
    table: npt.NDArray[np.uint16], rows: npt.NDArray[np.int64], first: int, width: int
) -> npt.NDArray[np.uint64]:
    """64 bits that follow the slots of a band, for each of the rows."""
    keys = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        slots = np.asarray(table[rows[part], first : first + width]).astype(np.uint64)
        for column in slots.T:
            # An odd factor and a shift mix all bits; two texts that meet by chance are compared.
            keys[part] = (keys[part] ^ column) * np.uint64(0x9E3779B97F4A7C15)
            keys[part] ^= keys[part] >> np.uint64(29)
    return keys


def _alike(
    table: npt.NDArray[np.uint16],
    ones: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
    needed: int,
) -> npt.NDArray[np.bool_]:
    """Whether at least ``needed`` slots of each pair of rows are equal."""
    alike = np.zeros(len(ones), dtype=np.bool_)
    for start in range(0, len(ones), _CHUNK):
        part = slice(start, start + _CHUNK)
        alike[part] = (table[ones[part]] == table[others[part]]).sum(axis=1) >= needed
    return alike


def _sketched_text(document: Document) -> str:
    """What is compared: all contents but those of the system, which many chats share."""
    if not document.messages:
        return document.text[:_MOST_CHARACTERS]
    for left_out in ("system", None):
        said = [
            text
            for message in document.messages
            if message.role != left_out
            for text in (message.content, message.extras)
            if text.strip()
        ]
        if said:
            break
    return "\n".join(said)[:_MOST_CHARACTERS]


def _shingles(text: str) -> list[str]:
    lowered = text.lower()
    words = _WORD.findall(lowered)
    if len(words) >= _FEW_WORDS:
        return list(_runs(words))
    plain = " ".join(words) or lowered.strip()
    last = max(1, len(plain) - _CHARACTER_RUN + 1)
    return [plain[at : at + _CHARACTER_RUN] for at in range(last)]


def _runs(words: Sequence[str]) -> Iterator[str]:
    return map(" ".join, zip(words, words[1:], words[2:], strict=False))
