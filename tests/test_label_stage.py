"""The stage that labels a scanned run: evidence in, labels, failures and spend out."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder import cli, pipeline
from builder.config import LabelSettings
from builder.endpoint import batch
from builder.endpoint.client import ChatClient
from builder.errors import ConfigError, LabelerError
from builder.label_stage import evidences
from builder.labels.split import split_examples
from builder.records import ANY_ROLE, Label, LabelFailure
from builder.run_folder import Run
from builder.store import RunStore
from tests import micro
from tests.endpoint.batch_server import completion_body, serving_batches
from tests.labels.endpoint import GOOD, Endpoint, Response, completion, error, serving
from tests.scanned import run_of, scan, write_texts

POLES = 8  # four directions


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scanned(tmp_path: Path) -> Run:
    rng = random.Random(1)
    texts = [f"{micro.sentence(rng, 9)} n{number}" for number in range(90)]
    source = write_texts(tmp_path / "a.jsonl", texts)
    run = run_of(tmp_path / "run", source, scan={"top": 16, "reservoir": 20, "held_out": 6})
    scan(run)
    return run


def with_model(run: Run, endpoint: Endpoint | None = None, **changes: Any) -> Run:
    table = {
        "labeler": "openai",
        "model": "scripted",
        "base_url": endpoint.url if endpoint else "http://127.0.0.1:9/v1",
        "price_input": 1000.0,
        "price_output": 5000.0,
    }
    label = LabelSettings.model_validate(table | changes)
    return Run(run.folder, run.settings.model_copy(update={"label": label}))


def always(response: Response) -> Callable[[int, dict[str, Any]], Response]:
    return lambda number, body: response


def results(run: Run) -> tuple[list[Label], list[LabelFailure]]:
    with RunStore(run.database_path) as store:
        return store.labels(candidates=True), store.label_failures()


def test_half_of_the_examples_and_all_held_out_documents_are_never_given_to_a_labeler(
    scanned: Run,
) -> None:
    with RunStore(scanned.database_path) as store:
        held_out = {window.doc_id for window in store.held_out()}
        given = list(evidences(store))
        tested = 0
        for item in given:
            own = [
                example
                for example in store.examples(item.direction, pole=item.pole, role=ANY_ROLE)
                if example.window.doc_id not in held_out
            ]
            kept_back = {e.window.doc_id for e in split_examples(own)[1]}
            assert len(kept_back) == len(own) // 2
            tested += len(kept_back)
            shown = {
                example.window.doc_id for example in (*item.examples, *item.contrast, *item.middle)
            }
            assert kept_back <= item.withheld
            assert not shown & (item.withheld | held_out)
            kept_texts = {e.window.text for e in split_examples(own)[1]}
            assert not kept_texts & {e.window.text for e in (*item.examples, *item.contrast)}
            wanted = [e.window.doc_id for e in own if e.window.doc_id not in item.withheld]
            assert [example.window.doc_id for example in item.examples] == wanted
            assert all(0 < share <= 1 for _, share, _ in item.sources)

    assert len(given) == POLES
    assert len(held_out) == 6
    assert tested >= POLES


def test_labels_failures_and_spend_come_into_the_database(scanned: Run) -> None:
    def answer(number: int, body: dict[str, Any]) -> Response:
        return completion("", refusal="No.") if number % 4 == 3 else completion()

    with serving(answer) as endpoint:
        summary = pipeline.make_labels(with_model(scanned, endpoint))
        again = pipeline.make_labels(with_model(scanned, endpoint))

    labels, failures = results(scanned)
    assert summary == again == {"labelled": 6, "no_pattern": 0, "failed": 2}
    assert len(endpoint.requests) == POLES
    assert {label.labeler for label in labels} == {"scripted"}
    assert [failure.reason for failure in failures] == ["refusal"] * 2
    costs = [label.cost for label in labels] + [failure.cost for failure in failures]
    assert costs == [pytest.approx(0.2)] * POLES
    with RunStore(scanned.database_path) as store:
        (spend,) = store.spend()
    assert (spend.stage, spend.model, spend.requests) == ("labels", "scripted", POLES)
    assert (spend.prompt_tokens, spend.completion_tokens) == (100 * POLES, 20 * POLES)
    assert spend.cost == pytest.approx(0.2 * POLES)


def test_candidates_are_asked_from_other_samples_and_one_is_chosen(scanned: Run) -> None:
    def answer(number: int, body: dict[str, Any]) -> Response:
        if number % 3 == 2:
            return completion("no JSON")
        found = {"label": f"lighthouse ships {number % 3}", "confidence": 0.5 + 0.1 * (number % 3)}
        return completion(json.dumps(GOOD | found))

    with serving(answer) as endpoint:
        run = with_model(scanned, endpoint, candidates=3, concurrency=1)
        summary = pipeline.make_labels(run)

    labels, failures = results(scanned)
    assert summary == {"labelled": POLES, "no_pattern": 0, "failed": 0}
    assert len(endpoint.requests) == 3 * POLES
    assert [label.candidate for label in labels] == [0, 1] * POLES
    assert [label.is_chosen for label in labels] == [False, True] * POLES
    assert [failure.candidate for failure in failures] == [2] * POLES
    # Two of three words are shared.
    assert [label.agreement for label in labels] == [pytest.approx(2 / 3)] * len(labels)
    assert len({label.prompt_hash for label in labels}) == 2 * POLES


def test_only_what_failed_is_asked_again_and_only_on_request(scanned: Run) -> None:
    def answer(number: int, body: dict[str, Any]) -> Response:
        bad = (completion("", finish_reason="length"), Response("<html>"))
        return bad[number // 4] if number in (1, 5) else completion()

    with serving(answer) as endpoint:
        run = with_model(scanned, endpoint, concurrency=1)
        first = pipeline.make_labels(run)
        second = pipeline.make_labels(run)
        assert len(endpoint.requests) == POLES
        third = pipeline.make_labels(run, retry_failed=True)
        pipeline.make_labels(run, retry_failed=True)

    assert first == second == {"labelled": 6, "no_pattern": 0, "failed": 2}
    assert third == {"labelled": 8, "no_pattern": 0, "failed": 0}
    prompts = [request["messages"][1]["content"] for request in endpoint.requests]
    assert prompts[8:] == [prompts[1], prompts[5]]
    with RunStore(scanned.database_path) as store:
        (spend,) = store.spend()
    # The page without a completion was paid for as well, as far as anyone can tell.
    assert (spend.requests, spend.unmetered) == (10, 1)


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_was_had_when_the_work_ends_half_way_stands_in_the_database(
    by_hand: bool, scanned: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ChatClient.ask

    def ask_or_stop(self: ChatClient, *arguments: Any, **options: Any) -> Any:
        # Every question from then on, since a thread may begin another before the first stops it.
        if len(endpoint.requests) == 3 and self._offline is None:
            raise KeyboardInterrupt
        return asked(self, *arguments, **options)

    def answer(number: int, body: dict[str, Any]) -> Response:
        return completion() if by_hand or number < 3 or is_back else error(401, "no more")

    is_back = False
    pipeline.make_labels(scanned)  # keywords, which stay
    with serving(answer) as endpoint:
        run = with_model(scanned, endpoint, concurrency=1)
        with monkeypatch.context() as patch:
            if by_hand:
                patch.setattr(ChatClient, "ask", ask_or_stop)
            with pytest.raises(KeyboardInterrupt if by_hand else LabelerError):
                pipeline.make_labels(run)
        labels, failures = results(scanned)
        with RunStore(scanned.database_path) as store:
            (spend,) = store.spend()
        is_back = True
        summary = pipeline.make_labels(run)

    assert [label.labeler for label in labels].count("scripted") == 3
    assert len(labels) == POLES + 3
    assert [(failure.labeler, failure.reason) for failure in failures] == [("scripted", "http")] * 5
    assert spend.requests == 3
    assert spend.cost == pytest.approx(0.6)
    assert summary["labelled"] == POLES
    assert len(endpoint.requests) == POLES + (not by_hand)


def test_labels_stay_as_they_are_when_an_endpoint_answers_nothing_at_all(scanned: Run) -> None:
    with serving(always(completion())) as endpoint:
        pipeline.make_labels(with_model(scanned, endpoint))
        before = results(scanned)
        endpoint.answer = always(error(401, "no"))
        with pytest.raises(LabelerError):
            pipeline.make_labels(with_model(scanned, endpoint, candidates=2))

    assert results(scanned) == before


def test_the_budget_stops_before_it_is_crossed_and_more_of_it_goes_on(
    scanned: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", "scripted", "--set", "label.price_input=0", "--set", "label.concurrency=1"]
    # The most that one reply can cost is 400 tokens, 0.40 dollars; they cost 0.02.
    flags += ["--set", "label.price_output=1000"]
    with serving(always(completion())) as endpoint:
        flags += ["--base-url", endpoint.url]
        assert cli.main(["label", str(scanned.folder), *flags, "--budget", "0.45"]) == 1
        asked = len(endpoint.requests)
        assert "5 prompts were not asked: the budget of $0.45 is used up" in capsys.readouterr().out
        _, failures = results(scanned)
        assert [failure.reason for failure in failures] == ["budget"] * 5
        assert cli.main(["label", str(scanned.folder), *flags, "--budget", "2"]) == 0

    assert asked == 3
    assert len(endpoint.requests) == POLES
    assert "8 poles labelled" in capsys.readouterr().out


def test_a_budget_without_a_price_is_refused_before_anything_is_asked(scanned: Run) -> None:
    with serving(always(completion())) as endpoint:
        run = with_model(scanned, endpoint, budget=1.0, price_input=None, price_output=None)
        with pytest.raises(ConfigError, match=r"price of 'scripted' is not known.*prices\.toml"):
            pipeline.make_labels(run)

    assert endpoint.requests == []


def test_the_plan_says_what_would_be_asked_and_asks_nothing(
    scanned: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(number: int, body: dict[str, Any]) -> Response:
        return completion("no JSON") if number == 0 else completion()

    arguments = ["label", str(scanned.folder), "--model", "scripted", "--set"]
    arguments += ["label.price_input=0", "--set", "label.price_output=1"]
    with serving(answer) as endpoint:
        arguments += ["--base-url", endpoint.url]
        assert cli.main([*arguments, "--plan", "--candidates", "2"]) == 0
        before = capsys.readouterr().out
        assert endpoint.requests == []
        assert cli.main(arguments) == 0
        capsys.readouterr()
        assert cli.main([*arguments, "--plan"]) == 0
        after = capsys.readouterr().out
        assert cli.main([*arguments, "--plan", "--retry-failed"]) == 0
        retried = capsys.readouterr().out
        assert cli.main([*arguments, "--plan", "--candidates", "2"]) == 0
        more = capsys.readouterr().out

    assert len(endpoint.requests) == POLES
    assert "label: 16 requests, 0 of them answered already; 16 to ask" in before
    assert "at most 6,400 of replies, about $0.01" in before
    assert "score: not known before there are labels" in before
    assert re.search(r"score: [1-9]\d+ requests", after)
    assert "score: not known before there are labels" in retried
    tokens = re.search(r"about ([\d,]+) tokens of prompts", before)
    assert tokens
    assert int(tokens[1].replace(",", "")) > 16 * 200
    assert "8 requests, 8 of them answered already; 0 to ask" in after
    assert "8 requests, 7 of them answered already; 1 to ask" in retried
    assert "16 requests, 8 of them answered already; 8 to ask" in more


def test_a_batch_gives_the_same_labels_at_the_price_of_batches(
    scanned: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch, "PAUSE", 0.01)
    table = "[models.scripted]\ninput = 1000\noutput = 5000\nbatch = 0.5\n"
    Path("prices.toml").write_text(table, encoding="utf-8")

    def answer(request: dict[str, Any]) -> tuple[int, Any] | None:
        number = len(asked)
        asked.append(request)
        if number == 1:
            return None
        return 200, completion_body(json.dumps(GOOD) if number else "no JSON")

    asked: list[dict[str, Any]] = []
    arguments = ["label", str(scanned.folder), "--model", "scripted", "--batch"]
    with serving_batches(answer) as server:
        arguments += ["--base-url", server.url]
        assert cli.main([*arguments, "--plan"]) == 0
        assert server.batches == []
        assert cli.main(arguments) == 0
        assert cli.main([*arguments, "--retry-failed"]) == 0

    out = capsys.readouterr().out
    assert "8 to ask" in out
    assert "6 poles labelled, 0 without a consistent pattern, 2 failed" in out
    assert "8 poles labelled, 0 without a consistent pattern, 0 failed" in out
    assert [len(server.lines(number)) for number in range(2)] == [8, 2]
    with RunStore(scanned.database_path) as store:
        (spend,) = store.spend()
    assert (spend.requests, spend.unmetered) == (9, 0)
    assert spend.cost == pytest.approx(9 * 0.2 / 2)


def test_what_is_on_its_way_in_a_batch_is_not_asked_again_without_one(
    scanned: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def die(*args: object) -> Any:
        raise KeyboardInterrupt

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        return 200, completion_body(json.dumps(GOOD))

    def run(command: str, *flags: str) -> int:
        names = ["--model", "scripted", "--base-url", server.url]
        return cli.main([command, str(scanned.folder), *names, *flags])

    with serving_batches(answer) as server:
        server.looks = 10**6
        with monkeypatch.context() as patch:
            patch.setattr(batch, "_wait", die)
            assert run("label", "--batch") == 130
        assert run("label") == 1
        assert f"{POLES} requests are on their way in a batch" in capsys.readouterr().err
        assert run("label", "--plan") == 0
        assert f"{POLES} on their way in a batch; 0 to ask" in capsys.readouterr().out
        assert run("score") == 1
        assert "labels are on their way in a batch" in capsys.readouterr().err
        server.looks = 0
        assert run("label") == 0
        assert "8 poles labelled" in capsys.readouterr().out

    assert (server.live, len(server.batches)) == (0, 1)
    with RunStore(scanned.database_path) as store:
        (spend,) = store.spend()
    assert (spend.requests, spend.unmetered) == (POLES, 0)


@pytest.mark.parametrize("flag", ["--batch", "--retry-failed"])
def test_flags_for_a_model_are_refused_without_one(
    flag: str, scanned: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["label", str(scanned.folder), flag]) == 2
    assert "name the language model with --model" in capsys.readouterr().err


def test_keywords_ask_nobody_and_keep_no_replies(scanned: Run) -> None:
    pipeline.make_labels(scanned)
    plan = pipeline.plan_requests(scanned)

    assert plan["label"] is not None
    assert plan["label"].requests == 0
    assert not (scanned.folder / "replies.sqlite").exists()
    assert {label.labeler for label in results(scanned)[0]} == {"keywords"}


def test_similar_labels_are_found_by_embeddings_where_a_model_for_them_is_named(
    scanned: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prices.toml").write_text("[models.embedder]\ninput = 1000\noutput = 0", encoding="utf-8")

    def answer(number: int, body: dict[str, Any]) -> Response:
        if "input" not in body:
            return completion(json.dumps(GOOD | {"label": f"label {number}"}))
        rows = [{"index": at, "embedding": [1.0, at % 2]} for at in range(len(body["input"]))]
        return Response(json.dumps({"data": rows, "usage": {"prompt_tokens": 5}}))

    with serving(answer) as endpoint:
        pipeline.make_labels(with_model(scanned, endpoint))
        run = with_model(scanned, endpoint, embedding_model="embedder")
        before = pipeline.plan_requests(run)
        assert len(endpoint.requests) == POLES
        pipeline.make_labels(run)
        after = pipeline.plan_requests(run)["similar labels"]
        pipeline.make_labels(run)
        other = with_model(scanned, endpoint, embedding_model="embedder", model="another")
        unknown = pipeline.plan_requests(other)
        cli.main(["label", str(scanned.folder), "--model", "another", "--plan"])

    assert list(before) == ["label", "similar labels", "score"]
    planned = before["similar labels"]
    assert planned is not None
    assert (planned.requests, planned.to_ask, planned.completion_tokens) == (1, 1, 0)
    texts = sum(len(text) for text in endpoint.requests[-1]["input"])
    assert texts / 3 < planned.prompt_tokens < texts / 2
    assert planned.cost == pytest.approx(planned.prompt_tokens * 1e-3)
    assert after is not None
    assert (after.requests, after.to_ask, after.cost) == (1, 0, 0.0)
    assert unknown["similar labels"] is unknown["score"] is None
    assert "similar labels: not known before there are labels" in capsys.readouterr().out
    assert len(endpoint.requests) == POLES + 1
    assert len(endpoint.requests[-1]["input"]) == POLES
    with RunStore(scanned.database_path) as store:
        spends = {spend.model: spend for spend in store.spend()}
        by = {item.by for row in store.directions() for item in store.similar(row.id)}
    assert by == {"embedder"}
    assert (spends["embedder"].requests, spends["embedder"].prompt_tokens) == (1, 5)
    assert spends["scripted"].requests == POLES


def test_labels_that_had_no_price_count_at_their_own_before_embeddings_are_asked_for(
    scanned: Run,
) -> None:
    def answer(number: int, body: dict[str, Any]) -> Response:
        rows = [{"index": at, "embedding": [1.0]} for at in range(len(body.get("input", ())))]
        return Response(json.dumps({"data": rows})) if rows else completion()

    with serving(answer) as endpoint:
        unpriced = {"price_input": None, "price_output": None}
        pipeline.make_labels(with_model(scanned, endpoint, **unpriced))
        table = "[models.embedder]\ninput = 0.02\noutput = 0\n"
        table += "[models.scripted]\ninput = 1000\noutput = 5000\n"
        Path("prices.toml").write_text(table, encoding="utf-8")
        # They cost 0.2 each, by the counts of the server.
        named = {"embedding_model": "embedder", **unpriced}
        pipeline.make_labels(with_model(scanned, endpoint, budget=0.2 * POLES - 0.01, **named))
        assert len(endpoint.requests) == POLES
        pipeline.make_labels(with_model(scanned, endpoint, budget=0.2 * POLES + 0.01, **named))
        assert len(endpoint.requests) == POLES + 1


def test_a_plan_counts_what_is_then_asked_for_labels_after_bodies_without_an_answer(
    scanned: Run,
) -> None:
    def answer(number: int, body: dict[str, Any]) -> Response:
        bad = {0: Response("<html>"), 1: completion("no JSON")}
        return bad.get(number % 4, completion())

    with serving(answer) as endpoint:
        run = with_model(scanned, endpoint, candidates=2, concurrency=1)
        pipeline.make_labels(run)
        asked = len(endpoint.requests)
        plan = pipeline.plan_requests(run)["label"]
        retried = pipeline.plan_requests(run, retry_failed=True)["label"]
        pipeline.make_labels(run)
        assert len(endpoint.requests) == asked
        endpoint.answer = always(completion())
        pipeline.make_labels(run, retry_failed=True)
        again = pipeline.plan_requests(run, retry_failed=True)["label"]

    assert asked == 2 * POLES
    assert plan is not None
    assert (plan.requests, plan.to_ask, plan.cost) == (asked, 0, 0.0)
    assert retried is not None
    assert retried.to_ask == len(endpoint.requests) - asked == asked // 2
    assert again is not None
    assert (again.requests, again.to_ask) == (asked, 0)


def test_a_batch_that_other_settings_asked_for_is_kept_for_them(
    scanned: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> Any:
        raise KeyboardInterrupt

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        return 200, completion_body(json.dumps(GOOD))

    monkeypatch.setattr(batch, "PAUSE", 0.01)
    with serving_batches(answer) as server:
        first = with_model(scanned, base_url=server.url)
        other = with_model(scanned, base_url=server.url, examples=3, temperature=0.5)
        with monkeypatch.context() as patch:
            patch.setattr(batch, "_wait", die)
            with pytest.raises(KeyboardInterrupt):
                pipeline.make_labels(first, batch=True)
        assert pipeline.make_labels(other, batch=True)["labelled"] == POLES
        plan = pipeline.plan_requests(first)["label"]
        assert pipeline.make_labels(first)["labelled"] == POLES

    assert plan is not None
    assert (plan.requests, plan.to_ask) == (POLES, 0)
    assert (server.live, len(server.batches)) == (0, 2)
    with RunStore(scanned.database_path) as store:
        (spend,) = store.spend()
    assert (spend.requests, spend.unmetered) == (2 * POLES, 0)
