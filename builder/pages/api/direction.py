"""What does the JSON file of a direction say? All that its page says, and its examples in brief."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from builder.pages.api.form import (
    SCHEMA_VERSION,
    AnswerRow,
    Candidate,
    DirectionFile,
    ExampleRow,
    Failure,
    NearRow,
    PoleRow,
    RangeRow,
    ScoreRow,
    ShiftRow,
    SourceRow,
    TailRow,
)
from builder.pages.api.written import interval, number, rounded
from builder.pages.label_view import NOT_A_MODEL, Answer, PoleView, ScoreView
from builder.pages.nearby import NearView
from builder.pages.spans import Pieces
from builder.pages.views import DirectionView, RunView, Tail
from builder.records import POLES, Example, Label, LabelFailure, Range
from builder.store import SourceShare

#: Examples of each pole, tokens on each side of their peak, and the most characters of either side.
EXAMPLES, CONTEXT, CHARACTERS = 1, 6, 60
#: Sources of the tail of each pole.
SOURCES = 2


def direction_file(
    run: RunView,
    item: DirectionView,
    near: NearView,
    examples: Sequence[Example],
    sources: Sequence[SourceShare],
) -> DirectionFile:
    """One direction; ``examples`` are those of both poles over all roles, by pole and place."""
    row = item.row
    spectrum = run.spectrum_of(item)
    own = [NearRow(run=run.name, id=n.item.row.id, cosine=rounded(n.cosine)) for n in near.own]
    others = [
        NearRow(run=n.run.name, id=n.item.row.id, cosine=rounded(n.cosine)) for n in near.others
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run.name,
        "id": row.id,
        "content_hash": row.content_hash,
        "page": item.page,
        "kind": row.kind,  # type: ignore[typeddict-item]  # the database holds no other
        "layer": row.hookpoint.layer,
        "writer": row.hookpoint.writer,
        "module": row.hookpoint.module,
        "rank": row.rank,
        "sigma": number(row.sigma),
        "energy": number(row.energy),
        "residual": number(row.residual),
        "gap": number(row.gap),
        "group": list(row.group),
        "shuffled_floor": number(spectrum.shuffled_floor) if spectrum else None,
        "rounding_floor": number(spectrum.rounding_floor) if spectrum else None,
        "reads": _pairs(row.reads),
        "promoted": _pairs(row.promoted),
        "suppressed": _pairs(row.suppressed),
        "neighbours": own + others,
        "tail": _tail(item.tail),
        "ranges": [
            *(_range(extent, is_base=False) for extent in item.ranges),
            *(_range(extent, is_base=True) for extent in item.base_ranges),
        ],
        "shifts": [
            ShiftRow(
                role=shift.role,
                n=shift.n,
                mean=rounded(shift.mean),
                std=rounded(shift.std),
                outside=rounded(shift.outside),
            )
            for shift in item.shifts
        ],
        "poles": {
            pole: _pole(
                item.poles[pole],
                [example for example in examples if example.pole == pole][:EXAMPLES],
                [share for share in sources if share.pole == pole],
            )
            for pole in POLES
        },
    }


def _pole(view: PoleView, examples: Iterable[Example], sources: Sequence[SourceShare]) -> PoleRow:
    return {
        "state": view.state,
        "answers": [_answer(answer) for answer in view.answers],
        "examples": [_example(example) for example in examples],
        "tail_documents": max((share.tail for share in sources), default=0),
        "sources": [
            SourceRow(source=share.source, n=share.n, q_value=number(share.q_value))
            for share in sources[:SOURCES]
        ],
    }


def _answer(answer: Answer) -> AnswerRow:
    label, failure = answer.label, answer.failure
    held = label or failure
    assert held is not None
    return {
        "labeler": answer.labeler,
        "model": None if answer.labeler in NOT_A_MODEL else answer.labeler,
        "text": label.text if label else None,
        "failure": _failure(failure) if failure else None,
        "explanation": label.explanation if label else "",
        "keywords": list(label.keywords) if label else [],
        "kind": label.kind if label else "",
        "confidence": number(label.confidence) if label else None,
        "agreement": number(label.agreement) if label else None,
        "author": label.author if label else "",
        "created": label.created if label else "",
        "prompt_hash": held.prompt_hash,
        "prompt_tokens": held.prompt_tokens,
        "completion_tokens": held.completion_tokens,
        "cost": number(held.cost),
        "example_docs": list(label.example_docs) if label else [],
        "candidates": [_candidate(candidate) for candidate in answer.candidates],
        "scores": [_score(view) for view in answer.scores],
    }


def _candidate(given: Label | LabelFailure) -> Candidate:
    if isinstance(given, Label):
        return {"chosen": given.is_chosen, "text": given.text, "failure": None}
    return {"chosen": False, "text": None, "failure": _failure(given)}


def _failure(failure: LabelFailure) -> Failure:
    return {"reason": failure.reason, "detail": failure.detail}


def _score(view: ScoreView) -> ScoreRow:
    score = view.score
    return {
        "scorer": score.scorer,
        "judge": score.judge,
        "f1": number(score.f1),
        "f1_interval": interval(score.f1_interval),
        "auprc": number(score.auprc),
        "auprc_interval": interval(score.auprc_interval),
        "chance": interval(score.chance),
        "base_rate": number(score.base_rate),
        "between": number(score.between),
        "n_positive": score.n_positive,
        "n_negative": score.n_negative,
        "unparsed": score.unparsed,
        "faults": dict(sorted(score.faults.items())),
        "beats": number(view.beats),
        "controls": view.controls,
        "doubt": view.doubt or None,
        "cost": number(score.cost),
    }


def _example(example: Example) -> ExampleRow:
    window, peak = example.window, example.peak
    pieces = Pieces.of(window)
    at = next(place for place, last in enumerate(pieces.lasts) if last >= peak)
    first, last = max(0, at - CONTEXT), min(len(pieces.lasts) - 1, at + CONTEXT)
    start, end = pieces.starts[at], pieces.ends[at]
    before = window.text[pieces.starts[first] : start]
    return {
        "role": example.role,
        "value": rounded(example.value),
        "doc_id": window.doc_id,
        "source": window.source,
        "token": window.start + peak,
        "before": before[-CHARACTERS:],
        "peak": window.text[start:end][:CHARACTERS],
        "after": window.text[end : pieces.ends[last]][:CHARACTERS],
    }


def _range(extent: Range, *, is_base: bool) -> RangeRow:
    return {
        "model": "base" if is_base else "tuned",
        "role": extent.role,
        "n": extent.n,
        "minimum": rounded(extent.minimum),
        "maximum": rounded(extent.maximum),
        "mean": rounded(extent.mean),
        "std": rounded(extent.std),
    }


def _tail(tail: Tail | None) -> TailRow | None:
    if tail is None:
        return None
    return TailRow(distance=rounded(tail.distance), pole=tail.pole, role=tail.role)


def _pairs(pairs: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(name, rounded(value)) for name, value in pairs]
