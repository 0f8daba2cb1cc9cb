"""Which document is a row? Texts and conversations in the forms that data sets give them.

Known are plain texts, chats of ``role`` and ``content``, chats of ``from`` and ``value``, chats as
JSON in a text (Parquet sets have them), contents in parts, tool calls and what tools answered. A
row that is none of these is a fault with a reason; what is left out of a row that is used is noted.
Nothing is read from outside the row.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from builder.activations.corpus import Document, Message
from builder.config import Source, public_name

#: How often rows name their chat, in the order they are looked for.
MESSAGES_COLUMNS = ("messages", "conversation", "conversations", "chat", "dialogue")
TEXT_COLUMNS = ("text", "content", "document", "body")
#: What others call the speakers, and what the chat templates call them.
_SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
}
_KNOWN_ROLES = frozenset({"user", "assistant", "system", "tool"})
#: Kinds of content that are counted by their name; any other text of a row may be its data.
_PART_KINDS = frozenset(
    {"image", "image_url", "input_image", "audio", "input_audio", "video", "file", "thinking"}
)
_NO_CHAT = "messages as text that is no JSON array of objects"
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no document: where it stands and why."""

    where: str
    reason: str


@dataclass(slots=True)
class CorpusTally:
    """What reading found: rows, documents per source name, faults and notes per reason."""

    rows: int = 0
    documents: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)


class _FaultError(ValueError):
    """Why a conversation is no document."""


def chat_columns(source: Source) -> tuple[str, ...]:
    """The columns that may hold a source's conversations, in order of preference."""
    return (source.messages_column,) if source.messages_column else MESSAGES_COLUMNS


def text_columns(source: Source) -> tuple[str, ...]:
    """The columns that may hold a source's plain texts, in order of preference."""
    return (source.text_column,) if source.text_column else TEXT_COLUMNS


def source_name(source: Source) -> str:
    """What a source is called where its rows do not say."""
    return source.name or public_name(source.path or source.dataset)


def document_of(
    row: dict[str, Any], source: Source, doc_id: int, tally: CorpusTally
) -> Document | BadRow:
    """The document that a row of a source is; what is left out of it is noted in ``tally``."""
    name = row.get(source.source_column)
    label = name if isinstance(name, str) and name else source_name(source)
    label = _clean(label, tally)[:200]
    where = f"{source_name(source)} row {doc_id}"
    chats = [row[key] for key in chat_columns(source) if isinstance(row.get(key), list | str)]
    chat = next((item for item in map(_chat, chats) if item is not None), None)
    if chat is not None:
        try:
            messages = _conversation(chat, tally)
        except _FaultError as fault:
            return BadRow(where, str(fault))
        except RecursionError:
            return BadRow(where, "a message that is nested too deeply")
        if source.system_prompt and all(message.role != "system" for message in messages):
            messages = (Message("system", _clean(source.system_prompt, tally)), *messages)
        return Document(doc_id, label, messages)
    text = next((row[key] for key in text_columns(source) if isinstance(row.get(key), str)), None)
    if text is None:
        return BadRow(where, _NO_CHAT if chats else "neither text nor messages")
    if not text.strip():
        return BadRow(where, "empty text")
    return Document(doc_id, label, text=_clean(text, tally))


def _chat(value: list[Any] | str) -> list[Any] | None:
    """The messages of a chat, which may be given as the JSON of a list of objects."""
    if isinstance(value, list):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    is_chat = isinstance(found, list) and all(isinstance(item, dict) for item in found)
    return found if is_chat else None


def _conversation(chat: list[Any], tally: CorpusTally) -> tuple[Message, ...]:
    messages: list[Message] = []
    for item in chat:
        if not isinstance(item, dict):
            raise _FaultError("a message that is not an object")
        role = item.get("role", item.get("from"))
        role = _SPEAKERS.get(role, role) if isinstance(role, str) else None
        if role not in _KNOWN_ROLES:
            raise _FaultError("a message with an unknown role")
        extras = _extras(item, role)
        content = item.get("content", item.get("value"))
        if content is None and "tool_calls" in extras:
            content = ""
        if isinstance(content, list):
            content = _joined(content, tally)
        if not isinstance(content, str):
            raise _FaultError("a message whose content is not text")
        if isinstance(item.get("reasoning_content"), str) and item["reasoning_content"]:
            tally.noted["reasoning left out"] += 1
        messages.append(Message(role, _clean(content, tally), _clean(_as_json(extras), tally)))
    if not any(item.content.strip() or '"tool_calls"' in item.extras for item in messages):
        raise _FaultError("empty conversation")
    return tuple(messages)


def _joined(parts: list[Any], tally: CorpusTally) -> str:
    """The texts of a content in parts; parts of other kinds are left out and noted."""
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
            continue
        named = kind if isinstance(kind, str) and kind in _PART_KINDS else "unknown"
        tally.noted[f"part of a message left out: {named}"] += 1
    return "".join(texts)


def _extras(item: dict[str, Any], role: str) -> dict[str, Any]:
    """What a template may read of a message besides its content."""
    extras: dict[str, Any] = {}
    if role == "assistant":
        calls = item.get("tool_calls")
        if calls is None and item.get("function_call") is not None:
            calls = [{"function": item["function_call"]}]
        if calls is not None:
            if not isinstance(calls, list):
                raise _FaultError("a tool call that is not one")
            if calls:
                extras["tool_calls"] = [_call(call) for call in calls]
    elif role == "tool":
        extras = {
            key: item[key]
            for key in ("name", "tool_call_id")
            if isinstance(item.get(key), str) and item[key]
        }
    return extras


def _as_json(extras: dict[str, Any]) -> str:
    try:
        return json.dumps(extras, ensure_ascii=False, sort_keys=True) if extras else ""
    except TypeError as error:  # Parquet knows dates and bytes
        raise _FaultError("a tool call whose arguments are no JSON") from error


def _call(call: Any) -> dict[str, Any]:
    """A tool call in the form that chat templates read, arguments as an object if they are one."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _FaultError("a tool call that is not one")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):  # a text then, as the template shows it
            parsed = None
        arguments = parsed if isinstance(parsed, dict) else arguments
    elif arguments is None:
        arguments = {}
    elif not isinstance(arguments, dict):
        raise _FaultError("a tool call whose arguments are no object")
    kept = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {**kept, "id": call["id"]} if isinstance(call.get("id"), str) else kept


def _clean(text: str, tally: CorpusTally) -> str:
    """The text without lone surrogates, which no tokenizer and no UTF-8 file can hold."""
    cleaned, found = _SURROGATES.subn("\ufffd", text)
    if found:
        tally.noted["lone surrogates replaced"] += found
    return cleaned
