"""Verdicts come through batches: in two rounds, across restarts, at their price, within budget."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from builder import cli
from builder.endpoint import batch
from builder.endpoint.access import Access
from builder.endpoint.replies import Replies
from builder.errors import ConfigError, LabelerError
from builder.records import Label, Pole, Score
from builder.run_folder import Run
from builder.score_stage import make_scores, plan_scores
from builder.store import RunStore
from tests.endpoint.asking import environment
from tests.endpoint.batch_server import BatchServer, completion_body, serving_batches
from tests.labels.endpoint import Response, serving
from tests.scores.running import all_scores, candidates_of, judged_by, put_labels, scanned

__all__ = ["environment"]

Body = dict[str, Any]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(batch, "PAUSE", 0.01)
    monkeypatch.setattr(batch, "CREATION_PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)
    table = '[models."a-judge"]\ninput = 1000\noutput = 5000\nbatch = 0.5\n'
    Path("prices.toml").write_text(table, encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return scanned(tmp_path / "one")


def _said(body: Body) -> list[str]:
    """The label, and the texts."""
    user = str(body["messages"][1]["content"])
    return [line.removeprefix("text: ") for line in user.split("\n") if line.startswith("text: ")]


def _grades(body: Body) -> Body:
    """Yes to the texts that hold the label."""
    label, *texts = _said(body)
    word = label.split()[0]
    verdicts = [{"number": at, "fit": 10 * (word in text)} for at, text in enumerate(texts, 1)]
    return completion_body(json.dumps({"verdicts": verdicts}))


def _good(request: Body) -> tuple[int, Any]:
    return 200, _grades(request["body"])


def _one(direction: str, pole: Pole) -> list[Label]:
    # Poles with the same label may be asked the same about the same texts, and then only once.
    return [Label(direction, pole, "a-model", f"alpha3 of {direction} {pole}")]


def _lines(server: BatchServer) -> list[Body]:
    files = [server.files[batch["input_file_id"]] for batch in server.batches]
    return [json.loads(line)["body"] for file in files for line in file.splitlines()]


def _cost(run: Run) -> tuple[int, float]:
    with RunStore(run.database_path) as store:
        (spend,) = store.spend()
    assert spend.unmetered == 0
    return spend.requests, spend.cost or 0.0


def _bare(scores: list[Score]) -> list[Score]:
    """Without what they cost."""
    return [dataclasses.replace(score, cost=None) for score in scores]


def test_batches_give_the_scores_that_single_questions_do_at_their_price(
    run: Run, tmp_path: Path
) -> None:
    other = scanned(tmp_path / "two")
    for each in (run, other):
        put_labels(each, candidates_of)
        put_labels(each, lambda direction, pole: [Label(direction, pole, "b", f"beta2 {pole}")])
    with serving(lambda number, body: Response(json.dumps(_grades(body)))) as live:
        summary = make_scores(judged_by(other, live.url, label={"concurrency": 1}))
    with serving_batches(_good) as server:
        judged = judged_by(run, server.url)
        assert make_scores(judged, batch=True) == summary
        assert make_scores(judged, batch=True) == summary
        assert (len(server.batches), server.live) == (2, 0)
        first, second = ([line["body"] for line in server.lines(at)] for at in range(2))
    assert _bare(all_scores(run)) == _bare(all_scores(other))
    with RunStore(run.database_path) as one, RunStore(other.database_path) as two:
        assert one.labels() == two.labels()
        chosen = {label.text for label in one.labels() if label.labeler == "a-model"}
    # Candidates are compared first; of the chosen ones alone there are further questions.
    assert {_said(body)[0] for body in first} == {"alpha1", "beta1", "beta2 max", "beta2 min"}
    assert {_said(body)[0] for body in second} == chosen - {None}
    # By both scorers.
    assert len({body["messages"][0]["content"] for body in second}) == 2
    requests, cost = _cost(run)
    assert requests == len(first) + len(second) == len(live.requests)
    assert (requests, 2 * cost) == pytest.approx(_cost(other))


class Killed(BaseException):
    pass


def _die_at(patch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> Callable[..., Any]:
    """Makes a call of that number from 0 end the process, and all later ones."""
    calls = itertools.count()
    asked = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        if next(calls) >= number:
            raise Killed
        return asked(*args, **options)

    patch.setattr(owner, name, call)
    return call


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("at", ["files", "batches", "noted", "looking", "collecting"])
def test_a_process_that_is_killed_in_either_round_goes_on_with_the_same_batches(
    at: str, number: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "files": (Replies, "begin_batch"),
        "batches": (openai.resources.Batches, "create"),
        "noted": (Replies, "set_batch"),
        "looking": (batch, "_wait"),
        "collecting": (Replies, "end_batch"),
    }
    put_labels(run, candidates_of)
    with serving_batches(_good) as server:
        judged = judged_by(run, server.url)
        with monkeypatch.context() as patch:
            _die_at(patch, *places[at], number)
            with pytest.raises(Killed):
                make_scores(judged, batch=True)
        assert all_scores(run) == []
        # At one pole no pattern is as good as any label.
        assert make_scores(judged, batch=True) == {"scored": 7, "unparsed_texts": 0}
        asked = _lines(server)
        assert (len(server.batches), server.live) == (2, 0)
    requests, cost = _cost(run)
    assert requests == len(asked)
    assert cost == pytest.approx(0.1 * requests)


def test_what_is_on_its_way_is_collected_without_batches_too_and_not_asked_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_labels(run, _one)
    with serving_batches(_good) as server:
        judged = judged_by(run, server.url)
        before = plan_scores(judged, batch=True)
        assert before is not None
        with monkeypatch.context() as patch:
            _die_at(patch, batch, "_wait", 0)
            with pytest.raises(Killed):
                make_scores(judged, batch=True)
        asked = len(_lines(server))
        plan = plan_scores(judged)
        assert plan is not None
        assert (plan.requests, plan.in_batch, plan.to_ask) == (asked, asked, 0)
        with pytest.raises(LabelerError, match=f"{asked} requests are on their way in a batch"):
            make_scores(judged)
        server.looks = 0
        assert make_scores(judged) == {"scored": 8, "unparsed_texts": 0}
        assert (len(server.batches), server.live) == (1, 0)
    assert (before.requests, before.to_ask) == (asked, asked)
    assert _cost(run)[0] == asked


def test_a_plan_of_batches_has_their_price(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    put_labels(run, _one)
    with serving_batches(_good) as server:
        judged = judged_by(run, server.url)
        live, batched = plan_scores(judged), plan_scores(judged, batch=True)
        flags = ["--model", "a-judge", "--base-url", server.url, "--batch"]
        flags += ["--set", "label.api_key_env=LABEL_KEY"]
        assert cli.main(["score", str(run.folder), *flags, "--plan"]) == 0
        said = capsys.readouterr().out
        assert server.batches == []
        assert cli.main(["score", str(run.folder), *flags]) == 0
        assert "8 poles scored, 0 texts without a verdict" in capsys.readouterr().out
        assert (len(server.batches), server.live) == (1, 0)
    assert live is not None
    assert batched is not None
    assert (live.cost or 0) / 2 == batched.cost
    assert f"about ${batched.cost:,.2f}" in said


def test_what_a_batch_leaves_open_is_counted_by_its_reason_and_asked_again(run: Run) -> None:
    put_labels(run, _one)
    kinds = {0: "refused", 1: "left out", 2: "unread", 3: "good"}
    said: dict[str, str] = {}

    def answer(request: Body) -> tuple[int, Any] | None:
        kind = said.setdefault(request["custom_id"], kinds[len(said) % 4])
        if kind == "left out":
            return None
        if kind == "refused":
            return 400, {"error": {"message": "no"}}
        return (200, completion_body("I would rather not")) if kind == "unread" else _good(request)

    with serving_batches(answer) as server:
        judged = judged_by(run, server.url, batch=5)
        summary = make_scores(judged, batch=True)
        scores = all_scores(run)
        reasons = {name for score in scores for name in score.faults}
        assert reasons == {"http", "malformed"}
        assert summary["unparsed_texts"] == sum(score.unparsed for score in scores) > 0
        for score in scores:
            assert sum(score.faults.values()) == score.unparsed
        server.answer = _good
        # What failed for the moment is asked again; an answer that was none, on request only.
        again = make_scores(judged, batch=True)
        assert {name for score in all_scores(run) for name in score.faults} == {"malformed"}
        assert 0 < again["unparsed_texts"] < summary["unparsed_texts"]
        assert make_scores(judged, batch=True) == again
        assert len(server.batches) == 2
        plan = plan_scores(judged, batch=True, retry_failed=True)
        assert plan is not None
        assert make_scores(judged, batch=True, retry_failed=True)["unparsed_texts"] == 0
        lines = [{line["custom_id"] for line in server.lines(at)} for at in range(3)]
        assert server.live == 0
    of = {kind: {key for key, each in said.items() if each == kind} for kind in kinds.values()}
    assert lines[0] == set(said)
    assert lines[1] == of["refused"] | of["left out"]
    assert lines[2] == of["unread"]
    assert plan.to_ask == len(lines[2])
    assert _cost(run)[0] == len(said) + len(of["unread"])


@pytest.mark.parametrize("status", ["failed", "expired"])
def test_a_batch_that_did_not_end_well_is_an_error_and_the_rest_is_asked_later(
    status: str, run: Run
) -> None:
    put_labels(run, _one)
    came: list[str] = []

    def some(request: Body) -> tuple[int, Any] | None:
        if len(came) == 7:
            return None
        came.append(request["custom_id"])
        return _good(request)

    with serving_batches(some) as server:
        server.status = status
        judged = judged_by(run, server.url)
        with pytest.raises(LabelerError, match=f"{status}.*7 of"):
            make_scores(judged, batch=True)
        assert _cost(run)[0] == 7
        server.status, server.answer = "completed", _good
        assert make_scores(judged, batch=True) == {"scored": 8, "unparsed_texts": 0}
        asked = [line["custom_id"] for line in server.lines(1)]
    assert not set(asked) & set(came)
    assert _cost(run)[0] == len(asked) + 7


def test_the_budget_holds_for_batches_and_for_embeddings_after_them(run: Run) -> None:
    put_labels(run, _one)
    table = Path("prices.toml").read_text(encoding="utf-8")
    Path("prices.toml").write_text(f"{table}[models.e]\ninput = 2000\noutput = 0\n", "utf-8")
    scorers = ("detection", "fuzzing", "embedding")

    def long(request: Body) -> tuple[int, Any]:
        status, body = _good(request)
        most = request["body"]["max_completion_tokens"]
        return status, body | {"usage": {"prompt_tokens": 100, "completion_tokens": most}}

    def spent() -> dict[str, float]:
        with RunStore(run.database_path) as store:
            return {item.model: item.cost or 0.0 for item in store.spend()}

    with serving_batches(long) as server:
        near = {"embedding_model": "e", "api_key_env": "LABEL_KEY"}
        small = judged_by(run, server.url, label=near | {"budget": 12.0}, scorers=scorers)
        summary = make_scores(small, batch=True)
        asked = len(_lines(server))
        assert summary["not_asked"] > 0
        limited = spent()
        assert sum(limited.values()) <= 12.0
        more = judged_by(run, server.url, label=near | {"budget": 1e6}, scorers=scorers)
        assert make_scores(more, batch=True) == {"scored": 8, "unparsed_texts": 0}
        # Embeddings alone would have been within the budget, but not after what batches took.
        assert spent()["e"] < 12.0 < spent()["e"] + limited["a-judge"]
        assert server.live == 0
        assert server.embedded > 8
        with RunStore(run.database_path) as store:
            spend = {item.model: item for item in store.spend()}
        assert 0 < asked < spend["a-judge"].requests == len(_lines(server))
        assert spend["e"].requests == server.embedded
        # Embeddings are asked for one by one, at their full price.
        assert {body["model"] for body in _lines(server)} == {"a-judge"}
        assert spend["e"].cost == pytest.approx(spend["e"].prompt_tokens * 2e-3)


def test_a_stage_waits_for_the_batches_of_another_and_collects_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_labels(run, _one)
    with serving_batches(_good) as server:
        judged = judged_by(run, server.url)
        access = Access("a-model", server.url)
        with Replies(run.folder / "replies.sqlite") as replies:
            replies.begin_batch("file-9", [], "labels", access, None)
        with pytest.raises(LabelerError, match="labels are on their way in a batch"):
            make_scores(judged, batch=True)
        with Replies(run.folder / "replies.sqlite") as replies:
            replies.end_batch("file-9")
        with monkeypatch.context() as patch:
            _die_at(patch, batch, "_wait", 0)
            with pytest.raises(Killed):
                make_scores(judged, batch=True)
        flags = ["--model", "a-model", "--base-url", server.url]
        flags += ["--set", "label.api_key_env=LABEL_KEY"]
        assert cli.main(["label", str(run.folder), *flags]) == 1
        assert "verdicts on its labels are on their way in a batch" in capsys.readouterr().err
        another = judged_by(run, server.url, model="another")
        with pytest.raises(ConfigError, match=r"a batch of 'a-judge' at .* is not collected yet"):
            make_scores(another, batch=True)
        assert make_scores(judged, batch=True)["scored"] == 8
        assert len(server.batches) == 1


def test_what_was_asked_again_and_is_on_its_way_is_collected_though_no_score_is_due(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_labels(run, _one)
    with serving_batches(lambda request: (200, completion_body("no"))) as server:
        judged = judged_by(run, server.url)
        assert make_scores(judged, batch=True)["scored"] == 0
        server.answer = _good
        with monkeypatch.context() as patch:
            _die_at(patch, batch, "_wait", 0)
            with pytest.raises(Killed):
                make_scores(judged, batch=True, retry_failed=True)
        server.looks = 0
        assert make_scores(judged) == {"scored": 8, "unparsed_texts": 0}
        assert (len(server.batches), server.live) == (2, 0)


def test_batches_without_a_judge_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    put_labels(run, _one)
    for flags in ([], ["--plan"]):
        assert cli.main(["score", str(run.folder), "--batch", *flags]) == 2
        assert "name the language model that judges with --model" in capsys.readouterr().err
