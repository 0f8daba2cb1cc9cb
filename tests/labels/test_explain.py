"""What does a reply become? A label, no pattern, or a failure with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.config import LabelSettings
from builder.endpoint.messages import Fault, Reply
from builder.labels.answers import MAX_EXPLANATION, MAX_LABEL, SCHEMA, Answer, read_reply
from builder.labels.evidence import Evidence
from builder.labels.explain import label_fingerprint
from builder.labels.prompts import KINDS, MAX_LABEL_WORDS
from builder.labels.visible import is_hidden
from builder.records import Label, LabelFailure
from tests.endpoint.asking import KEY, environment
from tests.labels.endpoint import GOOD, Response, completion, error, serving
from tests.labels.explaining import (
    BACKGROUND,
    EVIDENCE,
    always,
    label_all,
    labelled,
    poles,
    settings_for,
)

__all__ = ["environment"]


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
    few = replace(EVIDENCE, examples=EVIDENCE.examples[:1], contrast=())
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
