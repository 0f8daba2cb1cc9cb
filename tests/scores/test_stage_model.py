"""Labels are judged by a model over HTTP: asked once, within a budget, with honest numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder import cli
from builder.errors import ConfigError, LabelerError
from builder.records import Label, Score
from builder.run_folder import Run
from builder.score_stage import make_scores, plan_scores
from builder.store import RunStore
from tests.endpoint.asking import environment
from tests.labels.endpoint import Response, completion, error, serving
from tests.scores.running import all_scores, alpha, candidates_of, judged_by, put_labels, scanned

__all__ = ["environment"]

Body = dict[str, Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return scanned(tmp_path / "one")


def _said(body: Body) -> list[str]:
    """The label, and the texts."""
    user = str(body["messages"][1]["content"])
    return [line.removeprefix("text: ") for line in user.split("\n") if line.startswith("text: ")]


def _graded(body: Body, fit: Callable[[str], int]) -> Response:
    verdicts = [{"number": at, "fit": fit(text)} for at, text in enumerate(_said(body)[1:], 1)]
    return completion(json.dumps({"verdicts": verdicts}))


def _one(direction: str, pole: Any) -> list[Label]:
    # Poles with the same label may be asked the same about the same texts, and then only once.
    return [Label(direction, pole, "a-model", f"alpha3 of {direction} {pole}")]


def test_a_models_labels_wait_for_a_judge(run: Run) -> None:
    put_labels(run, alpha)
    put_labels(run, _one)
    assert make_scores(run) == {"scored": 8, "unparsed_texts": 0, "unjudged_labels": 8}
    assert {score.labeler for score in all_scores(run)} == {"keywords"}
    with serving(lambda number, body: _graded(body, lambda text: 7)) as server:
        assert make_scores(judged_by(run, server.url)) == {"scored": 8, "unparsed_texts": 0}
    own = [score for score in all_scores(run) if score.labeler == "a-model"]
    assert {score.judge for score in own} == {"a-judge"}
    assert {round(item.verdict or 0, 3) for score in own for item in score.judged} == {0.7}
    assert all(0 < len(score.judged) <= 60 for score in own)
    (spend,) = _spend(run)
    assert spend == ("scores", "a-judge", len(server.requests), 100 * len(server.requests))
    assert sum(score.prompt_tokens for score in own) == 100 * len(server.requests)


def test_a_judge_named_by_its_folder_is_published_without_the_place(run: Run) -> None:
    put_labels(run, _one)
    with serving(lambda number, body: _graded(body, lambda text: 7)) as server:
        make_scores(judged_by(run, server.url, model="/home/alice/models/a-judge"))
        assert server.requests[0]["model"] == "/home/alice/models/a-judge"
    with RunStore(run.database_path) as store:
        assert {score.judge for score in store.scores()} == {"a-judge"}
        assert "alice" not in json.dumps(store.meta())
        assert server.url not in json.dumps(store.meta())
    assert _spend(run)[0][1] == "a-judge"


def _spend(run: Run) -> list[tuple[str, str, int, int]]:
    with RunStore(run.database_path) as store:
        return [(s.stage, s.model, s.requests, s.prompt_tokens) for s in store.spend()]


def test_of_several_candidates_the_best_on_select_texts_is_tested_on_others(run: Run) -> None:
    put_labels(run, candidates_of)
    with serving(
        lambda number, body: _graded(body, lambda text: 10 * (_said(body)[0] in text))
    ) as server:
        make_scores(judged_by(run, server.url))
        asked = len(server.requests)
        make_scores(judged_by(run, server.url))
        assert len(server.requests) == asked
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


def test_what_was_chosen_stays_chosen_when_the_labels_are_put_again(run: Run) -> None:
    put_labels(run, candidates_of)
    with serving(
        lambda number, body: _graded(body, lambda text: 10 * (_said(body)[0] in text))
    ) as server:
        judged = judged_by(run, server.url)
        make_scores(judged)
        with RunStore(run.database_path) as store:
            chosen = store.labels()
        assert {label.candidate for label in chosen} != {1}
        put_labels(run, candidates_of)
        with RunStore(run.database_path) as store:
            assert {label.candidate for label in store.labels()} == {1}
        asked = len(server.requests)
        make_scores(judged)
        assert len(server.requests) == asked
    with RunStore(run.database_path) as store:
        assert store.labels() == chosen


def test_a_server_that_fails_half_of_the_requests_leaves_honest_numbers(run: Run) -> None:
    put_labels(run, _one)

    def answer(number: int, body: Body) -> Response:
        return error(400, "no") if number % 2 else _graded(body, lambda text: 10)

    with serving(answer) as server:
        judged = judged_by(run, server.url, batch=5)
        summary = make_scores(judged)
        asked = len(server.requests)
        _check_half(all_scores(run))
        lost = sum(score.unparsed for score in all_scores(run))
        assert summary["unparsed_texts"] == lost > 50
        # What failed for the moment is asked again, and nothing else is.
        server.answer = lambda number, body: _graded(body, lambda text: 10)
        assert make_scores(judged)["unparsed_texts"] == 0
        assert len(server.requests) == asked + asked // 2
        make_scores(judged)
        assert len(server.requests) == asked + asked // 2


def _check_half(scores: list[Score]) -> None:
    assert len(scores) == 16
    for score in scores:
        given = [item for item in score.judged if item.verdict is not None]
        assert score.n_positive == sum(item.truth for item in given)
        assert score.n_negative == sum(not item.truth for item in given)
        assert score.unparsed == len(score.judged) - len(given) == score.faults.get("http", 0)
        assert all(item.weight == 0 for item in score.judged if item.verdict is None)


def test_replies_without_verdicts_are_asked_again_only_on_request(run: Run) -> None:
    put_labels(run, _one)
    with serving(lambda number, body: completion("I would rather not")) as server:
        judged = judged_by(run, server.url)
        first = make_scores(judged)
        assert first["scored"] == 0
        asked = len(server.requests)
        assert make_scores(judged) == first
        assert len(server.requests) == asked
        assert all(set(score.faults) == {"malformed"} for score in all_scores(run))
        server.answer = lambda number, body: _graded(body, lambda text: 0)
        assert make_scores(judged, retry_failed=True) == {"scored": 8, "unparsed_texts": 0}
        assert len(server.requests) == 2 * asked


def test_a_plan_counts_what_is_then_asked_and_asks_nothing(run: Run) -> None:
    put_labels(run, _one)
    with serving(lambda number, body: _graded(body, lambda text: 9)) as server:
        judged = judged_by(run, server.url)
        before = sorted(path.name for path in run.folder.iterdir())
        plan = plan_scores(judged)
        assert plan is not None
        assert plan.requests == plan.to_ask > 16
        assert sorted(path.name for path in run.folder.iterdir()) == before
        assert server.requests == []
        make_scores(judged)
        assert len(server.requests) == plan.requests
        after = plan_scores(judged)
        assert after is not None
        assert (after.requests, after.to_ask, after.prompt_tokens) == (plan.requests, 0, 0)


def test_what_the_budget_does_not_allow_is_not_asked_and_said(run: Run) -> None:
    put_labels(run, _one)
    prices = {"price_input": 5_000, "price_output": 25_000}
    with serving(lambda number, body: _graded(body, lambda text: 9)) as server:
        judged = judged_by(run, server.url, label={**prices, "model": "a-judge", "budget": 30.0})
        summary = make_scores(judged)
        asked = len(server.requests)
        assert 0 < asked <= 30
        assert summary["not_asked"] == summary["unparsed_texts"] > 0
        more = judged_by(run, server.url, label={**prices, "model": "a-judge", "budget": 1e6})
        assert make_scores(more) == {"scored": 8, "unparsed_texts": 0}
        (spend,) = _spend(run)
        plan = plan_scores(more)
        assert plan is not None
        assert spend[2] == len(server.requests) == plan.requests > asked


def test_what_was_spent_when_the_work_ends_half_way_is_in_the_database(run: Run) -> None:
    put_labels(run, _one)

    def answer(number: int, body: dict[str, Any]) -> Response:
        return error(401, "no more") if number == 3 else _graded(body, lambda text: 9)

    with serving(answer) as server:
        judged = judged_by(run, server.url, label={"concurrency": 1})
        with pytest.raises(LabelerError):
            make_scores(judged)

    (spend,) = _spend(run)
    assert spend[2] == 3


def test_a_budget_without_a_known_price_is_refused(run: Run) -> None:
    put_labels(run, _one)
    with pytest.raises(ConfigError, match="price of 'a-judge' is not known"):
        make_scores(judged_by(run, "http://127.0.0.1:9/v1", label={"budget": 1.0}))


def test_the_command_plans_scores_and_says_what_waits(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    put_labels(run, _one)
    assert cli.main(["score", str(run.folder)]) == 0
    assert "8 labels wait for a language model to judge them" in capsys.readouterr().out
    with serving(lambda number, body: _graded(body, lambda text: 9)) as server:
        flags = ["--model", "a-judge", "--base-url", server.url]
        flags += ["--set", "label.api_key_env=LABEL_KEY"]
        assert cli.main(["score", str(run.folder), *flags, "--plan"]) == 0
        said = capsys.readouterr().out
        assert server.requests == []
        assert cli.main(["score", str(run.folder), *flags]) == 0
        assert f"score: {len(server.requests)} requests" in said
        assert "8 poles scored, 0 texts without a verdict" in capsys.readouterr().out


def _of_the_chosen_word(number: int, body: Body) -> Response:
    return _graded(body, lambda text: 10 * (_said(body)[0].split()[0] in text))


def _candidates(direction: str, pole: Any) -> list[Label]:
    texts = (f"alpha1 {direction} {pole}", None, f"beta1 {direction} {pole}")
    return [
        Label(direction, pole, "a-model", text, candidate=at, is_chosen=at == 1, confidence=0.5)
        for at, text in enumerate(texts)
    ]


def test_after_a_finished_run_a_plan_knows_which_candidates_were_chosen(run: Run) -> None:
    put_labels(run, _candidates)
    with serving(_of_the_chosen_word) as server:
        judged = judged_by(run, server.url)
        make_scores(judged)
        asked = len(server.requests)
        with RunStore(run.database_path) as store:
            assert {label.candidate for label in store.labels()} >= {0, 2}
        plan = plan_scores(judged)
        assert plan is not None
        assert (plan.requests, plan.to_ask, plan.cost) == (asked, 0, 0.0)
        # Labels that are made anew are chosen from by the same replies.
        put_labels(run, _candidates)
        again = plan_scores(judged)
        assert again is not None
        assert (again.requests, again.to_ask) == (asked, 0)
        make_scores(judged)
        assert len(server.requests) == asked


def test_a_plan_counts_no_body_without_an_answer_unless_it_is_asked_again(run: Run) -> None:
    def answer(number: int, body: Body) -> Response:
        if number % 5 == 0:
            return Response("<html>")
        return completion("no JSON") if number % 5 == 1 else _of_the_chosen_word(number, body)

    put_labels(run, _one)
    with serving(answer) as server:
        judged = judged_by(run, server.url, label={"concurrency": 1})
        make_scores(judged)
        asked = len(server.requests)
        plan, retried = plan_scores(judged), plan_scores(judged, retry_failed=True)
        make_scores(judged)
        assert len(server.requests) == asked
        server.answer = _of_the_chosen_word
        make_scores(judged, retry_failed=True)
    assert plan is not None
    assert (plan.requests, plan.to_ask) == (asked, 0)
    assert retried is not None
    failed = len(range(0, asked, 5)) + len(range(1, asked, 5))
    assert retried.to_ask == len(server.requests) - asked == failed
