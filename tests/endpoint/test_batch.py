from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from builder.endpoint import batch
from builder.endpoint.access import Access
from builder.endpoint.batch import BatchJob, answer_batch, collect_batches
from builder.endpoint.bodies import most_usage, read_body, stand_in
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.prices import Price
from builder.endpoint.replies import Replies, key_of
from builder.errors import ConfigError, LabelerError
from tests.endpoint.asking import DOLLAR, KEY, question
from tests.endpoint.batch_server import BatchServer, completion_body, serving_batches


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PAUSE", 0.01)
    monkeypatch.setattr(batch, "CREATION_PAUSE", 0.01)


def good(request: dict[str, Any]) -> tuple[int, Any]:
    return 200, completion_body(f"answer to {request['custom_id']}")


def ask(
    server: BatchServer,
    replies: Replies,
    questions: Sequence[Question],
    *,
    price: Price | None = DOLLAR,
    limit: float | None = None,
    again: bool = False,
    model: str = "m",
) -> dict[str, Fault]:
    access = Access(model, server.url, api_key_env="LABEL_KEY")
    folder = replies._path.parent
    job = BatchJob("labels", folder, price, limit, lambda question, reply: again)
    return answer_batch(lambda: iter(questions), access, replies, job)


def kept(server: BatchServer, replies: Replies, asked: Question) -> Reply | None:
    return replies.find(key_of(asked, Access("m", server.url)))


ASKED = [question(number) for number in range(5)]


def test_a_batch_is_handed_over_once_and_its_replies_are_kept(tmp_path: Path) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        assert ask(server, replies, [*ASKED, ASKED[0]]) == {}
        assert ask(server, replies, ASKED) == {}
        found = [kept(server, replies, item) for item in ASKED]
        (spend,) = replies.spend("labels")
        assert replies.batches() == []

    keys = [key_of(item, Access("m", server.url)) for item in ASKED]
    assert [reply.content for reply in found if reply] == [f"answer to {key}" for key in keys]
    assert len(server.batches) == 1
    lines = server.lines(0)
    assert [line["custom_id"] for line in lines] == keys
    assert lines[0]["url"] == "/v1/chat/completions"
    assert lines[0]["body"]["messages"][1]["content"] == ASKED[0].user
    assert (spend.requests, spend.prompt_tokens, spend.unmetered) == (5, 500, 0)
    assert spend.cost == 5.0
    assert [path.name for path in tmp_path.iterdir()] == ["r.sqlite"]


@pytest.mark.parametrize("at", ["files", "batches", "noted", "looking", "collecting"])
def test_a_process_that_ends_at_any_step_goes_on_with_the_same_batch(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*args: object, **options: object) -> Any:
        raise Killed

    with serving_batches(good) as server:
        with monkeypatch.context() as patch, Replies(tmp_path / "r.sqlite") as replies:
            if at == "files":
                patch.setattr(Replies, "begin_batch", die)
            if at == "batches":
                patch.setattr(openai.resources.Batches, "create", die)
            if at == "noted":
                patch.setattr(Replies, "set_batch", die)
            if at == "looking":
                patch.setattr(openai.resources.Batches, "retrieve", die)
            if at == "collecting":
                patch.setattr(Replies, "end_batch", die)
            with pytest.raises(Killed):
                ask(server, replies, ASKED)
        with Replies(tmp_path / "r.sqlite") as replies:
            assert ask(server, replies, ASKED) == {}
            found = [kept(server, replies, item) for item in ASKED]
            (spend,) = replies.spend("labels")

    assert all(found)
    assert len(server.batches) == 1
    assert (spend.requests, spend.cost) == (5, 5.0)


def test_what_a_batch_could_not_answer_is_a_fault_and_costs_nothing(tmp_path: Path) -> None:
    bodies: dict[int, tuple[int, Any] | None] = {
        0: (400, {"error": {"message": f"blocked {KEY}"}}),
        1: None,
        2: (200, {"choices": []}),
        3: (200, "<html>"),
    }

    def answer(request: dict[str, Any]) -> tuple[int, Any] | None:
        number = int(request["body"]["messages"][1]["content"].split()[3].rstrip("?"))
        return bodies.get(number, good(request))

    with serving_batches(answer) as server, Replies(tmp_path / "r.sqlite") as replies:
        faults = ask(server, replies, ASKED)
        found = [kept(server, replies, item) for item in ASKED]
        (spend,) = replies.spend("labels")

    keys = [key_of(item, Access("m", server.url)) for item in ASKED]
    assert [reply is not None for reply in found] == [False] * 4 + [True]
    assert faults.keys() == {keys[0], keys[2], keys[3]}
    assert [faults[keys[n]].reason for n in (0, 2, 3)] == ["http", "malformed", "malformed"]
    assert "HTTP 400" in faults[keys[0]].detail
    assert KEY not in repr(faults)
    # Two bodies that were no completion were sent all the same, and are counted by an estimate.
    assert (spend.requests, spend.unmetered) == (3, 2)


@pytest.mark.parametrize("status", ["failed", "expired", "cancelled"])
def test_a_batch_that_did_not_end_well_is_an_error_that_keeps_what_came(
    status: str, tmp_path: Path
) -> None:
    def first_two(request: dict[str, Any]) -> tuple[int, Any] | None:
        is_first = "number 0" in str(request) or "number 1" in str(request)
        return good(request) if is_first and status != "failed" else None

    came = 0 if status == "failed" else 2
    with serving_batches(first_two) as server, Replies(tmp_path / "r.sqlite") as replies:
        server.status = status
        with pytest.raises(LabelerError, match=f"{status}.*{came} of 5 replies came") as caught:
            ask(server, replies, ASKED)
        assert sum(item.requests for item in replies.spend("labels")) == came
        server.status, server.answer = "completed", good
        assert ask(server, replies, ASKED) == {}
        assert all(kept(server, replies, item) for item in ASKED)

    assert ("too many tokens" in str(caught.value)) == (status == "failed")
    assert len(server.lines(1)) == 5 - came


def test_the_budget_holds_for_a_batch_as_a_whole(tmp_path: Path) -> None:
    most = most_usage(ASKED[0])
    dearest = DOLLAR.of(most.prompt_tokens, most.completion_tokens)
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        faults = ask(server, replies, ASKED, limit=3.5 * dearest)

    assert len(server.lines(0)) == 3
    assert {fault.reason for fault in faults.values()} == {"budget"}
    assert len(faults) == 2


def test_a_long_list_becomes_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_REQUESTS", 2)
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        assert ask(server, replies, ASKED) == {}
        assert all(kept(server, replies, item) for item in ASKED)

    assert [len(server.lines(number)) for number in range(3)] == [2, 2, 1]


def test_replies_that_failed_are_asked_again_only_on_request(tmp_path: Path) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        ask(server, replies, ASKED[:2])
        ask(server, replies, ASKED[:2], again=True)
        (spend,) = replies.spend("labels")

    assert [len(server.lines(number)) for number in range(2)] == [2, 2]
    assert spend.requests == 4


def test_a_batch_of_another_model_is_collected_first(tmp_path: Path) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        replies.begin_batch("file-9", [], "labels", Access("m", server.url), None)
        with pytest.raises(ConfigError, match=r"a batch of 'm'.*not collected yet"):
            ask(server, replies, ASKED, model="other")


def test_an_endpoint_without_batches_is_a_clear_error(tmp_path: Path) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        server.broken.add("/v1/files")
        with pytest.raises(LabelerError, match="leave --batch out"):
            ask(server, replies, ASKED)
        assert replies.spend("labels") == []


def test_the_key_is_cut_out_of_what_comes_with_a_batch(tmp_path: Path) -> None:
    escaped = "".join(f"\\u{ord(character):04x}" for character in KEY)

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        return 200, completion_body(f'{{"label": "{escaped}"}} or {KEY}')

    with serving_batches(answer) as server, Replies(tmp_path / "r.sqlite") as replies:
        ask(server, replies, ASKED[:1])
        found = kept(server, replies, ASKED[0])
        server.status, server.said = "failed", f"no such key {KEY}"
        with pytest.raises(LabelerError, match=r"failed.*no such key \*\*\*"):
            ask(server, replies, ASKED[1:])

    assert found is not None
    assert found.content == '{"label": "***"} or ***'


def test_a_batch_whose_creation_was_not_confirmed_is_found_and_not_made_again(
    tmp_path: Path,
) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        server.unconfirmed = 1
        assert ask(server, replies, ASKED) == {}
        assert all(kept(server, replies, item) for item in ASKED)

    assert len(server.batches) == 1
    assert server.creations == 1


def test_a_batch_that_was_not_made_is_asked_for_again_a_few_times(tmp_path: Path) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        server.unmade = 2
        assert ask(server, replies, ASKED) == {}
        assert (len(server.batches), server.creations) == (1, 3)
        server.unmade = 9
        with pytest.raises(LabelerError, match="what was handed over is remembered"):
            ask(server, replies, [question(9)])

    assert (len(server.batches), server.creations) == (1, 6)


@pytest.mark.parametrize(
    ("unknown", "said", "forms"),
    [
        ("response_format", "response_format json_schema is not supported", 2),
        ("max_completion_tokens", "unknown parameter max_completion_tokens", 2),
        ("messages", "messages are not supported", 1),
    ],
)
def test_a_batch_that_is_refused_for_its_form_is_handed_over_in_an_older_one(
    unknown: str, said: str, forms: int, tmp_path: Path
) -> None:
    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        refused = unknown in request["body"]
        return (400, {"error": {"message": said}}) if refused else good(request)

    with serving_batches(answer) as server, Replies(tmp_path / "r.sqlite") as replies:
        faults = ask(server, replies, ASKED)

    assert len(server.batches) == forms
    assert len(faults) == (len(ASKED) if forms == 1 else 0)


def collect(server: BatchServer, replies: Replies, questions: Sequence[Question]) -> None:
    access = Access("m", server.url, api_key_env="LABEL_KEY")
    job = BatchJob("labels", replies._path.parent, DOLLAR, None, lambda question, reply: False)
    collect_batches(lambda: iter(questions), access, replies, job)


def hand_over(server: BatchServer, replies: Replies, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the questions with the server, as a process that is killed while it waits does."""

    def die(*args: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, "_wait", die)
        with pytest.raises(KeyboardInterrupt):
            ask(server, replies, ASKED)


def test_what_is_on_its_way_is_collected_when_it_is_ready_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        hand_over(server, replies, monkeypatch)
        with pytest.raises(LabelerError, match=r"5 requests are on their way.*--batch to wait"):
            collect(server, replies, ASKED)
        assert replies.is_in_batch(key_of(ASKED[0], Access("m", server.url)))
        collect(server, replies, ASKED)
        assert all(kept(server, replies, item) for item in ASKED)
        assert replies.batches() == []

    assert len(server.batches) == 1


def test_answers_that_nobody_asks_for_any_more_are_kept_as_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: dict[str, Any]) -> tuple[int, Any] | None:
        number = request["body"]["messages"][1]["content"].split()[3].rstrip("?")
        return (500, {}) if number == "3" else good(request)

    rows = []
    for n in (5, 0):
        folder = tmp_path / str(n)
        folder.mkdir()
        with serving_batches(answer) as server, Replies(folder / "r.sqlite") as replies:
            hand_over(server, replies, monkeypatch)
            server.looks = 0
            collect(server, replies, ASKED[:n])
            (spend,) = replies.spend("labels")
            found = [kept(server, replies, item) for item in ASKED]
            assert replies._connection.execute("SELECT * FROM batched").fetchall() == []
            columns = "prompt_hash, parameters, prompt_tokens, completion_tokens, unmetered, cost"
            rows.append(
                replies._connection.execute(
                    f"SELECT {columns} FROM replies ORDER BY prompt_hash"
                ).fetchall()
            )
        assert [reply is not None for reply in found] == [True, True, True, False, True]
        assert (spend.requests, spend.unmetered, spend.cost) == (4, 0, 4.0)
    assert rows[0] == rows[1]


def test_answers_that_nothing_is_known_of_are_still_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        hand_over(server, replies, monkeypatch)
        replies._connection.execute("DELETE FROM batched")
        server.looks = 0
        collect(server, replies, ASKED[:2])
        (spend,) = replies.spend("labels")

    assert (spend.requests, spend.unmetered) == (5, 3)


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 100, "completion_tokens": 10**9}])
def test_a_question_whose_text_is_not_at_hand_is_counted_as_with_it(usage: Any) -> None:
    asked = question(1)
    bare = stand_in(asked.hash, asked.schema_name, asked.schema, most_usage(asked))
    access = Access("m")
    body = json.dumps(completion_body("text") | {"usage": usage})

    assert key_of(bare, access) == key_of(asked, access)
    assert most_usage(bare) == most_usage(asked)
    assert read_body(body, bare) == read_body(body, asked)


def test_what_a_batch_left_out_is_handed_over_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_batches(good) as server, Replies(tmp_path / "r.sqlite") as replies:
        hand_over(server, replies, monkeypatch)
        more = [*ASKED, question(7)]
        assert ask(server, replies, more) == {}
        assert all(kept(server, replies, item) for item in more)

    assert [len(server.lines(number)) for number in range(2)] == [5, 1]


def test_a_batch_is_not_handed_over_to_another_address(tmp_path: Path) -> None:
    with serving_batches(good) as other, serving_batches(good) as server:
        server.redirects_to = f"{other.url}/files"
        with (
            Replies(tmp_path / "r.sqlite") as replies,
            pytest.raises(LabelerError, match=f"HTTP 307: sends requests on to {other.url}/files"),
        ):
            ask(server, replies, ASKED)

    assert other.files == {}
