"""When is the endpoint asked, when again, and when does the run end?"""

from __future__ import annotations

import json
import logging
import socket
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.endpoint import client as client_module
from builder.endpoint import retries
from builder.errors import ConfigError, LabelerError, StoreError
from builder.labels.explain import check_labeler
from builder.records import Label, LabelFailure
from tests.endpoint.asking import KEY, environment
from tests.labels.endpoint import GOOD, Response, completion, error, serving
from tests.labels.explaining import BACKGROUND, always, label_all, labelled, poles, settings_for

__all__ = ["environment"]


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
