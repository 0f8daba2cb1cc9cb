"""Rows in all their forms are documents, or faults with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.activations.corpus import Document, Message
from builder.activations.rows import BadRow, CorpusTally, document_of
from builder.config import Source

SOURCE = Source(path="a.jsonl")
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "ü"}'}}


def messages_of(*chat: Any, source: Source = SOURCE) -> tuple[Message, ...]:
    found = document_of({"messages": list(chat)}, source, 0, CorpusTally())
    assert isinstance(found, Document)
    return found.messages


def fault_of(*chat: Any) -> str:
    found = document_of({"messages": list(chat)}, SOURCE, 0, CorpusTally())
    assert isinstance(found, BadRow)
    return found.reason


def test_tool_calls_and_what_tools_answer_are_kept_for_the_template() -> None:
    user, calls, answer = messages_of(
        {"role": "user", "content": "where?", "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "there", "tool_call_id": "c1", "name": "look", "more": 1},
    )
    assert user == Message("user", "where?")
    assert (calls.content, json.loads(calls.extras)) == (
        "",
        {
            "tool_calls": [
                {
                    "type": "function",
                    "id": "c1",
                    "function": {"name": "look", "arguments": {"at": "ü"}},
                }
            ]
        },
    )
    assert answer.content == "there"
    assert json.loads(answer.extras) == {"name": "look", "tool_call_id": "c1"}


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ('{"a": [1, null]}', {"a": [1, None]}),
        ({"a": 1}, {"a": 1}),
        (None, {}),
        ("[1]", "[1]"),
        ("{broken", "{broken"),
        ('{"a":' * 100_000, '{"a":' * 100_000),
    ],
)
def test_arguments_are_an_object_where_they_are_one(arguments: Any, kept: Any) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    (message,) = messages_of({"role": "assistant", "content": "", "tool_calls": [call]})
    assert json.loads(message.extras)["tool_calls"][0]["function"]["arguments"] == kept


CHAT = [
    {"role": "user", "content": "hé"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
]


def test_a_chat_as_json_is_the_chat() -> None:
    plain = document_of({"messages": CHAT}, SOURCE, 0, CorpusTally())
    assert isinstance(plain, Document)
    for column in ("messages", "conversation"):
        row = {column: json.dumps(CHAT), "text": "not this"}
        assert document_of(row, SOURCE, 0, CorpusTally()) == plain


@pytest.mark.parametrize(
    "text", ["hello", "", "{}", '"x"', "3", '[{"role": "user"}, 3]', '["a"]', "[" * 100_000]
)
def test_messages_as_text_that_is_no_chat_are_a_fault_of_their_own(text: str) -> None:
    found = document_of({"messages": text}, SOURCE, 0, CorpusTally())
    assert isinstance(found, BadRow)
    assert found.reason == "messages as text that is no JSON array of objects"
    found = document_of({"messages": text, "text": "said"}, SOURCE, 0, CorpusTally())
    assert isinstance(found, Document)
    assert found.text == "said"


def test_older_names_of_roles_and_calls_are_understood() -> None:
    found = messages_of(
        {"role": "developer", "content": "be brief"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "4"},
    )
    assert [message.role for message in found] == ["system", "assistant", "tool"]
    assert json.loads(found[1].extras)["tool_calls"][0]["function"]["name"] == "f"


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("not a call", "a tool call that is not one"),
        ({"function": "f"}, "a tool call that is not one"),
        ({"function": {"name": ["f"]}}, "a tool call that is not one"),
        (
            {"function": {"name": "f", "arguments": [1]}},
            "a tool call whose arguments are no object",
        ),
        (
            {"function": {"name": "f", "arguments": {"when": b"x"}}},
            "a tool call whose arguments are no JSON",
        ),
        (
            {"function": {"name": "f", "arguments": nested(100_000)}},
            "a message that is nested too deeply",
        ),
    ],
)
def test_junk_in_tool_calls_is_a_fault(call: Any, reason: str) -> None:
    assert fault_of({"role": "assistant", "content": "", "tool_calls": [call]}) == reason


def test_a_message_without_content_needs_a_call() -> None:
    assert fault_of({"role": "assistant", "content": None}) == (
        "a message whose content is not text"
    )
    assert fault_of({"role": "assistant", "content": " ", "tool_calls": []}) == "empty conversation"
    assert fault_of({"role": "tool", "content": " ", "name": "f"}) == "empty conversation"


def test_contents_in_parts_are_joined_and_other_parts_noted_by_kind() -> None:
    parts = [
        {"type": "text", "text": "what is "},
        {"type": "image_url", "image_url": {"url": "http://x"}},
        "this",
        {"type": "image"},
        {"type": "image"},
        {"type": "a secret of the row"},
        {"type": ["x"]},
        {"type": "text", "text": 3},
        17,
        {"text": "?"},
    ]
    tally = CorpusTally()
    row = {"messages": [{"role": "user", "content": parts}]}
    found = document_of(row, SOURCE, 0, tally)
    assert isinstance(found, Document)
    assert found.messages == (Message("user", "what is this?"),)
    assert dict(tally.noted) == {
        "part of a message left out: image_url": 1,
        "part of a message left out: image": 2,
        "part of a message left out: unknown": 4,
    }


def test_a_system_prompt_goes_first_where_there_is_none() -> None:
    source = Source(path="a.jsonl", system_prompt="be kind")
    user = {"role": "user", "content": "hi"}
    assert messages_of(user, source=source) == (Message("system", "be kind"), Message("user", "hi"))
    own = {"role": "system", "content": "be brief"}
    assert messages_of(user, own, source=source)[1] == Message("system", "be brief")
    assert len(messages_of(user, own, source=source)) == 2
    text = document_of({"text": "plain"}, source, 0, CorpusTally())
    assert text == Document(0, "a.jsonl", text="plain")


def test_surrogates_go_and_other_characters_stay_wherever_they_stand() -> None:
    tally = CorpusTally()
    call = {"function": {"name": "f\ud800", "arguments": {"\udfff": "a\x00\x1b\u202e"}}}
    chat = [{"role": "assistant", "content": "\ud83d\x07", "tool_calls": [call]}]
    found = document_of({"messages": chat, "source": "s\udc00"}, SOURCE, 0, tally)
    assert isinstance(found, Document)
    assert found.source == "s\ufffd"
    (message,) = found.messages
    assert message.content == "\ufffd\x07"
    function = json.loads(message.extras)["tool_calls"][0]["function"]
    assert function == {"name": "f\ufffd", "arguments": {"\ufffd": "a\x00\x1b\u202e"}}
    assert tally.noted["lone surrogates replaced"] == 4


def test_reasoning_is_left_out_and_noted() -> None:
    tally = CorpusTally()
    chat = [{"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}]
    found = document_of({"messages": chat}, SOURCE, 0, tally)
    assert isinstance(found, Document)
    assert found.messages == (Message("assistant", "4"),)
    assert dict(tally.noted) == {"reasoning left out": 1}
