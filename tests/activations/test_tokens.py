"""Every token knows its role and its characters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.activations.corpus import Document, Message
from builder.activations.tokens import DocumentTokenizer, Dropped, TokenizedDocument
from builder.errors import CheckpointError
from builder.records import ROLES
from tests import micro

TOKENIZER = micro.make_tokenizer()


def tokenize(document: Document, tokenizer: Any = TOKENIZER, limit: int = 512) -> TokenizedDocument:
    (item,) = DocumentTokenizer(tokenizer, limit).tokenize([document])
    assert isinstance(item, TokenizedDocument)
    return item


def text_of_role(item: TokenizedDocument, role: str) -> str:
    starts = [0, *item.ends[:-1]]
    return "".join(
        item.text[start:end]
        for start, end, index in zip(starts, item.ends, item.roles, strict=True)
        if ROLES[index] == role
    )


def chat(*messages: tuple[str, str]) -> Document:
    return Document(0, "s", messages=tuple(Message(*message) for message in messages))


def test_roles_follow_the_chat_template() -> None:
    item = tokenize(chat(("system", "be brief"), ("user", "a river"), ("assistant", "a stone")))
    assert text_of_role(item, "system") == "be brief"
    assert text_of_role(item, "user") == "a river"
    assert text_of_role(item, "assistant") == "a stone"
    assert text_of_role(item, "template").startswith("<|bos|><|im_start|>system\n")
    assert item.special.tolist() == [True] + [False] * (len(item.ids) - 1)


def test_contents_that_repeat_the_template_keep_their_roles() -> None:
    item = tokenize(chat(("user", "user"), ("assistant", "user\nassistant"), ("user", "")))
    assert text_of_role(item, "user") == "user"
    assert text_of_role(item, "assistant") == "user\nassistant"


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_contents_come_back_whole_under_their_role(contents: list[str]) -> None:
    messages = [
        ("user" if number % 2 == 0 else "assistant", content)
        for number, content in enumerate(contents)
    ]
    item = tokenize(chat(*messages), limit=4096)
    assert int(item.ends[-1]) == len(item.text)
    assert (item.ends[1:] >= item.ends[:-1]).all()
    for role in ("user", "assistant"):
        wanted = "".join(content for name, content in messages if name == role)
        # A character of several tokens belongs to its role by its last one.
        assert text_of_role(item, role) == wanted


@pytest.mark.parametrize(
    "template",
    [
        # Contents are stripped, as in many templates.
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }} [/]{% endfor %}",
        # Contents are rewritten (earlier thoughts are dropped), so growing prefixes must decide.
        (
            "{% for m in messages %}[{{ m['role'] }}] {{ m['content'].split('#')[-1] | trim }} [/]"
            "{% endfor %}"
        ),
    ],
)
def test_templates_that_change_contents_still_give_roles(template: str) -> None:
    tokenizer = micro.make_tokenizer(template=template)
    item = tokenize(chat(("user", "  the river "), ("assistant", "a stone\n")), tokenizer)
    assert text_of_role(item, "user").strip() == "the river"
    assert text_of_role(item, "assistant").strip() == "a stone"


#: Trims what the assistant says and nothing else, so that growing prefixes must decide.
TRIMS_THE_ASSISTANT = micro.TEMPLATE.replace(
    "{{ m['content'] }}",
    "{{ m['content'] | trim if m['role'] == 'assistant' else m['content'] }}",
)


@pytest.mark.parametrize("content", [" end", "im", " start ", "user", "assistant", " ", "", "|>\n"])
def test_contents_that_stand_in_the_closing_piece_keep_their_role(content: str) -> None:
    tokenizer = micro.make_tokenizer(template=TRIMS_THE_ASSISTANT)
    messages = (("user", content), ("assistant", "ok "), ("user", content), ("assistant", " end "))
    item = tokenize(chat(*messages), tokenizer)
    assert text_of_role(item, "user") == content * 2
    assert text_of_role(item, "assistant") == "okend"


@given(st.lists(st.text(st.sampled_from(" \n<|im_endstar>"), max_size=12), min_size=2, max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_contents_that_are_partly_trimmed_keep_their_role(contents: list[str]) -> None:
    messages = [
        ("user" if number % 2 == 0 else "assistant", content)
        for number, content in enumerate(contents)
    ]
    tokenizer = micro.make_tokenizer(template=TRIMS_THE_ASSISTANT)
    item = tokenize(chat(*messages), tokenizer, limit=4096)
    assert text_of_role(item, "user") == "".join(contents[::2])
    assert text_of_role(item, "assistant") == "".join(text.strip() for text in contents[1::2])


def test_rewritten_contents_that_repeat_the_template_are_found_before_its_end() -> None:
    # Says more before contents of some length; a placeholder is shorter.
    template = micro.TEMPLATE.replace(
        "{{ m['content'] }}",
        "{{ '(end)' if m['content'] | length > 3 }}{{ m['content'] }}",
    )
    tokenizer = micro.make_tokenizer(template=template)
    item = tokenize(chat(("user", "end  "), ("assistant", "m_end")), tokenizer)
    assert text_of_role(item, "user") == "end"
    assert text_of_role(item, "assistant") == "m_end"


def test_rewritten_contents_are_dropped_when_roles_cannot_be_told() -> None:
    template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | upper }}{% endfor %}"
    tokenizer = DocumentTokenizer(micro.make_tokenizer(template=template), 64)
    (item,) = tokenizer.tokenize([chat(("user", "river"))])
    assert item == Dropped(0, "roles cannot be told apart in the rendered text")


def test_a_template_that_refuses_drops_the_conversation() -> None:
    template = "{{ raise_exception('no system prompts here') }}"
    tokenizer = DocumentTokenizer(micro.make_tokenizer(template=template), 64)
    (item,) = tokenizer.tokenize([chat(("user", "river"))])
    assert item == Dropped(0, "the chat template refuses this conversation")


def test_plain_text_works_without_a_chat_template() -> None:
    tokenizer = DocumentTokenizer(micro.make_tokenizer(template=None), 64)
    plain, dropped = tokenizer.tokenize([Document(0, "s", text="a river"), chat(("user", "hi"))])
    assert isinstance(plain, TokenizedDocument)
    assert text_of_role(plain, "text") == "a river"
    assert dropped == Dropped(0, "conversation, but the tokenizer has no chat template")


def test_results_keep_the_order_of_the_documents() -> None:
    documents = micro.documents(40)
    items = DocumentTokenizer(TOKENIZER, 128).tokenize(documents)
    found = [item.document for item in items if isinstance(item, TokenizedDocument)]
    assert found == documents


def test_long_documents_are_cut_with_their_text() -> None:
    item = tokenize(Document(0, "s", text="river " * 1000), limit=32)
    assert item.cut
    assert len(item.ids) == 32
    assert int(item.ends[-1]) == len(item.text)


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(CheckpointError, match="fast"):
        DocumentTokenizer(Slow(), 64)
