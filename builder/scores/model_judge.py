"""What does a language model say? Texts in batches, shuffled, each with a grade from 0 to 10.

The label and the texts are fenced in as the explainer's are (:mod:`builder.labels.prompts`): the
label too, since it was written by a model that read strangers' texts. A batch holds texts of all
strata in an order that follows from them alone, so that a place in it says nothing.

A grade counts only if it is that of one text: a number that is missing, that stands there twice
with different grades, or a grade out of bounds leaves its text without a verdict, with the reason.
A reply that failed as a whole leaves all its texts so. Neither is ever right or wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from builder.endpoint.messages import Asker, Fault, Question, Reply
from builder.labels.answers import no_answer, objects_in
from builder.labels.prompts import escape, nonce_of
from builder.labels.templates import PromptTemplates, prompt_templates, text_digest
from builder.records import Scorer
from builder.scores.judge import Text, Usage, Verdicts
from builder.scores.shown import shown

#: The best grade; half of it means yes.
BEST = 10
#: Characters of a label shown; a person's may be longer than a model's.
MAX_LABEL = 400
#: Asks a question anew, whatever is kept.
Again = Callable[[Question], Reply | Fault]
_SYSTEM = {"detection": "detect.system.j2", "fuzzing": "fuzz.system.j2"}
_USER = "judge.user.j2"

#: The JSON schema of the answer, in the form that strict structured output takes.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdicts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "number": {"type": "integer"},
                    "fit": {"type": "integer", "description": f"from 0 to {BEST}"},
                },
                "required": ["number", "fit"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["verdicts"],
    "additionalProperties": False,
}


class ModelJudge:
    """A model behind an Asker; ``batch`` texts are judged in one request.

    ``again`` asks anew where a kept reply left a text without a verdict.
    """

    def __init__(
        self,
        name: str,
        asker: Asker,
        *,
        batch: int,
        max_completion_tokens: int,
        again: Again | None = None,
    ) -> None:
        self._name = name
        self._asker = asker
        self._batch = batch
        self._max_completion_tokens = max_completion_tokens
        self._again = again

    @property
    def name(self) -> str:
        """The model."""
        return self._name

    def judge(self, label: str, texts: Sequence[Text], scorer: Scorer) -> Verdicts:
        """A verdict for every text that got a usable grade.

        Raises LabelerError when no further question could be answered either.
        """
        values: list[float | None] = [None] * len(texts)
        faults: Counter[str] = Counter()
        usage = Usage()
        for places, question in self.questions(label, texts, scorer):
            reply = self._reply(question)
            if isinstance(reply, Fault):
                faults[reply.reason] += len(places)
                continue
            usage += Usage(reply.prompt_tokens, reply.completion_tokens, reply.cost)
            grades = read_grades(reply, len(places))
            for place, grade in zip(places, grades, strict=True):
                if isinstance(grade, str):
                    faults[grade] += 1
                else:
                    values[place] = grade / BEST
        return Verdicts(tuple(values), dict(sorted(faults.items())), usage)

    def _reply(self, question: Question) -> Reply | Fault:
        reply = self._asker.ask(question)
        if self._again is None or isinstance(reply, Fault) or not reply.cached:
            return reply
        return reply if is_whole(question, reply) else self._again(question)

    def questions(
        self, label: str, texts: Sequence[Text], scorer: Scorer
    ) -> list[tuple[list[int], Question]]:
        """Every question to ask, with the places of its texts."""
        lines = [shown(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda at: (text_digest(label, lines[at]), at))
        batches = [order[at : at + self._batch] for at in range(0, len(order), self._batch)]
        return [(batch, self._question(label, [lines[at] for at in batch], scorer))
                for batch in batches]  # fmt: skip

    def _question(self, label: str, lines: Sequence[str], scorer: Scorer) -> Question:
        templates = _templates(scorer)
        named = escape(label[:MAX_LABEL])
        values = {
            "label": named,
            "texts": lines,
            "nonce": nonce_of([templates.version, named, *lines]),
        }
        system, user, digest = templates.render(values)
        return Question(
            system=system,
            user=user,
            hash=digest,
            schema_name="verdicts",
            schema=SCHEMA,
            max_completion_tokens=self._max_completion_tokens,
            answers=len(lines),
        )


def is_whole(question: Question, reply: Reply) -> bool:
    """Whether a reply has a usable grade for every text of its question."""
    return all(isinstance(grade, int) for grade in read_grades(reply, question.answers))


def read_grades(reply: Reply, n: int) -> list[int | str]:
    """For each of ``n`` texts its grade, or why it has none."""
    fault = no_answer(reply)
    if fault is not None:
        return [fault.reason] * n
    verdicts = _verdicts(reply.content)
    if verdicts is None:
        return ["malformed"] * n
    said: dict[int, set[Any]] = {}
    for item in verdicts:
        number = item.get("number") if isinstance(item, dict) else None
        if isinstance(number, int) and not isinstance(number, bool):
            grade = item.get("fit")
            # Other kinds of value may be equal to a number, or have no place in a set.
            valid = isinstance(grade, int) and not isinstance(grade, bool) and 0 <= grade <= BEST
            said.setdefault(number, set()).add(grade if valid else None)
    return [_grade(said.get(number, set())) for number in range(1, n + 1)]


def _grade(said: set[Any]) -> int | str:
    if not said:
        return "missing"
    if len(said) > 1:
        return "contradictory"
    (grade,) = said
    return "out of bounds" if grade is None else int(grade)


def _verdicts(content: str) -> list[Any] | None:
    """The list in the JSON object of a reply; None unless there is one object, and it has one."""
    tables = objects_in(content)
    found = tables[0].get("verdicts") if len(tables) == 1 else None
    return found if isinstance(found, list) else None


def prompt_version(scorer: Scorer) -> str:
    """Twelve hex digits that change with any change of a scorer's prompt templates."""
    return _templates(scorer).version


def _templates(scorer: Scorer) -> PromptTemplates:
    return prompt_templates(_SYSTEM[scorer], _USER)
