"""Is a model's reply the label asked for? Only if it is the JSON object asked for, in bounds.

A reply is untrusted text. A label of more than MAX_LABEL_WORDS words is a ``schema`` failure and is
not cut to size, because a cut label says something the model did not. White space is normalized,
hidden characters are dropped, an over-long explanation is cut. Two objects, or one key twice, are
two answers, and no one can say which was meant. A model that declines in the words of a label has
refused.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.endpoint.messages import Fault, Reply
from builder.labels.prompts import KINDS, MAX_LABEL_WORDS, NO_PATTERN
from builder.labels.visible import one_line

#: Characters of a label and of an explanation; scripts without spaces have no word count.
MAX_LABEL, MAX_EXPLANATION = 120, 600
#: Characters of a label that are read at all, before white space is normalized.
_MAX_RAW_LABEL = 10_000
#: Places in a reply where an object may begin that are looked at.
_MAX_STARTS = 50
#: Ends what a reasoning model thinks before it answers.
_THOUGHT = "</think>"
#: In the model's own voice and not in quotation marks, which a label about refusals would have.
_REFUSAL = re.compile(
    r"i(?:'m| am) (?:very |so )?sorry(?:$|[,.;:!]| but\b| i\b)"
    r"|(?:sorry[,.]? (?:but )?)?(?:i|we) "
    r"(?:can't|cannot|can not|won't|will not|(?:am|are) (?:unable|not able) to|must decline to) "
    r"(?:(?:help|assist)(?:$|[,.;:!]| with\b| you\b)"
    r"|(?:comply|fulfill?|provide|answer|respond|continue|engage|discuss|process|complete)\b)"
)
_NOTHING_FOUND = re.compile(
    rf"{NO_PATTERN}(?: (?:(?:was|is|could be|can be) )?(?:found|detected|identified|observed))?"
)

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
        said = re.sub(r"[\s\"'`.!“”„‘’‚«»]+", " ", self.label).strip().casefold()
        return _NOTHING_FOUND.fullmatch(said) is None


def read_reply(reply: Reply) -> Answer | Fault:
    """The answer in a reply, with clean texts in bounds; else the first thing wrong with it."""
    fault = no_answer(reply)
    if fault is not None:
        return fault
    tables = objects_in(reply.content)
    if not tables and is_refusal(reply.content):
        return Fault("refusal", one_line(reply.content, 200))
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
    label = one_line(answer.label, _MAX_RAW_LABEL)
    words = len(label.split())
    if not label:
        return Fault("schema", "label: empty")
    if is_refusal(label):
        return Fault("refusal", one_line(label, 200))
    is_long = len(label) > MAX_LABEL or len(answer.label) > _MAX_RAW_LABEL
    if words > MAX_LABEL_WORDS or is_long:
        shown = one_line(label, MAX_LABEL)
        return Fault("schema", f"label: {words} words, {len(label)} characters or more: {shown}")
    explanation = one_line(answer.explanation, MAX_EXPLANATION)
    return answer.model_copy(update={"label": label, "explanation": explanation})


def no_answer(reply: Reply) -> Fault | None:
    """Why a reply holds no answer of any form; None where it may."""
    if reply.refusal:
        return Fault("refusal", one_line(reply.refusal, 200))
    if reply.finish_reason == "content_filter":
        return Fault("content_filter", "the endpoint's content filter stopped the reply")
    if reply.finish_reason == "length":
        return Fault("truncated", f"stopped at {reply.completion_tokens} tokens")
    if not reply.content.strip():
        return Fault("empty", f"finish_reason {one_line(reply.finish_reason, 40)!r}")
    return None


def is_refusal(text: str) -> bool:
    """Whether a text declines to answer, by how it begins."""
    said = one_line(text[:400], 200).replace("’", "'").casefold().replace("i'm", "i am")
    return _REFUSAL.match(said) is not None


def objects_in(content: str) -> list[dict[str, Any]]:
    """The first JSON objects in a reply, at most two, none when the first brace begins none.

    Models without structured output put words around the object, and braces into the words.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_with_single_keys)
    found: list[dict[str, Any]] = []
    at = 0
    for _ in range(_MAX_STARTS):
        start = content.find("{", at)
        if start < 0 or len(found) > 1:
            break
        table = None
        end = start + 1
        with contextlib.suppress(ValueError, RecursionError):
            table, end = decoder.raw_decode(content, start)
        at = end
        # Thoughts may hold drafts of the object, and texts in the object the mark that ends them.
        thought = content.find(_THOUGHT, end)
        if thought >= 0:
            found.clear()
            at = thought + len(_THOUGHT)
        elif table is not None:
            found.append(table)
        elif not found:
            break
    return found


def _with_single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key twice")
    return table
