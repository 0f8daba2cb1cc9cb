"""Poles with made-up texts: what their documents say and how far they reach is chosen here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from builder.endpoint.messages import Fault, Question, Reply
from builder.records import ACTIVATION_SCALE, Example, Label, Pole, Scorer, Window
from builder.scores.items import Pool, Sample, make_pool
from builder.scores.judge import Text, Verdicts
from tests.labels.making import example_of, window_of

ID, HASH = "L00.o_proj.u00", "00aa11bb22cc33dd"


def label_of(text: str | None, labeler: str = "a-model", **facts: object) -> Label:
    return dataclasses.replace(Label(ID, "max", labeler, text), **facts)  # type: ignore[arg-type]


def examples_of(pole: Pole, n: int, *, value: float, first_doc: int, word: str) -> list[Example]:
    """So many examples from ``value`` down to 0.9 of it, each of a document of its own."""
    sign = 1 if pole == "max" else -1
    found = []
    for place in range(n):
        text = f"this text number {place} of its kind says {word} in the middle and goes on a bit"
        example = example_of(text, word, doc_id=first_doc + place, place=place, pole=pole)
        extreme = sign * value * (1 - 0.1 * place / n)
        activations = (np.arange(len(example.roles)) % 3).astype(np.int16)
        activations[example.peak] = round(extreme * ACTIVATION_SCALE)
        found.append(
            dataclasses.replace(example, direction=ID, value=extreme, activations=activations)
        )
    return found


def windows_of(n: int, *, first_doc: int, word: str = "nothing") -> list[Window]:
    return [
        window_of(f"a random text number {at} that says {word} of interest", first_doc + at)
        for at in range(n)
    ]


def sample_of(
    windows: Sequence[Window], reservoir: int = 40, documents: int = 2000, length: int = 49
) -> Sample:
    return Sample(tuple(windows), tuple(range(70_000, 70_000 + reservoir)), documents, length)


def peaks_of(*values: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.asarray([round(v * ACTIVATION_SCALE) for v in values], dtype=np.int16)


def pool_of(
    *, top: int = 20, held_out: int = 60, order: Callable[[list[Example]], list[Example]] = list
) -> Pool:
    """A pole at 0.5 with random documents that reach from 0 to 0.3, a few of them to 0.45."""
    examples = [
        *examples_of("max", top, value=0.5, first_doc=10_000, word="river"),
        *examples_of("min", top, value=0.4, first_doc=20_000, word="boat"),
    ]
    windows = windows_of(held_out, first_doc=50_000)
    reach = np.linspace(0, 0.3, held_out)
    reach[-5:] = 0.42
    peaks = (peaks_of(*np.linspace(0, 0.3, 40)), peaks_of(*reach))
    return make_pool(ID, "max", HASH, order(examples), sample_of(windows), peaks)


class Truth:
    """A judge that answers by a function of the window; counts what it is asked."""

    name = "truth"

    def __init__(self, fits: Callable[[str, Window], float | None]) -> None:
        self.fits = fits
        self.asked: list[tuple[str, Text, Scorer]] = []

    def judge(self, label: str, texts: Sequence[Text], scorer: Scorer) -> Verdicts:
        self.asked += [(label, text, scorer) for text in texts]
        values = tuple(self.fits(label, text.window) for text in texts)
        lost = values.count(None)
        return Verdicts(values, {"lost": lost} if lost else {})


class Scripted:
    """An Asker that answers by a function; keeps the questions."""

    def __init__(self, answer: Callable[[Question], Reply | Fault]) -> None:
        self.answer = answer
        self.questions: list[Question] = []

    def ask(self, question: Question) -> Reply | Fault:
        self.questions.append(question)
        return self.answer(question)
