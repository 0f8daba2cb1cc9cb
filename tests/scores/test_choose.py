"""Of several candidates the best on select texts is chosen; percentiles say what chance gives."""

from __future__ import annotations

import dataclasses

import pytest

from builder.records import Label, LabelFailure, Score
from builder.scores.choose import choose
from builder.scores.percentile import Controls, control_scores
from tests.scores.making import label_of


def _chosen(texts: list[str | None], f1: list[float | None], confidence: list[float]) -> int:
    labels = [
        label_of(text, candidate=at, confidence=sure)
        for at, (text, sure) in enumerate(zip(texts, confidence, strict=True))
    ]
    found = choose(labels, f1)
    (best,) = [label.candidate for label in found if label.is_chosen]
    assert [label.text for label in found] == texts
    return best


@pytest.mark.parametrize(
    ("texts", "f1", "confidence", "wanted"),
    [
        (["a", "b", "c"], [0.2, 0.9, 0.4], [0.9, 0.1, 0.9], 1),
        (["a", "b", "c"], [0.5, 0.5, 0.5], [0.1, 0.3, 0.3], 1),
        (["a", "b"], [0.5, 0.5], [0.3, 0.3], 0),
        ([None, "b"], [None, 0.1], [1.0, 0.0], 1),
        ([None, "b"], [None, 0.0], [0.5, 0.2], 0),
        (["a", None], [None, None], [1.0, 0.0], 1),
        (["a", "b"], [None, 0.0], [1.0, 0.0], 1),
    ],
)
def test_the_best_on_select_texts_is_chosen(
    texts: list[str | None], f1: list[float | None], confidence: list[float], wanted: int
) -> None:
    assert _chosen(texts, f1, confidence) == wanted


def _score(direction: str, f1: float | None) -> Score:
    return Score(direction, "max", "keywords", "detection", "words", "text", f1, f1)


def test_a_percentile_is_the_share_of_control_poles_below() -> None:
    scores = [_score("real", 0.5), _score("c1", 0.2), _score("c2", 0.5), _score("c3", None)]
    labels = [
        Label(direction, "max", "keywords", text)
        for direction, text in (("real", "t"), ("c1", "t"), ("c2", "t"), ("c3", "t"), ("c4", None))
    ]
    failures = [
        LabelFailure("c5", "max", "keywords", "no_examples"),
        LabelFailure("c6", "max", "keywords", "timeout"),
        LabelFailure("c1", "max", "keywords", "timeout", candidate=1),
        LabelFailure("real", "min", "keywords", "no_examples"),
    ]
    controls = {"c1", "c2", "c3", "c4", "c5", "c6"}
    found = control_scores(scores, labels, failures, controls)
    assert found == {("keywords", "detection"): Controls((0.0, 0.0, 0.2, 0.5), unknown=2)}
    known = found["keywords", "detection"]
    assert known.better_than(0.6) == 1.0
    assert known.better_than(0.5) == pytest.approx(3.5 / 4)
    assert known.better_than(0.0) == pytest.approx(1 / 4)
    assert known.quantile(0.95) == 0.5


def test_what_has_no_f1_is_compared_by_auprc_with_scored_controls_only() -> None:
    scores = [
        dataclasses.replace(_score(direction, None), scorer="embedding", auprc=auprc)
        for direction, auprc in (("real", 0.9), ("c1", 0.2), ("c2", 0.4), ("c3", None))
    ]
    labels = [Label(name, "max", "keywords", text) for name, text in (("c1", "t"), ("c4", None))]
    failures = [LabelFailure("c5", "max", "keywords", "no_examples")]
    controls = {"c1", "c2", "c3", "c4", "c5"}
    found = control_scores([*scores, _score("c1", 0.7)], labels, failures, controls)
    assert found == {
        ("keywords", "embedding"): Controls((0.2, 0.4), unknown=3),
        ("keywords", "detection"): Controls((0.0, 0.0, 0.7)),
    }
    # An order no better than a random one is not better than controls without a label.
    assert found["keywords", "embedding"].better_than(0.08) == 0.0


def test_without_controls_there_is_no_percentile() -> None:
    (found,) = control_scores([_score("real", 0.5)], [], [], set()).values()
    assert found.better_than(0.9) is None
    assert found.quantile(0.5) is None
