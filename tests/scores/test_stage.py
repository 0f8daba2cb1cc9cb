"""The stage scores what is labelled, writes it whole, and does nothing twice."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import pipeline
from builder.config import ScoreSettings
from builder.endpoint.messages import Fault, Question, Reply
from builder.errors import ConfigError, StoreError
from builder.records import HAND, POLES, Label, Pole, Score
from builder.run_folder import Run
from builder.score_stage import in_order, make_scores, pole_pools
from builder.scores.words import JUDGE as WORDS
from builder.store import RunStore
from tests.scanned import run_of, scan, write_texts
from tests.scores.making import Scripted

WORDS_OF = [f"alpha{n}" for n in range(7)] + [f"beta{n}" for n in range(11)]
SCAN = {"top": 8, "reservoir": 25, "held_out": 30, "shard_documents": 40}


def _texts(n: int) -> list[str]:
    return [
        f"document {n} " + " ".join(WORDS_OF[(n * k + k) % len(WORDS_OF)] for k in range(1, 12))
        for n in range(n)
    ]


def _scanned(folder: Path, *, copies: int = 1) -> Run:
    folder.mkdir(parents=True)
    sources = [write_texts(folder / f"{copy}.jsonl", _texts(120)) for copy in range(copies)]
    run = run_of(folder / "run", *sources, scan=SCAN)
    scan(run)
    return run


def _label(run: Run, make: Callable[[str, Pole], list[Label]]) -> None:
    with RunStore(run.database_path, read_only=False) as store:
        labels = [
            label for row in store.directions() for pole in POLES for label in make(row.id, pole)
        ]
        store.replace_labels(labels, fingerprint="made up")


def _with_model(run: Run, **score: object) -> Run:
    settings = run.settings.model_copy(
        update={"score": ScoreSettings.model_validate({"model": "a-judge", **score})}
    )
    return dataclasses.replace(run, settings=settings)


def _grades(question: Question, fit: Callable[[str], int]) -> Reply:
    lines = [line for line in question.user.split("\n") if line.startswith("text: ")][1:]
    verdicts = [{"number": at, "fit": fit(line)} for at, line in enumerate(lines, 1)]
    return Reply(
        json.dumps({"verdicts": verdicts}), "stop", prompt_tokens=50, completion_tokens=9, cost=0.5
    )


def _scores(run: Run) -> list[Score]:
    with RunStore(run.database_path) as store:
        return store.scores(judged=True, candidates=True)


def _alpha(direction: str, pole: Pole) -> list[Label]:
    return [Label(direction, pole, "keywords", "alpha1, alpha2")]


def _candidates(direction: str, pole: Pole) -> list[Label]:
    texts = ("alpha1", None, "beta1")
    return [
        Label(direction, pole, "a-model", text, candidate=at, is_chosen=at == 1, confidence=0.5)
        for at, text in enumerate(texts)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return _scanned(tmp_path / "one")


def test_keyword_labels_are_scored_by_their_words(run: Run) -> None:
    _label(run, _alpha)
    settings = run.settings.model_copy(update={"score": ScoreSettings(random=6)})
    run = dataclasses.replace(run, settings=settings)
    assert pipeline.make_scores(run) == {"scored": 8, "unparsed_texts": 0}
    scores = _scores(run)
    assert Counter(score.scorer for score in scores) == {"detection": 8, "fuzzing": 8}
    for score in scores:
        assert score.judge == WORDS
        assert score.split == "test"
        assert score.n_positive + score.n_negative == len(score.judged)
        assert score.f1 is not None
        assert score.cost == 0.0
        strata = Counter(item.stratum for item in score.judged)
        at_random = strata["middle"] + strata["random"]
        # Counting words in whole texts costs nothing, and takes all there are.
        assert at_random <= 6 if score.scorer == "fuzzing" else at_random > 15
        assert sum(item.weight for item in score.judged) == pytest.approx(1 - score.between)


def test_scores_follow_from_what_is_stored_of_the_judged_texts(run: Run) -> None:
    _label(run, _alpha)
    make_scores(run)
    for score in _scores(run):
        hits = sum(i.weight for i in score.judged if i.truth and (i.verdict or 0) >= 0.5)
        alarms = sum(i.weight for i in score.judged if not i.truth and (i.verdict or 0) >= 0.5)
        missed = sum(i.weight for i in score.judged if i.truth and (i.verdict or 0) < 0.5)
        assert score.f1 == pytest.approx(2 * hits / (2 * hits + alarms + missed))


def test_the_same_labels_give_the_same_bytes_and_are_not_scored_again(
    run: Run, tmp_path: Path
) -> None:
    other = _scanned(tmp_path / "two")
    for item in (run, other):
        _label(item, _alpha)
        make_scores(item)
    with RunStore(run.database_path) as one, RunStore(other.database_path) as two:
        assert one.dump()["scores"] == two.dump()["scores"]
    record = run.folder / "stages" / "scores.json"
    before = record.stat().st_mtime_ns
    assert make_scores(run)["scored"] == 8
    assert record.stat().st_mtime_ns == before
    assert not list(run.folder.glob("tmp*"))


def test_a_changed_label_is_scored_again_and_others_are_left(run: Run) -> None:
    _label(run, _alpha)
    _label(run, lambda direction, pole: [Label(direction, pole, HAND, "beta3")])
    make_scores(run)
    before = {(s.direction, s.pole, s.labeler, s.scorer): s for s in _scores(run)}
    _label(run, lambda direction, pole: [Label(direction, pole, HAND, "beta5")])
    make_scores(run)
    for score in _scores(run):
        key = (score.direction, score.pole, score.labeler, score.scorer)
        if score.labeler == HAND:
            assert score.text == "beta5"
            assert score.judge == WORDS
        else:
            assert score == before[key]


def test_scores_of_a_labeler_without_labels_go(run: Run) -> None:
    _label(run, _alpha)
    make_scores(run)
    stale = dataclasses.replace(_scores(run)[0], labeler="gone")
    with RunStore(run.database_path, read_only=False) as store:
        store.replace_scores("gone", [stale])
    make_scores(run)
    assert {score.labeler for score in _scores(run)} == {"keywords"}


def test_a_label_that_was_made_from_a_judged_document_is_refused(run: Run) -> None:
    with RunStore(run.database_path) as store:
        pools = {
            (pool.direction, pool.pole): pool
            for pool in pole_pools(store, [row.id for row in store.directions()])
        }

    def saw(direction: str, pole: Pole) -> list[Label]:
        document = pools[direction, pole].items["random"][0].window.doc_id
        return [Label(direction, pole, "keywords", "alpha1", example_docs=(5, document))]

    _label(run, saw)
    with pytest.raises(StoreError, match="held out for scores; run `weightatlas label` again"):
        make_scores(run)
    assert _scores(run) == []


def test_what_is_judged_and_what_made_labels_share_no_document(run: Run) -> None:
    pipeline.make_labels(run)
    make_scores(run)
    with RunStore(run.database_path) as store:
        seen = store.example_docs()
        scores = store.scores(judged=True)
    for score in scores:
        judged = {item.doc_id for item in score.judged}
        assert judged
        assert not judged & seen[score.direction, score.pole][score.labeler]


def test_a_models_labels_wait_for_a_judge(run: Run) -> None:
    _label(run, _alpha)
    _label(run, lambda direction, pole: [Label(direction, pole, "a-model", "alpha3")])
    assert make_scores(run) == {"scored": 8, "unparsed_texts": 0, "unjudged_labels": 8}
    assert {score.labeler for score in _scores(run)} == {"keywords"}
    asker = Scripted(lambda question: _grades(question, lambda line: 7))
    assert make_scores(_with_model(run), asker)["scored"] == 8
    own = [score for score in _scores(run) if score.labeler == "a-model"]
    assert {score.judge for score in own} == {"a-judge"}
    assert {round(item.verdict or 0, 3) for score in own for item in score.judged} == {0.7}
    # Four requests of ten texts at most for each score.
    assert all(len(score.judged) <= 60 and score.prompt_tokens >= 50 for score in own)
    assert sum(score.cost or 0 for score in own) == 0.5 * len(asker.questions)


def test_of_several_candidates_the_best_on_select_texts_is_tested_on_others(run: Run) -> None:
    _label(run, _candidates)

    def judge(question: Question) -> Reply:
        (label,) = [line for line in question.user.split("\n") if line.startswith("text: ")][:1]
        word = label.removeprefix("text: ")
        return _grades(question, lambda line: 10 * (word in line))

    make_scores(_with_model(run), Scripted(judge))
    with RunStore(run.database_path) as store:
        labels = store.labels(candidates=True)
        scores = store.scores(judged=True, candidates=True)
        assert store.label_fingerprint("a-model") == "made up"
    assert len(labels) == 24
    for pole in {(label.direction, label.pole) for label in labels}:
        (chosen,) = [x for x in labels if (x.direction, x.pole) == pole and x.is_chosen]
        own = [score for score in scores if (score.direction, score.pole) == pole]
        select = {score.candidate: score for score in own if score.split == "select"}
        test = [score for score in own if score.split == "test"]
        assert set(select) == {0, 2}
        best = max(select.values(), key=lambda score: score.f1 or 0)
        if best.f1:
            assert select[chosen.candidate].f1 == best.f1
            assert {score.scorer for score in test} == {"detection", "fuzzing"}
        else:
            assert chosen.candidate == 0
        seen = {item.doc_id for score in select.values() for item in score.judged}
        assert not seen & {item.doc_id for score in test for item in score.judged}


def test_a_server_that_fails_half_of_the_requests_leaves_honest_numbers(run: Run) -> None:
    _label(run, lambda direction, pole: [Label(direction, pole, "a-model", "alpha3")])
    count = iter(range(10**6))
    lock = threading.Lock()

    def answer(question: Question) -> Reply | Fault:
        with lock:
            turn = next(count)
        return Fault("timeout", "none") if turn % 2 else _grades(question, lambda line: 10)

    summary = make_scores(_with_model(run, batch=5), Scripted(answer))
    scores = _scores(run)
    assert len(scores) == 16
    for score in scores:
        given = [item for item in score.judged if item.verdict is not None]
        assert score.n_positive == sum(item.truth for item in given)
        assert score.n_negative == sum(not item.truth for item in given)
        assert score.unparsed == len(score.judged) - len(given) == score.faults.get("timeout", 0)
        assert all(item.weight == 0 for item in score.judged if item.verdict is None)
    assert summary["unparsed_texts"] == sum(score.unparsed for score in scores) > 50
    # What failed for the moment is tried again, and only that counts as new.
    asker = Scripted(lambda question: _grades(question, lambda line: 10))
    assert make_scores(_with_model(run, batch=5), asker)["unparsed_texts"] == 0
    assert make_scores(_with_model(run, batch=5), Scripted(lambda q: Fault("http", "")))[
        "scored"
    ] == 8  # fmt: skip


def test_scores_do_not_move_when_every_document_is_there_twice(run: Run, tmp_path: Path) -> None:
    twice = _scanned(tmp_path / "twice", copies=2)
    for item in (run, twice):
        _label(item, _alpha)
        make_scores(item)
    with RunStore(twice.database_path) as store:
        counts = Counter({"documents": 0})
        for count in store.counts():
            counts[count.what] += count.n
        assert (counts["documents"], counts["distinct"]) == (240, 120)
    assert _scores(run) == _scores(twice)


def test_without_a_scan_there_is_nothing_to_score(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", write_texts(tmp_path / "a.jsonl", _texts(3)))
    with pytest.raises(ConfigError, match="nothing is scanned yet"):
        make_scores(run)


def test_results_come_in_order_whoever_is_done_first() -> None:
    gate = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            gate.wait(10)
        if item == 3:
            gate.set()
        return item * item

    assert list(in_order(work, range(8), 4)) == [n * n for n in range(8)]
    assert list(in_order(lambda item: -item, range(3), 0)) == [0, -1, -2]
