"""Embeddings order texts by nearness to the label; a bad answer is no verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from builder.endpoint.messages import Fault
from builder.records import STRATA
from builder.scores.embedding import EmbeddingJudge
from builder.scores.judge import Text
from builder.scores.scoring import Plan, score_label
from tests.labels.making import window_of
from tests.scores.making import label_of, pool_of


class Letters:
    """Embeds a text as its counts of letters."""

    name = "letters"

    def __init__(self, found: npt.NDArray[np.float32] | Fault | None = None) -> None:
        self.found = found

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32] | Fault:
        if self.found is not None:
            return self.found
        letters = "abcdefghijklmnopqrstuvwxyz"
        return np.array([[text.count(c) for c in letters] for text in texts], dtype=np.float32)


def test_nearer_texts_have_higher_verdicts() -> None:
    texts = [Text(window_of(text), 0) for text in ("rrrivver", "xyzzy", "river")]
    found = EmbeddingJudge(Letters()).judge("river", texts, "embedding").values
    assert found[2] == pytest.approx(1.0)
    assert 1.0 > (found[0] or 0.0) > (found[1] or 0.0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Fault("http", "none"), "http"),
        (np.zeros((1, 3), dtype=np.float32), "malformed"),
        (np.full((3, 2), np.nan, dtype=np.float32), "malformed"),
    ],
)
def test_without_vectors_there_is_no_verdict(
    answer: npt.NDArray[np.float32] | Fault, reason: str
) -> None:
    texts = [Text(window_of(text), 0) for text in ("one", "two")]
    found = EmbeddingJudge(Letters(answer)).judge("river", texts, "embedding")
    assert found.values == (None, None)
    assert found.faults == {reason: 2}


def test_a_score_by_embeddings_has_an_order_but_no_f1() -> None:
    plan = Plan({"embedding": EmbeddingJudge(Letters())}, {"embedding": dict.fromkeys(STRATA, 20)})
    score = score_label(label_of("river"), pool_of(), "embedding", plan, "test")
    assert score.f1 is None
    assert score.auprc is not None
    assert score.auprc_interval is not None
