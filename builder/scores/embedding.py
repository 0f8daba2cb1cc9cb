"""Is a label nearer to the texts at a pole than to others, by an embedding? No model is asked why.

The verdict is the cosine of the label's and the text's embedding, negative ones as 0. No cosine
means yes on every model, so there is no F1, only the average precision of the order.

All poles are judged on the same random texts. These are embedded in lists that are the same for
every pole, each at most once in a run, so that hundreds of poles do not pay for them hundreds of
times. The held-out examples of both poles of a direction are a list of their own, whatever the
label; the label is another. Which texts share a list never depends on what was asked before, or a
run that is given again would not find the replies that it kept.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from builder.endpoint.embeddings import AT_ONCE, Embedded, embedding_questions
from builder.endpoint.messages import Fault, Question
from builder.records import Scorer, Window
from builder.scores.items import Sample
from builder.scores.judge import Text, Usage, Verdicts
from builder.scores.model_judge import MAX_LABEL
from builder.scores.shown import shown

#: Lists that are not shared by all poles and whose vectors stay in memory for a while.
RECENT = 64

Vector = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Who embeds texts; may be shared between threads."""

    @property
    def name(self) -> str:
        """The model."""
        ...

    def embedded(self, texts: Sequence[str]) -> Embedded | Fault:
        """Vectors [texts, width] and what they took, or why there are none."""
        ...


def random_texts(windows: Sequence[Window], length: int) -> list[str]:
    """The random documents of a run as a judge is shown them: their stretches of ``length`` tokens.

    In the order of the windows, each text once.
    """
    sample = Sample(tuple(windows), (), 0, length)
    texts = (
        shown(Text(part, centre))
        for (_, part), centre in zip(sample.stretches, sample.centres, strict=True)
    )
    return list(dict.fromkeys(texts))


class EmbeddingJudge:
    """Judges by the nearness of embeddings.

    ``shared`` are texts that many poles are judged on, and that are embedded once. Their vectors
    stay in memory, and so does the reason where a list of them has none: it is not asked for again
    at every pole.
    """

    def __init__(self, embedder: Embedder, shared: Sequence[str] = ()) -> None:
        self._embedder = embedder
        self._lists = [
            _Once(tuple(shared[at : at + AT_ONCE])) for at in range(0, len(shared), AT_ONCE)
        ]
        # Both poles of a direction are mostly judged at the same time, on the same examples.
        self._recent = lru_cache(maxsize=RECENT)(_Once)
        self._list_of = {text: each for each in self._lists for text in each.texts}

    @property
    def name(self) -> str:
        """The model that embeds."""
        return self._embedder.name

    def judge(self, label: str, texts: Sequence[Text], scorer: Scorer) -> Verdicts:
        """A verdict for every text whose embedding came; what shared texts took is not counted.

        Raises LabelerError when no further question could be answered either.
        """
        del scorer  # only the texts as a whole are embedded
        lines = [shown(text) for text in texts]
        if not lines:
            return Verdicts(())
        named = self._recent((label[:MAX_LABEL],)).embedded(self._embedder)
        if isinstance(named, Fault):
            return Verdicts((None,) * len(lines), {named.reason: len(lines)})
        (target,) = _by_text([label], named).values()
        own = self._own(lines)
        found = self._recent(own).embedded(self._embedder) if own else None
        usage = _usage(named) + (_usage(found) if isinstance(found, Embedded) else Usage())
        vectors: dict[str, Vector | str] = {}
        if found is not None:
            vectors |= _by_text(own, found)
        for each in dict.fromkeys(self._list_of[line] for line in lines if line in self._list_of):
            vectors |= _by_text(each.texts, each.embedded(self._embedder))
        faults: Counter[str] = Counter()
        values: list[float | None] = []
        for line in lines:
            verdict = _nearness(target, vectors[line])
            faults.update([verdict] if isinstance(verdict, str) else [])
            values.append(None if isinstance(verdict, str) else verdict)
        return Verdicts(tuple(values), dict(sorted(faults.items())), usage)

    def questions(self, label: str, texts: Sequence[Text]) -> Iterator[Question]:
        """Every question that :meth:`judge` would ask; those of shared lists at every pole."""
        lines = [shown(text) for text in texts]
        if lines:
            yield from embedding_questions([label[:MAX_LABEL]])
            yield from embedding_questions(self._own(lines))
        for each in self._lists:
            if not set(each.texts).isdisjoint(lines):
                yield from embedding_questions(each.texts)

    def _own(self, lines: Sequence[str]) -> tuple[str, ...]:
        """The texts that are not shared, each once, in an order that follows from them alone."""
        return tuple(sorted({line for line in lines if line not in self._list_of}))


class _Once:
    """Texts that are embedded when they are first asked for, and once, by whichever thread."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts
        self._lock = threading.Lock()
        self._found: Embedded | Fault | None = None

    def embedded(self, embedder: Embedder) -> Embedded | Fault:
        """The vectors, or the reason why there are none."""
        with self._lock:
            if self._found is None:
                self._found = embedder.embedded(self.texts)
            return self._found


def _by_text(texts: Sequence[str], found: Embedded | Fault) -> dict[str, Vector | str]:
    if isinstance(found, Fault):
        return dict.fromkeys(texts, found.reason)
    if found.vectors.ndim != 2 or len(found.vectors) != len(texts):
        return dict.fromkeys(texts, "malformed")
    return dict(zip(texts, found.vectors, strict=True))


def _nearness(label: Vector | str, text: Vector | str) -> float | str:
    """The cosine, from 0 to 1, or why there is none."""
    if isinstance(label, str) or isinstance(text, str):
        return label if isinstance(label, str) else str(text)
    # A server may have another model behind the same name than when it embedded the one or other.
    if label.shape != text.shape:
        return "malformed"
    one, other = label.astype(np.float64), text.astype(np.float64)
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return "malformed"
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(one @ other / max(norms, 1e-12), 0.0, 1.0))


def _usage(found: Embedded) -> Usage:
    return Usage(found.prompt_tokens, 0, found.cost)
