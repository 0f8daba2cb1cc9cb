from __future__ import annotations

import json
import logging
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.config import LabelSettings
from builder.endpoint import client as client_module
from builder.endpoint import retries
from builder.endpoint.access import Access
from builder.endpoint.client import ChatClient
from builder.endpoint.messages import Fault, Reply
from builder.endpoint.replies import Replies
from builder.errors import ConfigError, LabelerError, StoreError
from builder.labels.answers import MAX_EXPLANATION, MAX_LABEL, SCHEMA, Answer, read_reply
from builder.labels.evidence import Background, Evidence
from builder.labels.explain import Result, check_labeler, label_fingerprint, label_poles
from builder.labels.prompts import KINDS, MAX_LABEL_WORDS
from builder.labels.visible import is_hidden
from builder.records import Label, LabelFailure
from tests.endpoint.asking import KEY, environment
from tests.labels.endpoint import GOOD, Endpoint, Response, completion, error, serving
from tests.labels.making import background_of, evidence_of, insert

__all__ = ["environment"]

BACKGROUND = background_of(documents=30)
_EVIDENCE = evidence_of(lambda rng, text: insert(rng, text, "lighthouse"))


def poles(n: int) -> list[Evidence]:
    """Evidence of ``n`` poles, each with another prompt."""
    return [
        replace(_EVIDENCE, direction=f"L00.o_proj.u{i:02d}", promoted=(f"token {i}",))
        for i in range(n)
    ]


def settings_for(endpoint: Endpoint | None, **changes: Any) -> LabelSettings:
    table: dict[str, Any] = {
        "labeler": "openai",
        "model": "scripted-model",
        "base_url": endpoint.url if endpoint else "",
        "api_key_env": "LABEL_KEY",
        "concurrency": 2,
        "timeout": 20.0,
    }
    return LabelSettings.model_validate(table | changes)


def label_all(
    evidences: Iterable[Evidence],
    background: Background,
    chosen: LabelSettings,
    *,
    cache_dir: Path,
    again: bool = False,
) -> Iterator[Result]:
    """Every result for these poles, through the client and kept replies as the stage uses them."""
    with (
        Replies(cache_dir / "replies.sqlite") as replies,
        ChatClient(Access.of(chosen), replies, stage="labels") as client,
    ):
        for results in label_poles(evidences, background, chosen, client, again=again):
            yield from results


def labelled(endpoint: Endpoint, cache: Path, n: int = 1, **changes: Any) -> list[Result]:
    chosen = settings_for(endpoint, **changes)
    found = label_all(poles(n), BACKGROUND, chosen, cache_dir=cache)
    return sorted(found, key=lambda result: (result.direction, result.candidate))


def always(response: Response) -> Callable[[int, dict[str, Any]], Response]:
    return lambda number, body: response


def test_a_good_reply_is_a_label(tmp_path: Path) -> None:
    with serving(always(completion())) as endpoint:
        (label,) = labelled(endpoint, tmp_path)

    assert isinstance(label, Label)
    assert label.text == GOOD["label"]
    assert label.explanation == GOOD["explanation"]
    assert (label.kind, label.confidence, label.labeler) == ("topic", 0.9, "scripted-model")
    assert (label.prompt_tokens, label.completion_tokens) == (100, 20)
    assert label.example_docs[:10] == tuple(range(10_000, 10_020, 2))
    assert (label.candidate, label.is_chosen, label.agreement) == (0, True, None)
    assert len(label.created) == 10
    assert len(label.prompt_hash) == 32
    (request,) = endpoint.requests
    assert request["response_format"]["json_schema"]["schema"] == SCHEMA
    assert request["response_format"]["json_schema"]["strict"] is True
    assert request["max_completion_tokens"] == 400
    assert "temperature" not in request
    assert endpoint.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    "said",
    [
        "no consistent pattern",
        "No consistent pattern.",
        '"no  consistent pattern"',
        "“No consistent pattern”",
        "No consistent pattern found.",
        "‘no consistent pattern’ was found!",
    ],
)
def test_no_consistent_pattern_is_an_answer_without_text(said: str, tmp_path: Path) -> None:
    with serving(always(completion(json.dumps(GOOD | {"label": said})))) as endpoint:
        (label,) = labelled(endpoint, tmp_path)

    assert isinstance(label, Label)
    assert label.text is None
    assert label.kind == ""


@pytest.mark.parametrize(
    "said",
    [
        '"I\'m sorry" and other apologies',
        "I'm sorry apologies by assistants",
        "refusals: I cannot help with that",
        "I can't help falling in love",
        "sorry states of affairs",
        "no consistent pattern of indentation",
    ],
)
def test_a_label_about_refusals_is_a_label(said: str) -> None:
    answer = read_reply(Reply(json.dumps(GOOD | {"label": said}), "stop"))

    assert isinstance(answer, Answer)
    assert answer.label == said
    assert answer.is_pattern


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "<think>maybe {{a}} or {draft}</think>\n{}",
        "maybe {draft}</think> or {draft} </think>{}",
        "<think>so { then</think>```json\n{}\n```",
    ],
)
def test_thoughts_are_left_out_and_a_text_may_name_the_mark_that_ends_them(content: str) -> None:
    wanted = GOOD | {"explanation": "All end with </think> and {braces}."}
    draft = json.dumps(GOOD | {"label": "a draft"})
    text = json.dumps(wanted).join(content.replace("{draft}", draft).rsplit("{}", 1))

    answer = read_reply(Reply(text, "stop"))

    assert isinstance(answer, Answer)
    assert answer.label == GOOD["label"]
    assert answer.explanation == wanted["explanation"]


TEN_WORDS = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (completion("", refusal="I cannot help with that."), "refusal"),
        (completion('{"label": "half of', finish_reason="length"), "truncated"),
        (completion("", finish_reason="content_filter"), "content_filter"),
        (completion(""), "empty"),
        (completion(" \n "), "empty"),
        (completion("I'm sorry, but I can't."), "refusal"),
        (completion("Sorry, I cannot help with that."), "refusal"),
        (completion(json.dumps(GOOD | {"label": "I cannot help with that request"})), "refusal"),
        (completion(json.dumps(GOOD | {"label": "I’m sorry"})), "refusal"),
        (completion(json.dumps(GOOD | {"label": f"I'm sorry, {TEN_WORDS}"})), "refusal"),
        (completion(json.dumps(GOOD | {"label": "I am unable to provide that"})), "refusal"),
        (completion(json.dumps(GOOD)[:-1] + ', "label": "another"}'), "malformed"),
        (completion(f"<think>{json.dumps(GOOD)}</think>It is hard to say."), "malformed"),
        (completion('{"label": "unclosed'), "malformed"),
        (completion("[1, 2]"), "malformed"),
        (completion(f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}"), "malformed"),
        (completion(f"{json.dumps(GOOD)} {{a}} {json.dumps(GOOD)}"), "malformed"),
        (completion(choices=2), "malformed"),
        (completion(json.dumps({"label": "x"})), "schema"),
        (completion(json.dumps(GOOD | {"label": f"{TEN_WORDS} eleven"})), "schema"),
        (completion(json.dumps(GOOD | {"label": "x" * 121})), "schema"),
        (completion(json.dumps(GOOD | {"label": f"cats{' ' * 1000}{TEN_WORDS}"})), "schema"),
        (completion(json.dumps(GOOD | {"label": f"cats{' ' * 200_000}{TEN_WORDS}"})), "schema"),
        (completion(json.dumps(GOOD | {"label": " \u200b "})), "schema"),
        (completion(json.dumps(GOOD | {"label": None})), "schema"),
        (completion(json.dumps(GOOD | {"kind": "poem"})), "schema"),
        (completion(json.dumps(GOOD | {"confidence": 7})), "schema"),
        (completion(json.dumps(GOOD | {"confidence": float("nan")})), "schema"),
        (completion(json.dumps(GOOD | {"confidence": "0.9"})), "schema"),
        (completion(json.dumps(GOOD | {"command": "rm"})), "schema"),
        (Response("<html><body>Please log in</body></html>"), "malformed"),
        (Response("null"), "malformed"),
        (Response('{"choices": []}'), "malformed"),
        (Response('{"choices": [{"message": "hello"}]}'), "malformed"),
        (Response("[" * 100_000), "malformed"),
        (error(400, "blocked by policy", "content_filter"), "content_filter"),
        (error(400, "too many tokens"), "http"),
        (error(500, "oops"), "http"),
        (error(503, "loading"), "http"),
        (error(429, "slow down"), "http"),
    ],
)
def test_every_failure_has_its_reason(response: Response, reason: str, tmp_path: Path) -> None:
    with serving(always(response)) as endpoint:
        (failure,) = labelled(endpoint, tmp_path)

    assert isinstance(failure, LabelFailure)
    assert failure.reason == reason
    assert failure.labeler == "scripted-model"
    assert len(failure.detail) <= 260
    assert "\n" not in failure.detail


def test_a_timeout_is_a_failure_and_is_asked_again_on_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_RETRIES", 0)
    with serving(always(Response("", hang=True))) as endpoint:
        (failure,) = labelled(endpoint, tmp_path, timeout=0.05)
        endpoint.answer = always(completion())
        (label,) = labelled(endpoint, tmp_path)

    assert isinstance(failure, LabelFailure)
    assert failure.reason == "timeout"
    assert isinstance(label, Label)


def test_a_busy_endpoint_is_asked_again_as_it_says(tmp_path: Path) -> None:
    def busy_twice(number: int, body: dict[str, Any]) -> Response:
        if number < 2:
            slow_down = error(429, "slow down")
            return replace(slow_down, headers={"Retry-After": "0.01"})
        return completion()

    with serving(busy_twice) as endpoint:
        (label,) = labelled(endpoint, tmp_path)

    assert isinstance(label, Label)
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("status", "most"), [(429, retries.MAX_BUSY_RETRIES), (500, retries.MAX_RETRIES)]
)
def test_the_servers_momentary_faults_are_not_kept(status: int, most: int, tmp_path: Path) -> None:
    with serving(always(error(status, "oops"))) as endpoint:
        (failure,) = labelled(endpoint, tmp_path)
        assert len(endpoint.requests) == 1 + most
        endpoint.answer = always(completion())
        (label,) = labelled(endpoint, tmp_path)

    assert isinstance(failure, LabelFailure)
    assert isinstance(label, Label)


@pytest.mark.parametrize(
    "response",
    [
        completion(),
        completion("", refusal="No."),
        completion("not JSON"),
        completion("", finish_reason="length"),
    ],
)
def test_a_second_run_makes_no_request(response: Response, tmp_path: Path) -> None:
    with serving(always(response)) as endpoint:
        first = labelled(endpoint, tmp_path, 3)
        asked = len(endpoint.requests)
        second = labelled(endpoint, tmp_path, 3)

    assert asked == 3
    assert len(endpoint.requests) == 3
    assert first == second


def test_a_second_run_needs_neither_key_nor_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(always(completion())) as endpoint:
        first = labelled(endpoint, tmp_path, 2)
    monkeypatch.delenv("LABEL_KEY")

    assert labelled(endpoint, tmp_path, 2) == first


def test_another_model_prompt_or_parameter_is_another_request(tmp_path: Path) -> None:
    with serving(always(completion())) as endpoint:
        for changes in (
            {},
            {"model": "other"},
            {"temperature": 0.5},
            {"max_completion_tokens": 99},
            {"examples": 3},
        ):
            labelled(endpoint, tmp_path, **changes)
        labelled(endpoint, tmp_path, concurrency=1, timeout=5)

    assert len(endpoint.requests) == 5
    assert endpoint.requests[2]["temperature"] == 0.5


def test_nothing_is_asked_where_replies_cannot_be_kept(tmp_path: Path) -> None:
    place = tmp_path / "cache"
    place.write_text("in the way")
    with (
        serving(always(completion())) as endpoint,
        pytest.raises(StoreError, match="replies cannot be kept"),
    ):
        labelled(endpoint, place)

    assert endpoint.requests == []


def test_a_server_without_structured_output_is_asked_without(tmp_path: Path) -> None:
    def old(number: int, body: dict[str, Any]) -> Response:
        if "response_format" in body:
            return error(400, "Unknown parameter: response_format")
        if "max_completion_tokens" in body:
            return error(422, "Extra inputs are not permitted: max_completion_tokens")
        return completion(
            f'<think>{{"label": "draft"}}</think>Sure:\n```json\n{json.dumps(GOOD)}\n```'
        )

    with serving(old) as endpoint:
        results = labelled(endpoint, tmp_path, 3, concurrency=1)

    assert [isinstance(result, Label) and result.text for result in results] == [GOOD["label"]] * 3
    assert [set(request) - {"model", "messages"} for request in endpoint.requests] == [
        {"response_format", "max_completion_tokens"},
        {"max_completion_tokens"},
        {"max_tokens"},
        {"max_tokens"},
        {"max_tokens"},
    ]


@pytest.mark.parametrize(
    ("status", "code"), [(401, ""), (403, ""), (404, ""), (429, "insufficient_quota")]
)
def test_what_concerns_every_pole_ends_the_run(status: int, code: str, tmp_path: Path) -> None:
    with (
        serving(always(error(status, f"not for {KEY}", code))) as endpoint,
        pytest.raises(LabelerError, match=f"HTTP {status}.*label.model.*LABEL_KEY"),
    ):
        labelled(endpoint, tmp_path, 40)

    assert len(endpoint.requests) <= 2 * (1 + retries.MAX_RETRIES)


def test_an_endpoint_that_never_answers_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_RETRIES", 0)
    monkeypatch.setattr(client_module, "GIVE_UP_AFTER", 5)
    with (
        serving(always(error(500, "oops"))) as endpoint,
        pytest.raises(LabelerError, match="5 requests in a row"),
    ):
        labelled(endpoint, tmp_path, 40)

    assert 5 <= len(endpoint.requests) < 10


def test_failures_now_and_then_do_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_RETRIES", 0)
    monkeypatch.setattr(client_module, "GIVE_UP_AFTER", 3)

    def every_other(number: int, body: dict[str, Any]) -> Response:
        return error(500, "oops") if number % 2 else completion()

    with serving(every_other) as endpoint:
        results = labelled(endpoint, tmp_path, 12, concurrency=1)

    assert sum(isinstance(result, LabelFailure) for result in results) == 6


def test_nobody_at_the_address_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_RETRIES", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    chosen = settings_for(None, base_url=f"http://127.0.0.1:{port}/v1")

    with pytest.raises(LabelerError, match="no connection") as caught:
        list(label_all(poles(1), BACKGROUND, chosen, cache_dir=tmp_path))

    assert f"127.0.0.1:{port}" in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_missing_key_is_named_when_the_endpoint_is_not_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABEL_KEY")
    with pytest.raises(LabelerError, match="environment variable LABEL_KEY"):
        list(label_all(poles(1), BACKGROUND, settings_for(None), cache_dir=tmp_path))

    with serving(always(completion())) as endpoint:
        (label,) = labelled(endpoint, tmp_path)

    assert isinstance(label, Label)
    assert endpoint.keys == ["Bearer no-key"]


def test_a_key_that_no_header_can_carry_is_refused_unquoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (f"{KEY}\nX-Other: 1", f"{KEY}é"):
        monkeypatch.setenv("LABEL_KEY", key)
        with serving(always(completion())) as endpoint:
            with pytest.raises(LabelerError, match="printable ASCII") as caught:
                labelled(endpoint, tmp_path)
            assert KEY not in "".join(traceback.format_exception(caught.value))
            assert endpoint.requests == []


@pytest.mark.parametrize("name", ["", "keywords", "by hand"])
def test_a_model_without_a_name_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"label\.model"):
        check_labeler(settings_for(None, model=name))


def test_the_key_is_in_no_file_log_message_or_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    quoting = (
        completion(json.dumps(GOOD | {"explanation": f"Your key is {KEY}."})),
        completion(f"not JSON {KEY}"),
        completion("", refusal=f"never {KEY}"),
        error(400, f"bad request with {KEY}"),
        error(500, f"failed with {KEY}"),
        Response(f"<html>{KEY}</html>"),
    )
    with serving(lambda number, body: quoting[number % len(quoting)]) as endpoint:
        results = labelled(endpoint, tmp_path, 6, concurrency=1)
        endpoint.answer = always(error(401, f"Incorrect API key provided: {KEY}"))
        with pytest.raises(LabelerError) as caught:
            labelled(endpoint, tmp_path, 8)

    seen = [repr(results), "".join(traceback.format_exception(caught.value)), caplog.text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    seen += [path.read_bytes().decode("utf-8", "replace") for path in files]
    seen += list(capfd.readouterr())
    assert any("***" in text for text in seen)
    assert not any(KEY in text for text in seen)


def test_every_pole_has_exactly_one_result(tmp_path: Path) -> None:
    def mixed(number: int, body: dict[str, Any]) -> Response:
        return (completion(), completion("no"), error(400, "no"))[number % 3]

    wanted = poles(25)
    wanted[7] = replace(wanted[7], examples=())
    with serving(mixed) as endpoint:
        results = list(
            label_all(
                iter(wanted),
                BACKGROUND,
                settings_for(endpoint, concurrency=4),
                cache_dir=tmp_path,
            )
        )

    found = {(result.direction, result.pole): result for result in results}
    assert len(found) == len(results)
    assert found.keys() == {(evidence.direction, evidence.pole) for evidence in wanted}
    without = found[wanted[7].direction, "max"]
    assert isinstance(without, LabelFailure)
    assert without.reason == "no_examples"
    assert len(endpoint.requests) == 24


def test_evidence_is_taken_up_only_a_little_ahead(tmp_path: Path) -> None:
    taken = 0

    def counted() -> Iterator[Evidence]:
        nonlocal taken
        for evidence in poles(30):
            taken += 1
            yield evidence

    with serving(always(completion())) as endpoint:
        results = label_all(counted(), BACKGROUND, settings_for(endpoint), cache_dir=tmp_path)
        next(results)
        assert taken <= 4
        # The generator's end waits for its threads before the server closes.
        results.close()  # type: ignore[attr-defined]


def test_too_few_examples_for_different_samples_give_fewer_candidates(tmp_path: Path) -> None:
    few = replace(_EVIDENCE, examples=_EVIDENCE.examples[:1], contrast=())
    with serving(always(completion())) as endpoint:
        chosen = settings_for(endpoint, candidates=5, contrast=0)
        found = list(label_all([few], BACKGROUND, chosen, cache_dir=tmp_path))

    assert len(found) == len(endpoint.requests) == 1


def test_the_fingerprint_follows_what_changes_labels() -> None:
    chosen = settings_for(None)
    same = settings_for(None, concurrency=7, timeout=1.0, api_key_env="OTHER", budget=1.0)
    changes = [
        LabelSettings(),
        *(
            settings_for(None, **{name: value})
            for name, value in {"model": "x", "candidates": 3, "base_url": "http://x"}.items()
        ),
    ]

    assert label_fingerprint(chosen) == label_fingerprint(same)
    assert len({label_fingerprint(item) for item in (chosen, *changes)}) == 5


def test_the_schema_and_the_check_say_the_same() -> None:
    assert set(SCHEMA["required"]) == set(Answer.model_fields) == set(SCHEMA["properties"])
    assert get_args(Answer.model_fields["kind"].annotation) == KINDS


@settings(max_examples=200, deadline=None)
@given(
    label=st.text(max_size=150),
    explanation=st.text(max_size=900),
    around=st.sampled_from(["{}", "```json\n{}\n```", "Here: {} Bye", "<think>{{</think>{}"]),
)
def test_any_reply_is_a_clean_answer_or_a_fault(label: str, explanation: str, around: str) -> None:
    content = around.format(json.dumps(GOOD | {"label": label, "explanation": explanation}))

    answer = read_reply(Reply(content, "stop"))

    if isinstance(answer, Fault):
        assert answer.reason == "schema"
        assert len(answer.detail) <= 300
        return
    assert 1 <= len(answer.label.split()) <= MAX_LABEL_WORDS
    assert len(answer.label) <= MAX_LABEL
    assert len(answer.explanation) <= MAX_EXPLANATION
    for text in (answer.label, answer.explanation):
        assert not any(is_hidden(character) for character in text)
        text.encode("utf-8")
