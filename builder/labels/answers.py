"""Is a model's reply the label asked for? Only if it is the JSON object asked for, in bounds.

A reply is untrusted text. A label of more than MAX_LABEL_WORDS words is a ``schema`` failure and is
not cut to size, because a cut label says something the model did not. White space is normalized,
hidden characters are dropped, an over-long explanation is cut. Two objects are two answers, and no
one can say which was meant.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.endpoint.messages import Fault, Reply
from builder.labels.prompts import KINDS, MAX_LABEL_WORDS, NO_PATTERN
from builder.labels.visible import one_line

#: Characters of a label and of an explanation; scripts without spaces have no word count.
MAX_LABEL, MAX_EXPLANATION = 120, 600
#: Places in a reply where an object may begin that are looked at.
_MAX_STARTS = 50

SCHEMA_NAME = "label"
#: The JSON schema of the answer, in the form that strict structured output takes.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {
            "type": "string",
            "description": f'at most {MAX_LABEL_WORDS} words, or "{NO_PATTERN}"',
        },
        "explanation": {"type": "string"},
        "kind": {"type": "string", "enum": list(KINDS)},
        "confidence": {"type": "number", "description": "from 0 to 1"},
    },
    "required": ["label", "explanation", "kind", "confidence"],
    "additionalProperties": False,
}


class Answer(BaseModel):
    """The object a model must answer with."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: str
    explanation: str
    kind: Literal["topic", "format", "language", "style", "behaviour", "trigger-like", "artefact"]
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

    @property
    def is_pattern(self) -> bool:
        """Whether the model found one."""
        return re.sub(r"[\s\"'.]+", " ", self.label).strip().casefold() != NO_PATTERN


def read_reply(reply: Reply) -> Answer | Fault:
    """The answer in a reply, with clean texts in bounds; else the first thing wrong with it."""
    if reply.refusal:
        return Fault("refusal", one_line(reply.refusal, 200))
    if reply.finish_reason == "content_filter":
        return Fault("content_filter", "the endpoint's content filter stopped the reply")
    if reply.finish_reason == "length":
        return Fault("truncated", f"stopped at {reply.completion_tokens} tokens")
    if not reply.content.strip():
        return Fault("empty", f"finish_reason {one_line(reply.finish_reason, 40)!r}")
    tables = objects_in(reply.content)
    if not tables:
        return Fault("malformed", f"no JSON object: {one_line(reply.content, 200)}")
    if len(tables) > 1:
        return Fault("malformed", f"more than one JSON object: {one_line(reply.content, 200)}")
    try:
        answer = Answer.model_validate(tables[0])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return Fault("schema", one_line(f"{place}: {first['msg']}", 200))
    label = one_line(answer.label, MAX_LABEL + 1)
    words = len(label.split())
    if not label:
        return Fault("schema", "label: empty")
    if words > MAX_LABEL_WORDS or len(label) > MAX_LABEL:
        return Fault("schema", f"label: {words} words, {len(label)} characters or more: {label}")
    explanation = one_line(answer.explanation, MAX_EXPLANATION)
    return answer.model_copy(update={"label": label, "explanation": explanation})


def objects_in(content: str) -> list[dict[str, Any]]:
    """The first JSON objects in a reply, at most two, none when the first brace begins none.

    Models without structured output put words around the object, and braces into the words.
    """
    # What a reasoning model thinks before it answers may hold drafts of the object.
    text = content.rpartition("</think>")[2]
    found: list[dict[str, Any]] = []
    start = text.find("{")
    for _ in range(_MAX_STARTS):
        if start < 0 or len(found) > 1:
            break
        try:
            table, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            if not found:
                return []
            end = start + 1
        else:
            found.append(table)
        start = text.find("{", end)
    return found
