from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.endpoint import bodies, retries
from builder.endpoint import client as client_module
from builder.endpoint.messages import Fault, Reply
from builder.errors import LabelerError
from builder.labels.answers import Answer, read_reply
from tests.endpoint.asking import DOLLAR, KEY, asking, question
from tests.labels.endpoint import GOOD, USAGE, Response, completion, error, serving


def always(response: Response) -> Callable[[int, dict[str, Any]], Response]:
    return lambda number, body: response


def test_a_kept_reply_says_so_and_is_otherwise_the_same(tmp_path: Path) -> None:
    with (
        serving(always(completion("an answer"))) as endpoint,
        asking(endpoint.url, tmp_path, price=DOLLAR) as (client, _),
    ):
        first, second = client.ask(question()), client.ask(question())

    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert (first.cached, second.cached) == (False, True)
    assert replace(second, cached=False) == first
    assert (first.content, first.cost) == ("an answer", 1.0)
    assert len(endpoint.requests) == 1


TOUGH_KEY = "sk-live/abc+DEF0123456789xyz"
SPELLINGS = [
    TOUGH_KEY,
    TOUGH_KEY.replace("/", "\\/"),
    TOUGH_KEY.replace("+", "\\u002B"),
    "".join(f"\\u{ord(character):04x}" for character in TOUGH_KEY),
]


@pytest.mark.parametrize("is_inner", [False, True])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_key_is_cut_out_in_whatever_escapes_a_server_writes_it(
    spelling: str, is_inner: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_KEY", TOUGH_KEY)
    content = json.dumps(GOOD | {"explanation": "It says PLACE."})
    if is_inner:  # escaped in the answer, which is escaped once more in the body
        body = completion(content.replace("PLACE", spelling)).body
    else:
        body = completion(content).body.replace("PLACE", spelling)
    with (
        serving(always(Response(body))) as endpoint,
        asking(endpoint.url, tmp_path) as (client, _),
    ):
        reply = client.ask(question())
        assert isinstance(reply, Reply)
        answer = read_reply(reply)

    assert isinstance(answer, Answer)
    assert answer.explanation == "It says ***."
    for path in tmp_path.iterdir():
        assert TOUGH_KEY[8:].encode() not in path.read_bytes()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_key_is_cut_out_of_what_a_server_says_of_an_error(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_KEY", TOUGH_KEY)
    body = '{"error": {"message": "bad PLACE", "code": null}}'.replace("PLACE", spelling)
    with (
        serving(always(Response(body, 400))) as endpoint,
        asking(endpoint.url, tmp_path) as (client, _),
    ):
        fault = client.ask(question())

    assert isinstance(fault, Fault)
    assert fault.detail == "HTTP 400: bad ***"


def test_a_body_of_nothing_but_backslashes_is_searched_for_the_key_all_the_same(
    tmp_path: Path,
) -> None:
    body = "\\" * 200_000 + KEY
    with serving(always(Response(body))) as endpoint, asking(endpoint.url, tmp_path) as (client, _):
        fault = client.ask(question())

    assert isinstance(fault, Fault)
    assert fault.reason == "malformed"


def test_asking_again_takes_the_place_of_the_kept_reply_and_is_paid_for(tmp_path: Path) -> None:
    with (
        serving(lambda number, body: completion(f"answer {number}")) as endpoint,
        asking(endpoint.url, tmp_path, price=DOLLAR) as (client, replies),
    ):
        client.ask(question())
        client.ask(question(), again=True)
        kept = client.ask(question())
        (spend,) = replies.spend("labels")

    assert isinstance(kept, Reply)
    assert kept.content == "answer 1"
    assert (spend.requests, spend.prompt_tokens, spend.cost) == (2, 200, 2.0)


@pytest.mark.parametrize("is_head", [False, True])
def test_a_server_that_drips_is_cut_off_at_the_deadline(is_head: bool, tmp_path: Path) -> None:
    dripping = replace(completion(), drip=0.05, drip_head=is_head)
    answers = [dripping, completion()]
    with (
        serving(lambda number, body: answers[min(number, 1)]) as endpoint,
        asking(endpoint.url, tmp_path, timeout=0.3) as (client, replies),
    ):
        reply = client.ask(question())
        (spend,) = replies.spend("labels")

    # A byte every 0.05 s would have taken longer than the test may.
    assert isinstance(reply, Reply)
    assert len(endpoint.requests) == 2
    # The one that was cut off may be charged all the same.
    assert (spend.requests, spend.unmetered) == (2, 1)


def test_a_broken_connection_is_tried_again_and_may_have_cost(tmp_path: Path) -> None:
    answers = [replace(completion(), reset=True), replace(completion(), cut=True), completion()]
    with (
        serving(lambda number, body: answers[number]) as endpoint,
        asking(endpoint.url, tmp_path, price=DOLLAR) as (client, replies),
    ):
        reply = client.ask(question())
        (spend,) = replies.spend("labels")
        spent = client.budget.spent

    most = bodies.most_usage(question())
    assert isinstance(reply, Reply)
    assert len(endpoint.requests) == 3
    # Both had the whole request, and may have worked on it.
    assert (spend.requests, spend.unmetered) == (3, 2)
    assert spend.cost == 1 + 2 * DOLLAR.of(most.prompt_tokens, most.completion_tokens)
    assert spent == spend.cost


def test_a_server_that_cannot_be_reached_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)
    with serving(always(completion())) as endpoint:
        url = endpoint.url
    with asking(url, tmp_path, price=DOLLAR) as (client, replies):
        with pytest.raises(LabelerError, match="no connection"):
            client.ask(question())
        assert replies.spend("labels") == []
        assert client.budget.spent == 0


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (completion(choices=2), "2 answers"),
        (completion(choices=0), "not a chat completion"),
        (Response("<html>Welcome</html>"), "not a chat completion: <html>"),
        (Response(completion().body[:80]), "not a chat completion"),
        (Response('{"a": ' * 100_000), "not a chat completion"),
        (Response('{"choices": [{"message": {"content": "x"}}], "usage": ' + "9" * 9000 + "}"), ""),
        (Response("x" * (bodies.MAX_BODY + 1)), "more than"),
        (Response(completion().body, headers={"content-encoding": "gzip"}), "more than"),
    ],
)
def test_a_body_that_is_no_single_completion_is_malformed_and_counted(
    response: Response, said: str, tmp_path: Path
) -> None:
    with (
        serving(always(response)) as endpoint,
        asking(endpoint.url, tmp_path) as (client, replies),
    ):
        fault = client.ask(question())
        (spend,) = replies.spend("labels")
        assert client.kept(question()) is None

    assert isinstance(fault, Fault)
    assert fault.reason == "malformed"
    assert said in fault.detail
    assert len(endpoint.requests) == spend.requests == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_names_both_addresses(status: int, tmp_path: Path) -> None:
    with serving(always(completion())) as other:
        elsewhere = {"location": other.url.replace("//", "//user:word@") + "/chat/completions"}
        with (
            serving(always(Response("", status, elsewhere))) as endpoint,
            asking(endpoint.url, tmp_path, price=DOLLAR) as (client, replies),
        ):
            with pytest.raises(LabelerError) as caught:
                client.ask(question())
            assert replies.spend("labels") == []

    said = str(caught.value)
    assert endpoint.url in said
    assert f"HTTP {status}: sends requests on to {other.url}/chat/completions;" in said
    assert "word" not in said
    assert other.requests == []


@pytest.mark.parametrize(
    "changes",
    [
        {"body": "x" * (bodies.MAX_BODY + 1)},
        {"headers": {"content-encoding": "gzip", "retry-after-ms": "1"}},
        {"cut": True},
    ],
)
def test_an_error_stays_one_whatever_its_body(changes: dict[str, Any], tmp_path: Path) -> None:
    answers = [replace(error(503, "busy " * 9), **changes), completion("an answer")]
    with (
        serving(lambda number, body: answers[number]) as endpoint,
        asking(endpoint.url, tmp_path) as (client, replies),
    ):
        reply = client.ask(question())
        (spend,) = replies.spend("labels")

    assert isinstance(reply, Reply)
    assert len(endpoint.requests) == 2
    assert (spend.requests, spend.unmetered) == (1, 0)


def test_a_key_that_is_not_accepted_ends_the_run_whatever_the_body(tmp_path: Path) -> None:
    packed = replace(error(401, "no"), headers={"content-encoding": "gzip"})
    with (
        serving(always(packed)) as endpoint,
        asking(endpoint.url, tmp_path) as (client, _),
        pytest.raises(LabelerError, match="HTTP 401: a body of more than"),
    ):
        client.ask(question())

    assert len(endpoint.requests) == 1


WRONG_USAGE: list[Any] = [
    None,
    [],
    "many",
    {},
    {"prompt_tokens": -5, "completion_tokens": 20},
    {"prompt_tokens": "100", "completion_tokens": 20},
    {"prompt_tokens": 100.5, "completion_tokens": 20},
    {"prompt_tokens": True, "completion_tokens": True},
    {"prompt_tokens": 0, "completion_tokens": 20},
    {"prompt_tokens": 100, "completion_tokens": 0},
    {"prompt_tokens": 100},
    {"prompt_tokens": 10**9, "completion_tokens": 20},
    {"prompt_tokens": 100, "completion_tokens": 10**9},
]


@pytest.mark.parametrize("usage", WRONG_USAGE)
def test_a_count_of_tokens_that_cannot_be_is_estimated_and_marked(
    usage: Any, tmp_path: Path
) -> None:
    text = "word " * 40
    with (
        serving(always(completion(text, usage=usage))) as endpoint,
        asking(endpoint.url, tmp_path) as (client, replies),
    ):
        reply = client.ask(question())
        (spend,) = replies.spend("labels")

    asked = question()
    assert isinstance(reply, Reply)
    assert reply.unmetered
    assert reply.prompt_tokens == -(-(len(asked.system) + len(asked.user)) // 3)
    assert reply.completion_tokens == -(-len(text) // 3)
    assert (spend.unmetered, spend.completion_tokens) == (1, -(-len(text) // 3))


def test_one_busy_reply_makes_every_thread_wait(tmp_path: Path) -> None:
    times: list[float] = []
    told = threading.Event()

    def busy_once(number: int, body: dict[str, Any]) -> Response:
        times.append(time.monotonic())
        if number == 0:
            told.set()
            return error(429, "slow down", **{"retry-after-ms": "400"})
        return completion()

    with (
        serving(busy_once) as endpoint,
        asking(endpoint.url, tmp_path) as (client, _),
        ThreadPoolExecutor(8) as pool,
    ):
        first = pool.submit(client.ask, question(0))
        told.wait(10)
        time.sleep(0.1)  # until the client has read the answer
        others = [pool.submit(client.ask, question(number)) for number in range(1, 8)]
        replies = [future.result() for future in (first, *others)]

    assert all(isinstance(reply, Reply) for reply in replies)
    assert len(times) == 9
    assert min(times[1:]) - times[0] >= 0.39


def test_waiting_for_one_question_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_WAITING", 0.25)
    busy = error(429, "slow down", **{"retry-after-ms": "100"})
    with (
        serving(always(busy)) as endpoint,
        asking(endpoint.url, tmp_path) as (client, replies),
    ):
        fault = client.ask(question())
        spend = replies.spend("labels")

    assert fault == Fault("http", "HTTP 429: slow down")
    assert 2 <= len(endpoint.requests) <= 4
    assert spend == []


@pytest.mark.parametrize("asked", ["3600", "Fri, 31 Dec 2199 23:59:59 GMT"])
def test_a_server_that_asks_for_hours_is_not_waited_for(asked: str, tmp_path: Path) -> None:
    busy = Response("{}", 429, {"retry-after": asked})
    with serving(always(busy)) as endpoint, asking(endpoint.url, tmp_path) as (client, _):
        fault = client.ask(question())

    assert isinstance(fault, Fault)
    assert fault.reason == "http"
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_what_a_server_asks_to_wait_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retries.retry_after(headers) == seconds


def test_a_budget_is_never_crossed_by_many_threads_at_once(tmp_path: Path) -> None:
    with (
        serving(always(completion(json.dumps(GOOD)))) as endpoint,
        asking(endpoint.url, tmp_path, price=DOLLAR, budget=30.0) as (client, replies),
        ThreadPoolExecutor(8) as pool,
    ):
        results = list(pool.map(client.ask, [question(number) for number in range(40)]))
        (spend,) = replies.spend("labels")

    answered = [item for item in results if isinstance(item, Reply)]
    faults = [item for item in results if isinstance(item, Fault)]
    # The most that one request can cost is about 16 dollars, so the last dollars stay unspent.
    assert 10 <= len(answered) <= 30
    assert len(endpoint.requests) == spend.requests == len(answered)
    assert spend.cost == len(answered)
    assert {fault.reason for fault in faults} == {"budget"}
    assert "$30.00" in faults[0].detail


@pytest.mark.parametrize("counted", [401, 1600])
def test_a_count_beyond_what_was_asked_for_crosses_no_budget_and_is_told_apart(
    counted: int, tmp_path: Path
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": counted}
    with (
        serving(always(completion(json.dumps(GOOD), usage=usage))) as endpoint,
        asking(endpoint.url, tmp_path, price=DOLLAR, budget=30.0) as (client, replies),
        ThreadPoolExecutor(8) as pool,
    ):
        results = list(pool.map(client.ask, [question(number) for number in range(8)]))
        (spend,) = replies.spend("labels")

    assert spend.requests == spend.unmetered == len(endpoint.requests) == 2
    # Of a reply of 400 tokens at most, with a prompt of 100: ten and a half dollars.
    assert (spend.completion_tokens, spend.cost) == (800, 21.0)
    assert [isinstance(result, Reply) for result in results].count(True) == 2


def test_what_was_spent_before_counts_against_the_budget(tmp_path: Path) -> None:
    most = bodies.most_usage(question())
    dearest = DOLLAR.of(most.prompt_tokens, most.completion_tokens)
    with serving(always(completion())) as endpoint:
        for budget, number in ((dearest, 0), (dearest + 0.5, 1), (dearest + 1, 2)):
            with asking(endpoint.url, tmp_path, price=DOLLAR, budget=budget) as (client, _):
                result = client.ask(question(number))
                assert isinstance(result, Fault) == (number == 1)

    assert len(endpoint.requests) == 2


def test_a_request_that_was_refused_costs_nothing_and_one_in_doubt_its_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_RETRIES", 0)
    answers = [error(400, "no"), error(500, "oops"), error(408, "late"), Response("", hang=True)]
    with (
        serving(lambda number, body: answers[number]) as endpoint,
        asking(endpoint.url, tmp_path, price=DOLLAR, timeout=0.2) as (client, replies),
    ):
        for number in range(4):
            client.ask(question(number))
        (spend,) = replies.spend("labels")

    most = bodies.most_usage(question(2))
    assert (spend.requests, spend.unmetered) == (1, 1)
    assert spend.prompt_tokens == most.prompt_tokens
    assert spend.cost == DOLLAR.of(most.prompt_tokens, most.completion_tokens)
    assert client.budget.spent == spend.cost


def test_stages_are_counted_apart(tmp_path: Path) -> None:
    with serving(always(completion())) as endpoint:
        for stage, number in (("labels", 0), ("scores", 1), ("scores", 2), ("scores", 0)):
            with asking(endpoint.url, tmp_path, stage=stage) as (client, replies):
                client.ask(question(number))
                spends = {name: replies.spend(name) for name in ("labels", "scores")}

    assert [item.requests for item in spends["labels"]] == [1]
    assert [item.requests for item in spends["scores"]] == [2]
    assert spends["scores"][0].prompt_tokens == 2 * USAGE["prompt_tokens"]
    assert spends["scores"][0].cost is None


def test_questions_that_differ_in_schema_or_length_are_asked_apart(tmp_path: Path) -> None:
    with (
        serving(always(completion())) as endpoint,
        asking(endpoint.url, tmp_path) as (client, _),
    ):
        for changes in (
            {},
            {"schema_name": "verdict"},
            {"schema": {"type": "array"}},
            {"max_completion_tokens": 7},
            {},
        ):
            client.ask(question(**changes))

    assert len(endpoint.requests) == 4
    formats = [request["response_format"]["json_schema"] for request in endpoint.requests]
    assert [item["name"] for item in formats] == ["label", "verdict", "label", "label"]
    assert endpoint.requests[3]["max_completion_tokens"] == 7


def test_the_end_of_a_run_ends_all_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GIVE_UP_AFTER", 2)
    monkeypatch.setattr(retries, "MAX_RETRIES", 1)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)
    waiting = threading.Event()

    def answer(number: int, body: dict[str, Any]) -> Response:
        if number == 0:
            waiting.set()
            return Response("{}", 408, {"retry-after": "100"})
        return error(500, "oops")

    with (
        serving(answer) as endpoint,
        asking(endpoint.url, tmp_path) as (client, _),
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(client.ask, question(0))
        waiting.wait(10)
        client.ask(question(1))
        with pytest.raises(LabelerError, match="2 requests in a row"):
            client.ask(question(2))
        with pytest.raises(LabelerError, match="2 requests in a row"):
            first.result(20)

    assert KEY not in repr(endpoint.requests)
