"""What is asked of a model, and what comes back?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Two messages and the JSON schema of the answer.

    ``hash`` (32 hex digits) stands for the messages and the templates they come from; replies are
    kept under it, the name of the schema, the schema, the model and the parameters.
    ``max_completion_tokens`` bounds the reply; ``answers`` tells how many things are asked about.
    """

    system: str
    user: str
    hash: str
    schema_name: str
    schema: Mapping[str, Any]
    max_completion_tokens: int
    answers: int = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered: its text, why it ended, its refusal if any, and what it cost.

    Tokens are as the server counted them, estimated where ``unmetered``; ``cost`` is in US dollars,
    None where no price is known; ``created`` is the day it arrived (YYYY-MM-DD); ``cached`` whether
    it came from the kept replies now.
    """

    content: str
    finish_reason: str
    refusal: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: bool = False
    cost: float | None = None
    created: str = ""
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no reply: a LabelFailure reason (``timeout http malformed budget ...``)."""

    reason: str
    detail: str


class Asker(Protocol):
    """Who answers questions; may be shared between threads."""

    def ask(self, question: Question) -> Reply | Fault:
        """The model's reply, or why there is none.

        Raises LabelerError when every other question would fail as well.
        """
        ...
