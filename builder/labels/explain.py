"""Which label does each pole get? The labeler the settings ask for, over all poles.

A language model may be asked for several candidates, each from another sample of the pole's
examples. How alike they are is stored with each; the most confident one is chosen until scores on
held-out texts decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from builder.config import LabelSettings
from builder.endpoint.access import Access
from builder.endpoint.as_ready import as_ready
from builder.endpoint.client import ChatClient
from builder.endpoint.messages import Fault, Question, Reply
from builder.errors import ConfigError
from builder.labels.agreement import agreement
from builder.labels.answers import SCHEMA, SCHEMA_NAME, Answer, read_reply
from builder.labels.evidence import EVIDENCE_VERSION, Background, Evidence
from builder.labels.keywords import KEYWORDS_VERSION, keyword_label
from builder.labels.prompts import Prompt, prompt_version, render_prompt
from builder.records import HAND, KEYWORDS, Label, LabelFailure

Result = Label | LabelFailure

#: Reasons that another attempt may undo without asking anything twice that was answered.
MOMENTARY_REASONS = frozenset({"timeout", "http", "budget"})
#: Reasons that are no model's: there is nothing to ask.
LASTING_REASONS = frozenset({"no_examples"})
#: Settings that change no label that was had.
_FREE = frozenset(
    {
        "api_key_env",
        "timeout",
        "concurrency",
        "budget",
        "price_input",
        "price_output",
        "embedding_model",
    }
)


def labeler_name(settings: LabelSettings) -> str:
    """The ``labeler`` of what :func:`label_poles` gives under these settings.

    Servers of local models name them by their folder; of that only the last part is told.
    """
    return KEYWORDS if settings.labeler == "keywords" else Access.of(settings).public_model


def check_labeler(settings: LabelSettings) -> None:
    """Raises ConfigError for settings that no labeler can work with; asks nothing of anyone."""
    if settings.labeler == "openai" and not settings.model:
        raise ConfigError(
            "label.model: the labeler 'openai' needs the name of a model; "
            "for instance --model gpt-4.1-mini"
        )
    if settings.labeler == "openai" and labeler_name(settings) in (KEYWORDS, HAND):
        raise ConfigError(f"label.model: {settings.model!r} is the name of another labeler")


def label_fingerprint(settings: LabelSettings) -> str:
    """What the labels depend on besides the scan, as JSON: labeler, versions, parameters.

    Labels made under the same fingerprint from the same evidence need not be made again, unless
    some failed for one of the MOMENTARY_REASONS.
    """
    if settings.labeler == "keywords":
        return json.dumps(["keywords", KEYWORDS_VERSION, EVIDENCE_VERSION])
    kept = settings.model_dump(mode="json", exclude=set(_FREE), exclude_none=True)
    return json.dumps([kept, prompt_version(), SCHEMA, EVIDENCE_VERSION], sort_keys=True)


def keyword_results(
    evidences: Iterable[Evidence], background: Background
) -> Iterator[tuple[Result, ...]]:
    """What the embedded labeler gives each pole, in the order given; needs nothing."""
    for evidence in evidences:
        yield (keyword_label(evidence, background),)


def label_poles(
    evidences: Iterable[Evidence],
    background: Background,
    settings: LabelSettings,
    client: ChatClient,
    *,
    again: bool = False,
) -> Iterator[tuple[Result, ...]]:
    """What the model behind ``client`` gives each pole, as they are ready.

    One result for each candidate, labels and failures, with one label chosen if there is any.
    ``settings.concurrency`` poles are asked for at a time; a pole without examples costs no
    request. Evidence is taken up only a little ahead of the results. ``again``: kept replies that
    are no answer are asked for again. Raises as :meth:`ChatClient.ask` does.
    """

    def explained(evidence: Evidence) -> tuple[Result, ...]:
        return explain_pole(evidence, background, settings, client, again=again)

    return as_ready(explained, evidences, settings.concurrency, client.stop)


def explain_pole(
    evidence: Evidence,
    background: Background,
    settings: LabelSettings,
    client: ChatClient,
    *,
    again: bool = False,
) -> tuple[Result, ...]:
    """The candidates for one pole by the model behind ``client``, or why there are none."""
    labeler = labeler_name(settings)
    if not evidence.examples:
        return (LabelFailure(evidence.direction, evidence.pole, labeler, "no_examples"),)
    found: list[Result] = []
    for candidate, prompt in pole_prompts(evidence, background, settings):
        question = as_question(prompt, settings)
        reply = client.ask(question)
        answer = _answer_in(reply)
        if again and isinstance(reply, Reply) and reply.cached and isinstance(answer, Fault):
            reply = client.ask(question, again=True)
            answer = _answer_in(reply)
        found.append(_result(evidence, labeler, candidate, prompt, reply, answer))
    return _with_choice(found)


def questions(
    evidences: Iterable[Evidence], background: Background, settings: LabelSettings
) -> Iterator[Question]:
    """Every question that :func:`label_poles` would ask, kept replies or not."""
    for evidence in evidences:
        for _, prompt in pole_prompts(evidence, background, settings):
            yield as_question(prompt, settings)


def pole_prompts(
    evidence: Evidence, background: Background, settings: LabelSettings
) -> Iterator[tuple[int, Prompt]]:
    """Each candidate of a pole with its prompt; none without examples.

    Where there are too few examples for samples that differ, there are fewer candidates: the same
    prompt asked twice would agree with itself.
    """
    seen: set[str] = set()
    for candidate in range(settings.candidates if evidence.examples else 0):
        prompt = render_prompt(
            evidence,
            background,
            examples=settings.examples,
            contrast=settings.contrast,
            candidate=candidate,
        )
        if prompt.hash not in seen:
            seen.add(prompt.hash)
            yield candidate, prompt


def as_question(prompt: Prompt, settings: LabelSettings) -> Question:
    """A prompt with the answer it asks for."""
    return Question(
        system=prompt.system,
        user=prompt.user,
        hash=prompt.hash,
        schema_name=SCHEMA_NAME,
        schema=SCHEMA,
        max_completion_tokens=settings.max_completion_tokens,
    )


def _answer_in(reply: Reply | Fault) -> Answer | Fault:
    return read_reply(reply) if isinstance(reply, Reply) else reply


def _result(
    evidence: Evidence,
    labeler: str,
    candidate: int,
    prompt: Prompt,
    reply: Reply | Fault,
    answer: Answer | Fault,
) -> Result:
    had = reply if isinstance(reply, Reply) else Reply("", "")
    if isinstance(answer, Fault):
        return LabelFailure(
            direction=evidence.direction,
            pole=evidence.pole,
            labeler=labeler,
            reason=answer.reason,
            detail=answer.detail,
            prompt_hash=prompt.hash,
            prompt_tokens=had.prompt_tokens,
            completion_tokens=had.completion_tokens,
            candidate=candidate,
            cost=had.cost,
        )
    return Label(
        direction=evidence.direction,
        pole=evidence.pole,
        labeler=labeler,
        text=answer.label if answer.is_pattern else None,
        explanation=answer.explanation,
        kind=answer.kind if answer.is_pattern else "",
        confidence=answer.confidence,
        prompt_hash=prompt.hash,
        example_docs=prompt.example_docs,
        prompt_tokens=had.prompt_tokens,
        completion_tokens=had.completion_tokens,
        candidate=candidate,
        is_chosen=False,
        created=had.created,
        cost=had.cost,
    )


def _with_choice(found: list[Result]) -> tuple[Result, ...]:
    """The results with the most confident label chosen, the first of equals, and the agreement."""
    labels = [item for item in found if isinstance(item, Label)]
    if not labels:
        return tuple(found)
    alike = agreement([label.text for label in labels])
    best = max(labels, key=lambda label: (label.confidence or 0.0, -label.candidate))
    return tuple(
        replace(item, is_chosen=item is best, agreement=alike) if isinstance(item, Label) else item
        for item in found
    )
