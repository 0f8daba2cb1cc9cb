"""Which character of a document belongs to whom? The chat template, rendered, and spans of roles.

A conversation is rendered by the model's own chat template. To know which characters are whose,
the template is rendered a second time with a placeholder in place of every content: what stands
between the placeholders is the template's. If putting the contents back gives the rendered text,
the spans are exact; if not (templates that rewrite contents), the rendering of growing prefixes
decides, content being looked for between what the template puts before and after it. Where the
template itself marks what the assistant generates, that is the assistant's instead. A conversation
whose roles cannot be told is dropped and counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from builder.activations.corpus import Document, Message
from builder.records import ROLES

ROLE_INDEX = {role: index for index, role in enumerate(ROLES)}
#: What a template may raise about a conversation; all of it is the conversation's fault here.
_REFUSALS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_DATE = re.compile(r"strftime_now\(\s*(?:'([^']*)'|\"([^\"]*)\")")
#: Templates that tell the model the date are given this one, so that a scan can be repeated. It is
#: the one that Llama's template falls back to.
_TODAY = {"%d %b %Y": "26 Jul 2024", "%d %B %Y": "26 July 2024", "%B %d, %Y": "July 26, 2024"}
_OTHER_TODAY = "2024-07-26"
#: Growing prefixes cost the square of a conversation's length; beyond this many characters in all
#: it is dropped.
_MOST_PREFIXES = 1 << 26
_MOST_SKELETONS = 4096

Span = tuple[int, int, int]  # first character, end, role index


@dataclass(frozen=True, slots=True)
class Rendered:
    """A document as the model's tokenizer is given it.

    ``spans`` say whose the characters are, in order and apart; the rest is the template's.
    ``generated`` are the assistant's by the template's own word. ``is_chat`` says that the
    template put all special tokens itself.
    """

    text: str
    spans: tuple[Span, ...]
    generated: tuple[tuple[int, int], ...] = ()
    is_chat: bool = True
    notes: tuple[str, ...] = ()


class ChatRenderer:
    """Renders documents by one tokenizer's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        template = getattr(tokenizer, "chat_template", None)
        if isinstance(template, dict):  # of several the one for chats without a list of tools
            template = template.get("default") or next(iter(template.values()), None)
        self.has_template = bool(template)
        self._template = _dated(str(template)) if template else ""
        self._generates = bool(_GENERATION.search(self._template))
        self._special = dict(tokenizer.special_tokens_map)
        self._skeletons: dict[tuple[str, ...], list[str] | None] = {}

    def render(self, document: Document) -> Rendered | str:
        """The document as text with the spans of its roles, or why there is none."""
        if not document.messages:
            whole = (0, len(document.text), ROLE_INDEX["text"])
            return Rendered(document.text, (whole,), is_chat=False)
        if not self.has_template:
            return "conversation, but the tokenizer has no chat template"
        found = self._chat(document.messages)
        if isinstance(found, str) and (folded := _folded(document.messages)) is not None:
            system, messages = folded
            again = self._chat(messages)
            if isinstance(again, Rendered):
                return _unfolded(again, system)
        return found

    def _chat(self, messages: Sequence[Message]) -> Rendered | str:
        try:
            text, generated = self._apply(messages)
            spans = self._spans_by_skeleton(messages, text)
            if spans is None:
                if len(text) * len(messages) > _MOST_PREFIXES:
                    return "too long for the chat template to tell its roles apart"
                spans = self._spans_by_prefix(messages, text)
            notes: tuple[str, ...] = ()
            if spans is not None and any(message.extras for message in messages):
                spans, notes = self._with_calls(messages, text, spans)
        except _REFUSALS:
            return "the chat template refuses this conversation"
        if spans is None:
            return "roles cannot be told apart in the rendered text"
        if self._generates:
            assistant = ROLE_INDEX["assistant"]
            spans = tuple(span for span in spans if span[2] != assistant)
            return Rendered(text, spans, tuple(sorted(generated)), notes=notes)
        return Rendered(text, spans, notes=notes)

    def _apply(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The rendered chat, and which characters the template marks as generated."""
        # The library's annotation says less than it gives.
        found: Any = render_jinja_template(
            conversations=[[_as_template_reads(message) for message in messages]],
            chat_template=self._template,
            return_assistant_tokens_mask=self._generates,
            **{"date_string": _TODAY["%d %b %Y"], **self._special},
        )
        texts, generated = found
        return str(texts[0]), list(generated[0]) if self._generates else []

    def _text(self, messages: Sequence[Message]) -> str:
        return self._apply(messages)[0]

    def _spans_by_skeleton(self, messages: Sequence[Message], text: str) -> tuple[Span, ...] | None:
        pieces = self._pieces(messages)
        if pieces is None:
            return None
        for contents in (
            [message.content for message in messages],
            [message.content.strip() for message in messages],
        ):
            spans: list[Span] = []
            at = len(pieces[0])
            for message, content, piece in zip(messages, contents, pieces[1:], strict=True):
                spans.append((at, at + len(content), ROLE_INDEX[message.role]))
                at += len(content) + len(piece)
            if at == len(text) and text == _interleave(pieces, contents):
                return tuple(spans)
        return None

    def _pieces(self, messages: Sequence[Message]) -> list[str] | None:
        """The template's own text before, between and after the contents of such a chat."""
        if any(message.extras for message in messages):
            return self._skeleton(messages)  # each is another
        roles = tuple(message.role for message in messages)
        if roles not in self._skeletons:
            if len(self._skeletons) == _MOST_SKELETONS:
                self._skeletons.clear()
            self._skeletons[roles] = self._skeleton(messages)
        return self._skeletons[roles]

    def _skeleton(self, messages: Sequence[Message]) -> list[str] | None:
        # What only calls tools has no content, and a template may say other things where there is.
        marks = [
            f"\ue000{number}\ue001" if message.content or not message.extras else ""
            for number, message in enumerate(messages)
        ]
        rest = self._text(
            [replace(item, content=mark) for item, mark in zip(messages, marks, strict=True)]
        )
        pieces: list[str] = []
        for mark in marks:
            piece, found, rest = rest.partition(mark) if mark else ("", "", rest)
            if mark and (not found or mark in rest):
                return None
            pieces.append(piece)
        return [*pieces, rest]

    def _spans_by_prefix(self, messages: Sequence[Message], text: str) -> tuple[Span, ...] | None:
        spans: list[Span] = []
        at = 0
        for number, message in enumerate(messages, start=1):
            prefix = self._text(messages[:number])
            common = len(prefix) if text.startswith(prefix) else _common(text, prefix)
            pieces = self._pieces(messages[:number])
            header, closing = pieces[-2:] if pieces else ("", "")
            at += len(header) if text.startswith(header, at) else 0
            stop = max(at, min(common, len(prefix.removesuffix(closing))))
            wanted = message.content.strip()
            if text[at:stop].strip() == wanted:
                start, end = at, stop
            elif not wanted and message.extras:
                start = end = at  # what it calls is looked for apart
            else:
                # From the right: what the template adds, like a header, stands before the content.
                start = text.rfind(wanted, at, stop)
                end = start + len(wanted)
            if start < 0:
                return None
            spans.append((start, end, ROLE_INDEX[message.role]))
            at = end
        return tuple(spans)

    def _with_calls(
        self, messages: Sequence[Message], text: str, spans: tuple[Span, ...]
    ) -> tuple[tuple[Span, ...], tuple[str, ...]]:
        """The spans with those of tool calls, which the assistant writes as it does contents."""
        found = list(spans)
        notes: tuple[str, ...] = ()
        for number, message in enumerate(messages):
            if message.role != "assistant" or not message.extras:
                continue
            call = self._call(messages, number, text)
            before = found[number - 1][1] if number else 0
            after = spans[number + 1][0] if number + 1 < len(spans) else len(text)
            start, end, role = (
                spans[number] if message.content else (after, before, spans[number][2])
            )
            if call is not None and before <= call[0] <= start and end <= call[1] <= after:
                found[number] = (*call, role)
            elif not self._generates:
                notes = ("a tool call counted as the template's",)
        return tuple(found), notes

    def _call(self, messages: Sequence[Message], number: int, text: str) -> tuple[int, int] | None:
        """Where the template shows a message with tool calls, without its header and closing.

        Those are what it puts around a placeholder that is said in the call's place.
        """
        whole = self._text(messages[: number + 1])
        mark = "\ue000\ue001"
        plain = self._text([*messages[:number], Message("assistant", mark)])
        header, found, closing = plain.rpartition(mark)
        known = found and whole.startswith(header) and whole.endswith(closing)
        if not known or not text.startswith(whole):
            return None
        return len(header), max(len(header), len(whole) - len(closing))


def _as_template_reads(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    return {**plain, **json.loads(message.extras)} if message.extras else plain


def _dated(template: str) -> str:
    """The template with a date that stays the same, where it asks for today's."""
    formats = dict.fromkeys(one or other for one, other in _DATE.findall(template))
    if "strftime_now" not in template:
        return template
    cases = "".join(
        f"{{%- if format == {json.dumps(name)} -%}}{_TODAY[name]}{{%- else -%}}"
        for name in formats
        if name in _TODAY
    )
    ends = "{%- endif -%}" * sum(name in _TODAY for name in formats)
    macro = f"{{%- macro strftime_now(format) -%}}{cases}{_OTHER_TODAY}{ends}{{%- endmacro -%}}"
    return macro + template


def _folded(messages: Sequence[Message]) -> tuple[str, list[Message]] | None:
    """The leading system text, and the chat with it put before the first user message instead."""
    first = next((n for n, item in enumerate(messages) if item.role != "system"), len(messages))
    system = "\n\n".join(item.content.strip() for item in messages[:first])
    rest = list(messages[first:])
    place = next((n for n, item in enumerate(rest) if item.role == "user"), None)
    if not system or place is None:
        return None
    rest[place] = replace(rest[place], content=f"{system}\n\n{rest[place].content}")
    return system, rest


def _unfolded(found: Rendered, system: str) -> Rendered:
    """The spans of a folded chat, the system's text taken out of the user's."""
    user = ROLE_INDEX["user"]
    spans = list(found.spans)
    place = next(n for n, span in enumerate(spans) if span[2] == user)
    start, end, _ = spans[place]
    start = max(start, found.text.find(system, start, end))
    middle = min(start + len(system), end)
    spans[place : place + 1] = [
        (start, middle, ROLE_INDEX["system"]),
        (min(middle + 2, end), end, user),
    ]
    note = "system prompt put before the first user message"
    return replace(found, spans=tuple(spans), notes=(*found.notes, note))


def _interleave(pieces: Sequence[str], contents: Sequence[str]) -> str:
    parts = [pieces[0]]
    for content, piece in zip(contents, pieces[1:], strict=True):
        parts += [content, piece]
    return "".join(parts)


def _common(one: str, two: str) -> int:
    """How many characters two texts begin with in common."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
