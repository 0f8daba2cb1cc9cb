"""Is a label nearer to the texts at a pole than to others, by an embedding? No model is asked why.

The verdict is the cosine of the label's and the text's embedding, negative ones as 0. No cosine
means yes on every model, so there is no F1, only the average precision of the order.

All poles are judged on the same random texts. These are embedded in lists that are the same for
every pole, each at most once in a run, so that hundreds of poles do not pay for them hundreds of
times. The held-out examples of both poles of a direction are a list of their own, whatever the
label; the label is another. Which texts share a list never depends on what was asked before, or a
run that is given again would not find the replies that it kept.

Vectors of several widths are of several models, though a server gave all of them the same name.
They cannot be compared. Each list by itself is a good reply and kept, so only who asks for it
(``again``) has the lists of such a pole asked for anew.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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

#: Lists that are not shared by all poles and whose vectors stay in memory for a while, besides
#: those that are on their way.
RECENT = 64

#: Embeds texts anew, whatever was kept before.
Again = Callable[[Sequence[str]], Embedded | Fault]
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
    at every pole. ``again`` asks anew for lists whose widths do not agree.
    """

    def __init__(
        self, embedder: Embedder, shared: Sequence[str] = (), again: Again | None = None
    ) -> None:
        self._embedder = embedder
        self._again = again
        self._lists = [_Once(part) for part in _parts(tuple(shared))]
        # Both poles of a direction are mostly judged at the same time, on the same examples.
        self._recent = _Recent()
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
        named = self._recent.of((label[:MAX_LABEL],))
        first = named.embedded(self._embedder)
        if isinstance(first, Fault):
            return Verdicts((None,) * len(lines), {first.reason: len(lines)})
        own = [self._recent.of(part) for part in _parts(self._own(lines))]
        shared = dict.fromkeys(self._list_of[line] for line in lines if line in self._list_of)
        lists = [named, *own, *shared]
        found = [first, *(each.embedded(self._embedder) for each in lists[1:])]
        if self._again is not None and len(_widths(found)) > 1:
            found = [each.renewed(self._again) for each in lists]
        vectors: dict[str, Vector | str] = {}
        for each, answer in zip(lists[1:], found[1:], strict=True):
            vectors |= _by_text(each.texts, answer)
        (target,) = _by_text(named.texts, found[0]).values()
        usage = Usage()
        for answer in found[: 1 + len(own)]:
            usage += _usage(answer)
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
        self._is_renewed = False

    def embedded(self, embedder: Embedder) -> Embedded | Fault:
        """The vectors, or the reason why there are none."""
        with self._lock:
            if self._found is None:
                self._found = embedder.embedded(self.texts)
            return self._found

    @property
    def is_found(self) -> bool:
        """Whether the answer is here, so that nobody waits for it."""
        return self._found is not None

    def renewed(self, again: Again) -> Embedded | Fault:
        """The same, embedded anew; once, by whichever thread."""
        with self._lock:
            if not self._is_renewed:
                self._found, self._is_renewed = None, True  # on its way again
                self._found = again(self.texts)
            assert self._found is not None
            return self._found


class _Recent:
    """The lists last asked for, each there once; safe to share between threads.

    One that is on its way, or about to be, stays: whoever asks for it next would pay for it twice.
    So there are at most RECENT and those that threads ask for at the moment.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: dict[tuple[str, ...], _Once] = {}

    def __len__(self) -> int:
        return len(self._lists)

    def of(self, texts: tuple[str, ...]) -> _Once:
        """The list of these texts."""
        with self._lock:
            # The last one asked for is the last one forgotten.
            each = self._lists.pop(texts) if texts in self._lists else _Once(texts)
            self._lists[texts] = each
            over = len(self._lists) - RECENT
            if over > 0:
                done = [key for key, old in self._lists.items() if old.is_found and old is not each]
                for key in done[:over]:
                    del self._lists[key]
            return each


def _parts(texts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The lists that texts are embedded in, each one question."""
    return (texts[at : at + AT_ONCE] for at in range(0, len(texts), AT_ONCE))


def _widths(found: Sequence[Embedded | Fault]) -> set[int]:
    return {answer.vectors.shape[-1] for answer in found if isinstance(answer, Embedded)}


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
    return float(np.clip(one @ other / norms, 0.0, 1.0)) if norms else "malformed"


def _usage(found: Embedded | Fault) -> Usage:
    return Usage() if isinstance(found, Fault) else Usage(found.prompt_tokens, 0, found.cost)
