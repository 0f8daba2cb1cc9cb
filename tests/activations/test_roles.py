"""Whose a character is, by templates of every kind."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from builder.activations import roles
from builder.activations.corpus import Document, Message
from builder.activations.tokens import DocumentTokenizer, Dropped, TokenizedDocument
from builder.records import ROLES
from tests import micro

#: In the manner of Qwen: a default system prompt, tool calls as JSON, answers of tools as a user.
TOOLS = (
    "{%- if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n"
    "{% endif %}{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{%- if m.content %}{{ '\n' + m.content }}{% endif %}"
    "{% for call in m.tool_calls %}{{ '\n<tool_call>\n' }}"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "{{ '\n</tool_call>' }}{% endfor %}<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: In the manner of Llama 3: contents are stripped, a call takes the content's place.
STRIPS = (
    "{% for m in messages %}[{{ m.role }}]\n\n{% if m.tool_calls is defined %}"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
    "{{ m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.content | trim }}{% endif %}"
    "[end]{% endfor %}{% if add_generation_prompt %}[assistant]\n\n{% endif %}"
)
#: With generation blocks, that of the last assistant after a note of the template's.
GENERATES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% if loop.last %}(final) {% endif %}{% generation %}{{ m.content | trim }}<|im_end|>"
    "{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% elif m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
)


def extras(*calls: tuple[str, Any]) -> str:
    functions = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls
    ]
    return json.dumps({"tool_calls": functions})


USER, SYSTEM = Message("user", "the river, now?"), Message("system", " be brief ")
CALL = Message("assistant", "", extras(("look", {"at": "bridge"})))
SAYS_AND_CALLS = Message("assistant", "I look.", extras(("look", {"at": "bridge"})))
ANSWER = Message("tool", "high water", '{"name": "look", "tool_call_id": "c1"}')
FINAL = Message("assistant", "The river is high.\n")


def tokenized(template: str, *messages: Message) -> TokenizedDocument:
    tokenizer = DocumentTokenizer(micro.make_tokenizer(template=template), 4096)
    (item,) = tokenizer.tokenize([Document(0, "s", messages=messages)])
    assert isinstance(item, TokenizedDocument), item
    return item


def texts_by_role(item: TokenizedDocument) -> list[tuple[str, str]]:
    """Runs of characters of one role, in order, without the template's."""
    runs: list[tuple[str, str]] = []
    start = 0
    for end, index in zip(item.ends.tolist(), item.roles.tolist(), strict=True):
        role = ROLES[index]
        if runs and runs[-1][0] == role:
            runs[-1] = (role, runs[-1][1] + item.text[start:end])
        else:
            runs.append((role, item.text[start:end]))
        start = end
    return [run for run in runs if run[0] != "template"]


LOOK = '{"name": "look", "arguments": {"at": "bridge"}}'


def test_tool_calls_are_the_assistants_and_answers_the_tools() -> None:
    item = tokenized(TOOLS, USER, CALL, ANSWER, FINAL)
    assert texts_by_role(item) == [
        ("user", "the river, now?"),
        ("assistant", f"<tool_call>\n{LOOK}\n</tool_call>"),
        ("tool", "high water"),
        ("assistant", "The river is high.\n"),
    ]
    assert item.notes == ()


def test_what_an_assistant_says_before_it_calls_is_its_own_too() -> None:
    item = tokenized(TOOLS, SYSTEM, USER, SAYS_AND_CALLS, ANSWER, USER)
    assert texts_by_role(item) == [
        ("system", " be brief "),
        ("user", "the river, now?"),
        ("assistant", f"I look.\n<tool_call>\n{LOOK}\n</tool_call>"),
        ("tool", "high water"),
        ("user", "the river, now?"),
    ]


def test_a_call_that_takes_the_contents_place_is_the_assistants() -> None:
    item = tokenized(STRIPS, SYSTEM, USER, CALL, ANSWER, FINAL)
    assert texts_by_role(item) == [
        ("system", "be brief"),
        ("user", "the river, now?"),
        ("assistant", '{"name": "look", "parameters": {"at": "bridge"}}'),
        ("tool", "high water"),
        ("assistant", "The river is high."),
    ]


def test_a_call_that_cannot_be_found_is_noted() -> None:
    # After a call the template says something else than after a reply.
    template = TOOLS.replace("{% endfor %}<|im_end|>", "{% endfor %}{{ '[call]' if m.tool_calls }}")
    assert template != TOOLS
    item = tokenized(
        template.replace("[call]' if m.tool_calls", "[call]' if m.tool_calls else '[said]'"),
        USER,
        CALL,
        ANSWER,
    )
    assert texts_by_role(item) == [("user", "the river, now?"), ("tool", "high water")]
    assert item.notes == ("a tool call counted as the template's",)


def test_default_system_prompts_are_the_templates() -> None:
    item = tokenized(TOOLS, USER, FINAL, USER, FINAL)
    assert "You are helpful." in item.text
    assert texts_by_role(item) == [("user", USER.content), ("assistant", FINAL.content)] * 2


@pytest.mark.parametrize("content", ["ok", " <|im_end|> ", "assistant\n", "(final) ", "x" * 50])
def test_the_templates_own_generation_mask_decides(content: str) -> None:
    tokenizer = micro.make_tokenizer(template=GENERATES)
    messages = [USER, Message("assistant", content), USER, FINAL]
    (item,) = DocumentTokenizer(tokenizer, 4096).tokenize([Document(0, "s", tuple(messages))])
    assert isinstance(item, TokenizedDocument)
    wanted = tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in messages],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert item.ids.tolist() == wanted["input_ids"]
    assistant = ROLES.index("assistant")
    assert (item.roles == assistant).astype(int).tolist() == wanted["assistant_masks"]
    runs = texts_by_role(item)
    assert [text for role, text in runs if role == "user"] == [USER.content] * 2
    assert runs[-1] == ("assistant", "The river is high.<|im_end|>")


def test_a_refused_system_prompt_goes_before_the_first_user_message() -> None:
    item = tokenized(NO_SYSTEM, SYSTEM, USER, FINAL)
    assert item.text.endswith(
        "<user>be brief\n\nthe river, now?</><assistant>The river is high.</>"
    )
    assert texts_by_role(item) == [
        ("system", "be brief"),
        ("user", "the river, now?"),
        ("assistant", "The river is high."),
    ]
    assert item.notes == ("system prompt put before the first user message",)
    assert tokenized(NO_SYSTEM, USER, FINAL).notes == ()


def test_a_system_prompt_that_a_template_passes_over_goes_there_too() -> None:
    template = NO_SYSTEM.replace("{{ raise_exception('no system role') }}", "{% continue %}")
    item = tokenized(template, SYSTEM, USER)
    assert texts_by_role(item) == [("system", "be brief"), ("user", "the river, now?")]


@pytest.mark.parametrize(
    "messages",
    [
        (USER, CALL, ANSWER),
        (SYSTEM, FINAL),
        (USER, SYSTEM),
        (Message("system", " "), USER),
    ],
)
def test_what_a_template_refuses_is_dropped(messages: tuple[Message, ...]) -> None:
    tokenizer = DocumentTokenizer(micro.make_tokenizer(template=NO_SYSTEM), 64)
    (item,) = tokenizer.tokenize([Document(4, "s", messages)])
    assert item == Dropped(4, "the chat template refuses this conversation")


@pytest.mark.parametrize(
    "arguments",
    [
        {"a": {"b": [None, {"c": 1e308}]}},
        "no object",
        {"__class__": {"__init__": "x"}},
        {"items": "values"},
        {"<|im_end|>": "<|im_start|>"},
    ],
)
@pytest.mark.parametrize("template", [TOOLS, STRIPS, GENERATES, NO_SYSTEM])
def test_odd_calls_are_rendered_or_dropped(template: str, arguments: Any) -> None:
    tokenizer = DocumentTokenizer(micro.make_tokenizer(template=template), 4096)
    call = Message("assistant", "", extras(("look", arguments), ("", {})))
    (item,) = tokenizer.tokenize([Document(0, "s", (USER, call, ANSWER, FINAL))])
    assert isinstance(item, TokenizedDocument | Dropped)


@pytest.mark.parametrize(
    ("asked", "told"),
    [("%d %b %Y", "26 Jul 2024"), ("%Y-%m-%d", "2024-07-26"), ("%A", "2024-07-26")],
)
def test_the_date_is_the_same_every_day(asked: str, told: str) -> None:
    template = f"Today: {{{{ strftime_now('{asked}') }}}}. " + STRIPS
    assert f"Today: {told}. [user]" in tokenized(template, USER).text
    assert date.today() != date(2024, 7, 26)


def test_a_chat_too_long_for_growing_prefixes_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    template = micro.TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'].replace('  ', '') }}")
    messages = (Message("user", "  river"), Message("assistant", "high ")) * 20
    assert texts_by_role(tokenized(template, *messages))[0] == ("user", "river")
    monkeypatch.setattr(roles, "_MOST_PREFIXES", 1000)
    tokenizer = DocumentTokenizer(micro.make_tokenizer(template=template), 64)
    (item,) = tokenizer.tokenize([Document(0, "s", messages)])
    assert item == Dropped(0, "too long for the chat template to tell its roles apart")


def test_what_texts_have_in_common_is_counted() -> None:
    assert roles._common("river", "rivet") == 4
    assert roles._common("", "x") == 0
    assert roles._common("same", "same") == 4
    assert roles._common("ab", "abc") == 2


def test_of_several_templates_the_default_is_taken() -> None:
    tokenizer = micro.make_tokenizer()
    tokenizer.chat_template = {"tool_use": TOOLS, "default": STRIPS}
    (item,) = DocumentTokenizer(tokenizer, 64).tokenize([Document(0, "s", (USER,))])
    assert isinstance(item, TokenizedDocument)
    assert item.text == "[user]\n\nthe river, now?[end]"
