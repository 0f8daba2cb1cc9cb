"""Similar labels: near in what they say, found anew when they change, and only then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from builder.endpoint.messages import Fault
from builder.labels import similar
from builder.labels.similar import LEAST, NEAREST, TF_IDF, similar_labels, standing, tf_idf
from builder.records import HAND, Label, Similar
from builder.store import RunStore
from tests.pages.fixture import make_run


def label(direction: str, text: str | None, explanation: str = "", by: str = "model") -> Label:
    return Label(direction, "max", by, text, explanation)


LABELS = [
    label("a", "prompts for an image generator"),
    label("b", "a prompt that an image generator reads"),
    label("c", "cooking steps with quantities"),
    label("d", "recipes", "Cooking with quantities of flour, step by step."),
    label("e", "月亮"),
    label("f", "诗里的月亮"),
]


def pairs(found: Sequence[Similar]) -> set[tuple[str, str]]:
    return {(item.direction, item.other) for item in found}


def test_labels_that_share_words_or_their_forms_are_similar_both_ways() -> None:
    found = list(similar_labels(LABELS))
    alike = {("a", "b"), ("c", "d"), ("e", "f")}
    assert pairs(found) == alike | {(b, a) for a, b in alike}
    assert {item.by for item in found} == {TF_IDF}
    assert all(LEAST <= item.similarity <= 1 for item in found)


def test_equal_labels_have_similarity_one_and_there_are_at_most_so_many() -> None:
    found = list(similar_labels([label(str(at), "the same words") for at in range(NEAREST + 4)]))
    assert all(item.similarity == pytest.approx(1) for item in found)
    assert Counter(item.direction for item in found) == dict.fromkeys(
        map(str, range(NEAREST + 4)), NEAREST
    )
    assert all(item.direction != item.other for item in found)


def test_weights_are_those_of_the_formula() -> None:
    documents = [Counter({"a": 2, "b": 1}), Counter({"b": 1})]
    a, b = (1 + np.log(2)) * np.log(3), np.log(1.5)
    expected = np.array([[a, b], [0, b]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(tf_idf(documents).toarray(), expected)


@pytest.mark.parametrize("texts", [[], ["…"], ["!", "?"], ["", "x"]])
def test_labels_without_words_are_similar_to_nothing(texts: list[str]) -> None:
    assert list(similar_labels([label(str(at), text) for at, text in enumerate(texts)])) == []


def test_explanations_of_word_counts_make_nothing_similar() -> None:
    said = "By word counts, it is in 19 of 20 examples, none of 400 random documents."
    found = similar_labels(
        [label("a", "oak", said, "keywords"), label("b", "elm", said, "keywords")]
    )
    assert list(found) == []


def test_a_persons_label_stands_for_its_pole_and_one_without_text_for_none() -> None:
    found = standing(
        [
            label("a", "a machine's"),
            label("a", "a person's", by=HAND),
            label("b", "a machine's"),
            label("b", None, by=HAND),
            label("c", "counted", by="keywords"),
            label("c", "a machine's"),
        ]
    )
    assert [item.text for item in found] == ["a person's", "a machine's"]


class _Embedder:
    """Says that labels of one length are alike."""

    name = "lengths"

    def __init__(self, *, answers: bool = True) -> None:
        self.answers, self.asked = answers, 0

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32] | Fault:
        self.asked += 1
        vectors = np.zeros((len(texts), 400), dtype=np.float32)
        vectors[np.arange(len(texts)), [len(text) for text in texts]] = 3.0
        return vectors if self.answers else Fault("http", "404")


def test_an_embedder_decides_where_it_answers_and_words_where_it_does_not() -> None:
    labels = [label("a", "oak"), label("b", "elm"), label("c", "heron")]
    found = list(similar_labels(labels, _Embedder()))
    assert pairs(found) == {("a", "b"), ("b", "a")}
    assert {item.by for item in found} == {"lengths"}
    assert list(similar_labels(labels, _Embedder(answers=False))) == []


def test_similar_labels_are_made_anew_when_labels_change_and_only_then(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "pico",
        name="pico",
        title="P",
        seed=5,
        layers=2,
        ranks=2,
        documents=12,
        scored=False,
    )
    database = run / "run.duckdb"
    similar.refresh(database)
    before = database.stat().st_mtime_ns
    similar.refresh(database)
    assert database.stat().st_mtime_ns == before
    with RunStore(database, read_only=False) as store:
        first, second = store.directions()[:2]
        for row in (first, second):
            assert not any(item.by == "lengths" for item in store.similar(row.id))
        store.replace_labels(
            [
                Label(first.id, "max", HAND, "winter moths"),
                Label(second.id, "min", HAND, "moths of the winter"),
            ]
        )
    similar.refresh(database)
    with RunStore(database) as store:
        nearest = next(item for item in store.similar(first.id) if item.pole == "max")
    assert (nearest.other, nearest.other_pole) == (second.id, "min")

    embedder = _Embedder()
    similar.refresh(database, embedder)
    similar.refresh(database, embedder)
    similar.refresh(database)
    assert embedder.asked == 1
