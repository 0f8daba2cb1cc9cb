"""Which poles' labels say much the same? Nearest labels by their words, or by embeddings.

By default each label is a vector of its words and of the four-letter pieces of them (so that
"prompt" and "prompts" meet), weighted by TF-IDF (Spärck Jones 1972): the logarithm of how often,
times the logarithm of how few labels have it. With an :class:`Embedder` it is the embedding of what
the label says. Similarity is the cosine. Labels of controls are among them: that chance says the
same is worth knowing.

The result depends on the labels alone, so it is made anew when these change and only then.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import xxhash
from scipy import sparse

from builder.endpoint.messages import Fault
from builder.labels.precedence import precedence
from builder.labels.terms import EMOJI, units
from builder.records import KEYWORDS, Label, Pole, Similar
from builder.store import RunStore

#: Similar labels kept for each pole.
NEAREST = 6
#: Labels less alike than this are not called similar.
LEAST = 0.25
#: Name of the measure by words.
TF_IDF = "TF-IDF"
#: Raised with every change that may change a result.
VERSION = 1

_PIECE = 4
#: Labels compared with all others at once; bounds memory.
_AT_ONCE = 512
_FINGERPRINT = "similar_fingerprint"
_KINDS = frozenset({"word", "character", "emoji"})

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Who turns texts into vectors."""

    @property
    def name(self) -> str:
        """The model, as pages name it."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors | Fault:
        """One vector for each text, [texts, width], or why there is none."""
        ...


def refresh(database: Path, embedder: Embedder | None = None) -> None:
    """Brings the similar labels of a run up to date with its labels.

    Does nothing where they are. Without ``embedder`` similar labels by embeddings stay as they are
    while the labels do; where the embedder has no answer, words decide.
    """
    with RunStore(database) as store:
        labels = standing(store.labels())
        said = [(label.direction, label.pole, _said(label)) for label in labels]
        digest = xxhash.xxh3_64_hexdigest(ascii((VERSION, said)).encode())
        known = store.meta().get(_FINGERPRINT)
    if known is None and not labels:
        return
    if known and known[0] == digest and (embedder is None or known[1] == embedder.name):
        return
    by, vectors = _measured(labels, embedder)
    found = list(_nearest(labels, by, vectors))
    with RunStore(database, read_only=False) as store:
        store.replace_similar(found)
        store.update_meta({_FINGERPRINT: [digest, by]})


def standing(labels: Iterable[Label]) -> list[Label]:
    """The label that stands for each pole, where it has a text."""
    best: dict[tuple[str, Pole], Label] = {}
    for label in sorted(labels, key=precedence):
        best.setdefault((label.direction, label.pole), label)
    return [best[key] for key in sorted(best) if best[key].text]


def compared_texts(labels: Iterable[Label]) -> list[str]:
    """What is embedded to find similar labels: what each label that stands for a pole says."""
    return [_said(label) for label in standing(labels)]


def similar_labels(labels: Sequence[Label], embedder: Embedder | None = None) -> Iterator[Similar]:
    """For each label the NEAREST others that are at least LEAST alike, nearest first."""
    return _nearest(labels, *_measured(labels, embedder))


def nearest_across(
    groups: Sequence[Sequence[Label]],
) -> dict[tuple[int, int], tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """For each two groups of labels, (one, two): which label of two is most like each of one.

    Indices into two and similarities from 0 to 1, by TF-IDF over the labels of all groups; of
    equally similar ones the first. Where two is empty, index and similarity are 0.
    """
    vectors = tf_idf([Counter(_terms(_said(label))) for group in groups for label in group])
    ends = np.cumsum([0, *map(len, groups)]).tolist()
    found = {}
    for one, two in itertools.combinations(range(len(groups)), 2):
        there = np.zeros(len(groups[one]), np.int64), np.zeros(len(groups[one]))
        back = np.zeros(len(groups[two]), np.int64), np.zeros(len(groups[two]))
        found[one, two], found[two, one] = there, back
        if not groups[one] or not groups[two]:
            continue
        others = vectors[ends[two] : ends[two + 1]].T
        for first in range(ends[one], ends[one + 1], _AT_ONCE):
            stop = min(first + _AT_ONCE, ends[one + 1])
            cosines = np.round((vectors[first:stop] @ others).toarray(), 6)
            rows = slice(first - ends[one], stop - ends[one])
            there[0][rows], there[1][rows] = cosines.argmax(axis=1), cosines.max(axis=1)
            best = cosines.max(axis=0)
            nearer = best > back[1]
            back[0][nearer] = cosines.argmax(axis=0)[nearer] + rows.start
            back[1][nearer] = best[nearer]
    return found


def _measured(labels: Sequence[Label], embedder: Embedder | None) -> tuple[str, sparse.csr_array]:
    """What labels are measured by, and their unit vectors."""
    texts = [_said(label) for label in labels]
    if embedder and texts:
        vectors = embedder.embed(texts)
        if not isinstance(vectors, Fault) and len(vectors) == len(texts):
            return embedder.name, sparse.csr_array(_unit(np.asarray(vectors, dtype=np.float32)))
    return TF_IDF, tf_idf([Counter(_terms(text)) for text in texts])


def _nearest(labels: Sequence[Label], by: str, vectors: sparse.csr_array) -> Iterator[Similar]:
    for first in range(0, len(labels), _AT_ONCE):
        cosines = (vectors[first : first + _AT_ONCE] @ vectors.T).toarray()
        for row, values in enumerate(cosines):
            own = labels[first + row]
            values[first + row] = -1.0
            # Ties in the order of the labels, whatever the machine.
            for at in np.lexsort((np.arange(len(values)), -np.round(values, 6)))[:NEAREST].tolist():
                value = min(float(values[at]), 1.0)
                if value >= LEAST:
                    other = labels[at]
                    yield Similar(own.direction, own.pole, other.direction, other.pole, value, by)


def tf_idf(documents: Sequence[Counter[str]]) -> sparse.csr_array:
    """Unit vectors [documents, terms] of (1 + ln count) ln((1 + n) / documents with the term)."""
    having = Counter(term for document in documents for term in document)
    columns = {term: at for at, term in enumerate(sorted(having))}
    rows: list[int] = []
    at: list[int] = []
    values: list[float] = []
    for row, document in enumerate(documents):
        weights = {
            term: (1 + math.log(count)) * math.log((1 + len(documents)) / having[term])
            for term, count in document.items()
        }
        length = math.sqrt(math.fsum(weight**2 for weight in weights.values()))
        for term, weight in sorted(weights.items()):
            rows.append(row)
            at.append(columns[term])
            values.append(weight / length)
    return sparse.csr_array((values, (rows, at)), shape=(len(documents), max(1, len(columns))))


def _said(label: Label) -> str:
    """What a label says: its text, twice, for it counts most; its explanation and keywords.

    The explanation of word counts is the same sentence everywhere and is left out.
    """
    explanation = "" if label.labeler == KEYWORDS else label.explanation
    return "\n".join((label.text or "", label.text or "", explanation, *label.keywords))


def _terms(text: str) -> Iterator[str]:
    for unit in units(text):
        if unit.kind in _KINDS:
            yield unit.term
            if unit.format == EMOJI:
                yield EMOJI
            if unit.kind == "word" and len(unit.term) > _PIECE:
                # A mark at both ends tells beginnings from endings, and pieces from words.
                marked = f"^{unit.term}$"
                yield from (marked[at : at + _PIECE] for at in range(len(marked) - _PIECE + 1))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
