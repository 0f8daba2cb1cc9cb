"""Embeddings order texts by nearness to the label; a bad answer is no verdict."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from builder.endpoint.embeddings import AT_ONCE, Embedded, embedding_questions
from builder.endpoint.messages import Fault
from builder.records import STRATA
from builder.scores.embedding import RECENT, EmbeddingJudge
from builder.scores.judge import Text
from builder.scores.scoring import Plan, score_label
from tests.labels.making import window_of
from tests.scores.making import label_of, pool_of


class Letters:
    """Embeds a text as its counts of letters; keeps the lists it was asked for."""

    name = "letters"

    def __init__(self, found: npt.NDArray[np.float32] | Fault | None = None) -> None:
        self.found = found
        self.asked: list[tuple[str, ...]] = []

    def embedded(self, texts: Sequence[str]) -> Embedded | Fault:
        self.asked.append(tuple(texts))
        if isinstance(self.found, Fault):
            return self.found
        if self.found is not None:
            return Embedded(self.found)
        letters = "abcdefghijklmnopqrstuvwxyz"
        rows = [[text.count(c) for c in letters] for text in texts]
        return Embedded(np.array(rows, dtype=np.float32), 10 * len(texts), 0.5)


def test_nearer_texts_have_higher_verdicts() -> None:
    texts = [Text(window_of(text), 0) for text in ("rrrivver", "xyzzy", "river")]
    found = EmbeddingJudge(Letters()).judge("river", texts, "embedding").values
    assert found[2] == pytest.approx(1.0)
    assert 1.0 > (found[0] or 0.0) > (found[1] or 0.0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Fault("http", "none"), "http"),
        (np.zeros((5, 3), dtype=np.float32), "malformed"),
        (np.full((1, 2), np.nan, dtype=np.float32), "malformed"),
        (np.zeros(3, dtype=np.float32), "malformed"),
        (np.zeros((1, 3), dtype=np.float32), "malformed"),
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
    judge = EmbeddingJudge(Letters())
    plan = Plan({"embedding": judge}, {"embedding": dict.fromkeys(STRATA, 20)})
    score = score_label(label_of("river"), pool_of(), "embedding", plan, "test")
    assert (score.f1, score.f1_interval, score.chance) == (None, None, None)
    assert score.value == score.auprc is not None
    assert score.auprc_interval is not None


def _texts(*texts: str) -> list[Text]:
    return [Text(window_of(text), 0) for text in texts]


SHARED = [f"random text {number}" for number in range(2 * AT_ONCE + 3)]


def test_texts_that_poles_share_are_embedded_once_and_only_when_they_are_needed() -> None:
    letters = Letters()
    judge = EmbeddingJudge(letters, SHARED)
    for pole in range(5):
        texts = _texts(f"own text of pole {pole}", SHARED[pole], SHARED[-1 - pole], SHARED[0])
        found = judge.judge(f"label {pole}", texts, "embedding")
        alone = EmbeddingJudge(Letters()).judge(f"label {pole}", texts, "embedding")
        assert found.values == alone.values
        assert None not in found.values
    lists = [tuple(SHARED[at : at + AT_ONCE]) for at in range(0, len(SHARED), AT_ONCE)]
    asked = [each for each in letters.asked if len(each) > 1]
    assert sorted(asked) == sorted([lists[0], lists[2], lists[1]])
    assert len(letters.asked) == 2 * 5 + 3
    assert letters.asked.index(lists[1]) > letters.asked.index(("own text of pole 3",))


def test_a_list_on_its_way_is_never_asked_for_twice_however_many_are_with_it() -> None:
    go_on = threading.Event()
    lock = threading.Lock()
    waiting = threading.Semaphore(0)
    threads = 2 * RECENT

    class Slow(Letters):
        def embedded(self, texts: Sequence[str]) -> Embedded | Fault:
            with lock:
                found = super().embedded(texts)
            waiting.release()
            go_on.wait(20)
            return found

    slow = Slow()
    judge = EmbeddingJudge(slow)
    labels = ["same", *(f"label {number}" for number in range(threads)), "same"]
    texts = _texts("a text")
    with ThreadPoolExecutor(len(labels)) as pool:
        asked = []
        for label in labels[:-1]:
            asked.append(pool.submit(judge.judge, label, texts, "embedding"))
            assert waiting.acquire(timeout=20)
        asked.append(pool.submit(judge.judge, labels[-1], texts, "embedding"))
        # Asked twice, it would be at once; there is no moment at which it can be known not to be.
        waiting.acquire(timeout=0.1)
        go_on.set()
        assert all(None not in each.result(20).values for each in asked)
    assert set(Counter(slow.asked).values()) == {1}
    assert len(slow.asked) == len(set(labels)) + 1
    # What is here is forgotten when others come.
    judge.judge("another", texts, "embedding")
    assert len(judge._recent) <= RECENT
    judge.judge("label 0", texts, "embedding")
    assert Counter(slow.asked)["label 0",] == 2


def test_threads_that_ask_at_the_same_moment_share_one_list() -> None:
    class Shared(Letters):
        def embedded(self, texts: Sequence[str]) -> Embedded | Fault:
            time.sleep(0.0005)
            return super().embedded(texts)

    shared = Shared()
    judge = EmbeddingJudge(shared)
    interval = sys.getswitchinterval()
    meet = threading.Barrier(4)

    def ask() -> None:
        for number in range(100):
            meet.wait(20)
            judge.judge(f"label {number}", _texts(f"text {number}"), "embedding")

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(ask) for _ in range(4)]:
                each.result(60)
    finally:
        sys.setswitchinterval(interval)
    assert set(Counter(shared.asked).values()) == {1}


def test_what_is_asked_does_not_depend_on_the_order_of_texts_or_on_the_label() -> None:
    own = [f"a text of the pole, number {number}" for number in range(9)]
    asked = []
    for label, texts in (("one", own), ("two", own[::-1])):
        letters = Letters()
        EmbeddingJudge(letters, SHARED).judge(label, _texts(*texts), "embedding")
        assert letters.asked[0] == (label,)
        asked.append(letters.asked[1:])
    assert asked[0] == asked[1]
    assert len(asked[0]) == 1


def test_a_list_without_vectors_leaves_its_own_texts_without_a_verdict() -> None:
    class Half(Letters):
        def embedded(self, texts: Sequence[str]) -> Embedded | Fault:
            found = super().embedded(texts)
            return Fault("timeout", "late") if texts[0] == SHARED[0] else found

    half = Half()
    judge = EmbeddingJudge(half, SHARED)
    for pole in range(3):
        texts = _texts(f"own {pole}", SHARED[1], SHARED[2], SHARED[-1])
        found = judge.judge("label", texts, "embedding")
        assert [value is None for value in found.values] == [False, True, True, False]
        assert found.faults == {"timeout": 2}
        # The label and the text of its own; what poles share is counted for none of them.
        assert (found.usage.prompt_tokens, found.usage.cost) == (20, 1.0)
    # Nobody waits for a list that failed at every pole.
    assert sum(each[0] == SHARED[0] for each in half.asked) == 1


def test_vectors_of_another_width_than_that_of_the_label_are_no_verdicts() -> None:
    class Wider(Letters):
        def embedded(self, texts: Sequence[str]) -> Embedded | Fault:
            return Embedded(np.ones((len(texts), len(texts[0])), np.float32))

    found = EmbeddingJudge(Wider()).judge("label", _texts("a longer text"), "embedding")
    assert (found.values, found.faults) == ((None,), {"malformed": 1})


def test_the_questions_are_those_that_are_then_asked() -> None:
    letters = Letters()
    judge = EmbeddingJudge(letters, SHARED)
    texts = _texts("own", SHARED[1], SHARED[-1])
    questions = [question.user for question in judge.questions("label", texts)]
    judge.judge("label", texts, "embedding")
    asked = [question.user for each in letters.asked for question in embedding_questions(each)]
    assert questions == asked
    assert list(judge.questions("label", [])) == []
    assert judge.judge("label", [], "embedding").values == ()
    assert len(letters.asked) == 4
