"""What is sent for a question, and what does the body that comes back say?

A body is untrusted. It becomes a Reply only if it is a chat completion with one choice. Its count
of tokens is believed only where texts of that length can have it, and is estimated otherwise: a
count of minus five, of a string or of a million would spoil every sum and the budget.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from builder.endpoint.access import Access, as_detail
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.replies import Usage

#: Longer bodies are no answer to what was asked, bytes.
MAX_BODY = 4_000_000
#: Bytes of one token, about: 4 in English prose, 3 in code and in Chinese.
BYTES_PER_TOKEN = 3
#: Tokens that a server may put around the messages (chat template, instructions for a schema).
AROUND = 500
#: Counts of so many times the tokens asked for come of servers that do not keep to that, as some do
#: for what a model thinks; higher ones are nonsense.
UNSEEN = 4
_FORMAT_WORDS = ("response_format", "json_schema", "guided", "grammar", "structured output")


@dataclass(frozen=True, slots=True)
class Form:
    """The parts of a request that some servers do not know, as they are sent now."""

    use_schema: bool = True
    tokens_parameter: str = "max_completion_tokens"


def older_form(form: Form, said: str) -> Form | None:
    """The form without what a server says, in lower case, that it does not know; None if it names
    nothing that could be left out.
    """
    if form.use_schema and any(word in said for word in _FORMAT_WORDS):
        return replace(form, use_schema=False)
    if form.tokens_parameter != "max_tokens" and form.tokens_parameter in said:
        return replace(form, tokens_parameter="max_tokens")
    return None


def request_body(question: Question, access: Access, form: Form) -> dict[str, Any]:
    """The body of a chat completion request."""
    body: dict[str, Any] = {
        "model": access.model,
        "messages": [
            {"role": "system", "content": question.system},
            {"role": "user", "content": question.user},
        ],
        form.tokens_parameter: question.max_completion_tokens,
    }
    if access.temperature is not None:
        body["temperature"] = access.temperature
    if form.use_schema:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": question.schema_name,
                "strict": True,
                "schema": dict(question.schema),
            },
        }
    return body


def read_body(text: str, question: Question) -> tuple[Reply | Fault, Usage]:
    """The reply in a response body, or why there is none; and what the request used."""
    try:
        table = json.loads(text)
        choices = table["choices"]
        message = choices[0]["message"]
        content, refusal = _string(message.get("content")), _string(message.get("refusal"))
        finish_reason = _string(choices[0].get("finish_reason"))
        reported = table.get("usage")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        fault = Fault("malformed", f"not a chat completion: {as_detail(text)}")
        return fault, _estimated(question, text[:MAX_BODY])
    usage = _usage(reported, question, content + refusal)
    if len(choices) != 1:
        return Fault("malformed", f"{len(choices)} answers where one was asked for"), usage
    reply = Reply(
        content=content,
        finish_reason=finish_reason,
        refusal=refusal,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        unmetered=usage.unmetered,
    )
    return reply, usage


def most_usage(question: Question) -> Usage:
    """The most that a request can use: a token is at least a byte of text."""
    return Usage(_prompt_bytes(question) + AROUND, question.max_completion_tokens, unmetered=True)


def stand_in(hashed: str, schema_name: str, schema: Mapping[str, Any], most: Usage) -> Question:
    """A question that replies can be read and kept for as for one whose text is not at hand.

    ``most`` is what :func:`most_usage` gives for that one, ``hashed`` its hash.
    """
    shaped = Question("", "", hashed, schema_name, schema, most.completion_tokens)
    around = most_usage(shaped).prompt_tokens
    return replace(shaped, user=" " * max(0, most.prompt_tokens - around))


def expected_prompt_tokens(question: Question) -> int:
    """About how many tokens a prompt has."""
    return -(-(_bytes(question.system) + _bytes(question.user)) // BYTES_PER_TOKEN)


def _usage(reported: object, question: Question, shown: str) -> Usage:
    """What the server reports if texts of this length can have it, else an estimate.

    Never more than :func:`most_usage`, or the budget would be crossed.
    """
    if isinstance(reported, dict):
        prompt, completion = reported.get("prompt_tokens"), reported.get("completion_tokens")
        most = most_usage(question)
        if (
            _is_count(prompt)
            and _is_count(completion)
            and 1 <= prompt <= most.prompt_tokens
            and bool(shown) <= completion
        ):
            if completion <= most.completion_tokens:
                return Usage(prompt, completion)
            if completion <= max(UNSEEN * most.completion_tokens, _bytes(shown) + AROUND):
                # More than was asked for, and so more than was set aside for it.
                return Usage(prompt, most.completion_tokens, unmetered=True)
    return _estimated(question, shown)


def _estimated(question: Question, shown: str) -> Usage:
    completion = -(-_bytes(shown) // BYTES_PER_TOKEN)
    return Usage(
        expected_prompt_tokens(question),
        min(completion, question.max_completion_tokens),
        unmetered=True,
    )


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _prompt_bytes(question: Question) -> int:
    schema = json.dumps(dict(question.schema))
    return _bytes(question.system) + _bytes(question.user) + _bytes(schema)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
