"""Which label does each pole get? The labeler the settings ask for, over all poles.

A model's reply is untrusted text. It becomes a label only if it is the JSON object asked for, with
every field in bounds: a label of more than MAX_LABEL_WORDS words is a ``schema`` failure and is not
cut to size, because a cut label says something the model did not. White space is normalized, hidden
characters are dropped, an over-long explanation is cut.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.config import LabelSettings
from builder.errors import ConfigError
from builder.labels.client import ChatClient, Fault, Reply
from builder.labels.evidence import EVIDENCE_VERSION, Background, Evidence
from builder.labels.keywords import KEYWORDS_VERSION, LABELER, keyword_label
from builder.labels.prompts import (
    KINDS,
    MAX_LABEL_WORDS,
    NO_PATTERN,
    Prompt,
    prompt_version,
    render_prompt,
)
from builder.labels.visible import one_line
from builder.records import Label, LabelFailure

#: Characters of a label and of an explanation; scripts without spaces have no word count.
MAX_LABEL, MAX_EXPLANATION = 120, 600

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


#: Reasons that another attempt may undo; replies with any other reason are in the cache.
MOMENTARY_REASONS = frozenset({"timeout", "http"})


@dataclass(frozen=True, slots=True)
class Estimate:
    """What labelling would ask of an endpoint: prompts in all, those in the cache, tokens.

    ``prompt_tokens`` is for the prompts that are not in the cache, at four characters a token;
    ``completion_tokens`` is the most the replies to them can have.
    """

    prompts: int
    cached: int
    prompt_tokens: int
    completion_tokens: int


def labeler_name(settings: LabelSettings) -> str:
    """The ``labeler`` of what :func:`label_poles` gives under these settings."""
    return LABELER if settings.labeler == "keywords" else settings.model


def check_labeler(settings: LabelSettings) -> None:
    """Raises ConfigError for settings that no labeler can work with; asks nothing of anyone."""
    if settings.labeler == "openai" and not settings.model:
        raise ConfigError(
            "label.model: the labeler 'openai' needs the name of a model; "
            'for instance --set label.model="gpt-4.1-mini"'
        )
    if settings.labeler == "openai" and settings.model == LABELER:
        raise ConfigError(f"label.model: {LABELER!r} is the name of the embedded labeler")


def label_fingerprint(settings: LabelSettings) -> str:
    """What the labels depend on besides the scan, as JSON: labeler, versions, parameters.

    Labels made under the same fingerprint from the same evidence need not be made again, unless
    some failed for one of the MOMENTARY_REASONS.
    """
    if settings.labeler == "keywords":
        return json.dumps(["keywords", KEYWORDS_VERSION, EVIDENCE_VERSION])
    kept = settings.model_dump(
        mode="json", exclude={"api_key_env", "timeout", "concurrency"}, exclude_none=True
    )
    return json.dumps([kept, prompt_version(), SCHEMA, EVIDENCE_VERSION], sort_keys=True)


def label_poles(
    evidences: Iterable[Evidence],
    background: Background,
    settings: LabelSettings,
    *,
    cache_dir: Path,
) -> Iterator[Label | LabelFailure]:
    """One label or failure for each pole, in the order given, as they are ready.

    ``keywords`` needs nothing. ``openai`` asks ``settings.concurrency`` prompts at a time and keeps
    replies in ``cache_dir``; a pole without examples costs no request. Evidence is taken up only a
    little ahead of the results. Raises ConfigError as :func:`check_labeler` does, LabelerError when
    the labeler as a whole cannot work, and StoreError when replies cannot be kept.
    """
    check_labeler(settings)
    if settings.labeler == "keywords":
        for evidence in evidences:
            yield keyword_label(evidence, background)
        return
    with ChatClient(settings, cache_dir, SCHEMA) as client:

        def explained(evidence: Evidence) -> Label | LabelFailure:
            return explain_pole(evidence, background, settings, client)

        yield from _in_order(explained, evidences, settings.concurrency)


def explain_pole(
    evidence: Evidence, background: Background, settings: LabelSettings, client: ChatClient
) -> Label | LabelFailure:
    """The label of one pole by the model behind ``client``, or why there is none."""
    if not evidence.examples:
        return LabelFailure(evidence.direction, evidence.pole, settings.model, "no_examples")
    prompt = _prompt(evidence, background, settings)
    result = client.ask(prompt)
    reply = result if isinstance(result, Reply) else Reply("", "")
    answer = read_reply(result) if isinstance(result, Reply) else result
    if isinstance(answer, Fault):
        return LabelFailure(
            direction=evidence.direction,
            pole=evidence.pole,
            labeler=settings.model,
            reason=answer.reason,
            detail=answer.detail,
            prompt_hash=prompt.hash,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        )
    none = _bare(answer.label) == NO_PATTERN
    return Label(
        direction=evidence.direction,
        pole=evidence.pole,
        labeler=settings.model,
        text=None if none else answer.label,
        explanation=answer.explanation,
        kind="" if none else answer.kind,
        confidence=answer.confidence,
        prompt_hash=prompt.hash,
        example_docs=prompt.example_docs,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


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
    table = _first_object(reply.content)
    if table is None:
        return Fault("malformed", f"no JSON object: {one_line(reply.content, 200)}")
    try:
        answer = Answer.model_validate(table)
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


def estimate(
    evidences: Iterable[Evidence],
    background: Background,
    settings: LabelSettings,
    *,
    cache_dir: Path,
) -> Estimate:
    """What :func:`label_poles` would ask of the endpoint, without asking; zero for ``keywords``."""
    total = Estimate(0, 0, 0, 0)
    if settings.labeler == "keywords":
        return total
    with ChatClient(settings, cache_dir, SCHEMA) as client:
        for evidence in evidences:
            if not evidence.examples:
                continue
            prompt = _prompt(evidence, background, settings)
            total = replace(total, prompts=total.prompts + 1)
            if client.cached(prompt) is not None:
                total = replace(total, cached=total.cached + 1)
                continue
            total = replace(
                total,
                prompt_tokens=total.prompt_tokens + (len(prompt.system) + len(prompt.user)) // 4,
                completion_tokens=total.completion_tokens + settings.max_completion_tokens,
            )
    return total


def _prompt(evidence: Evidence, background: Background, settings: LabelSettings) -> Prompt:
    return render_prompt(
        evidence, background, examples=settings.examples, contrast=settings.contrast
    )


def _first_object(content: str) -> dict[str, Any] | None:
    """The first JSON object in a reply; models without structured output put words around it."""
    # What a reasoning model thinks before it answers may hold drafts of the object.
    text = content.rpartition("</think>")[2]
    start = text.find("{")
    if start < 0:
        return None
    try:
        table, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def _bare(label: str) -> str:
    return re.sub(r"[\s\"'.]+", " ", label).strip().casefold()


def _in_order(
    work: Callable[[Evidence], Label | LabelFailure], items: Iterable[Evidence], workers: int
) -> Iterator[Label | LabelFailure]:
    """The results of ``work`` in order, with ``workers`` threads, reading a little ahead."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="label")
    waiting: deque[Future[Label | LabelFailure]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # After an error, or when the caller stops, what has not begun never begins.
        pool.shutdown(wait=True, cancel_futures=True)
