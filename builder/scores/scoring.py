"""What are the scores of a pole's labels? Texts, verdicts and measures put together.

With several candidates, the texts are dealt into two halves: each candidate is judged on one
(``select``), the one chosen is scored on the other (``test``), so that what is reported was not
chosen by. A labeler that gives one candidate is tested on all texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from builder.endpoint.messages import Question
from builder.errors import StoreError
from builder.records import RANKING, SCORERS, Judged, Label, Score, Scorer, Stratum
from builder.scores.choose import choose
from builder.scores.detection import detection_texts
from builder.scores.embedding import EmbeddingJudge
from builder.scores.fuzzing import fuzzing_texts
from builder.scores.items import Item, Pool
from builder.scores.judge import Judge, Text
from builder.scores.metrics import measure, table_of, text_weights
from builder.scores.model_judge import ModelJudge

Split = Literal["test", "select"]
#: Goes into every fingerprint of scores; raised with every change that may change one.
SCORES_VERSION = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """Which scorers judge a labeler's labels, by whom, on how many texts of each stratum.

    ``most`` are by scorer, of which one at least gives an F1; ``parts`` is 2 where the labeler
    gives several candidates for a pole.
    """

    judges: Mapping[Scorer, Judge]
    most: Mapping[Scorer, Mapping[Stratum, int]]
    parts: int = 1

    @property
    def deciding(self) -> Scorer:
        """The scorer that candidates are chosen by: detection, else another that gives an F1."""
        return next(scorer for scorer in SCORERS if scorer in self.judges and scorer not in RANKING)


@dataclass(frozen=True, slots=True)
class PoleScores:
    """Scores of one pole's labels, and the labels with the chosen one marked."""

    scores: tuple[Score, ...]
    labels: tuple[Label, ...]


def score_pole(candidates: Sequence[Label], pool: Pool, plan: Plan) -> PoleScores:
    """The scores of all candidates of one labeler for one pole; "no pattern" has none."""
    found = select_candidate(candidates, pool, plan)
    tests = [
        score_label(label, pool, scorer, plan, "test")
        for label in found.labels
        if label.is_chosen and label.text is not None
        for scorer in plan.judges
    ]
    return PoleScores((*found.scores, *tests), found.labels)


def select_candidate(candidates: Sequence[Label], pool: Pool, plan: Plan) -> PoleScores:
    """The scores that decide between candidates, and these with the best marked.

    A single one is as it was.
    """
    if len(candidates) < 2:
        return PoleScores((), tuple(candidates))
    scores = [
        score_label(label, pool, plan.deciding, plan, "select")
        for label in candidates
        if label.text is not None
    ]
    reached = {score.candidate: score.f1 for score in scores}
    labels = choose(candidates, [reached.get(label.candidate) for label in candidates])
    return PoleScores(tuple(scores), tuple(labels))


def deciding_questions(candidates: Sequence[Label], pool: Pool, plan: Plan) -> Iterator[Question]:
    """What :func:`select_candidate` asks a language model."""
    if len(candidates) > 1:
        for label in candidates:
            yield from _of_language_model(label, pool, plan.deciding, plan, "select")


def testing_questions(label: Label, pool: Pool, plan: Plan) -> Iterator[Question]:
    """What a language model is asked to test one label."""
    for scorer in plan.judges:
        yield from _of_language_model(label, pool, scorer, plan, "test")


def embedding_questions_of(label: Label, pool: Pool, plan: Plan) -> Iterator[Question]:
    """What a model for embeddings is asked to test one label, lists that labels share too."""
    for scorer, judge in plan.judges.items():
        if label.text is not None and isinstance(judge, EmbeddingJudge):
            items = items_of(label, pool, scorer, plan, "test")
            yield from judge.questions(label.text, texts_of(items, scorer, pool.seed))


def _of_language_model(
    label: Label, pool: Pool, scorer: Scorer, plan: Plan, split: Split
) -> Iterator[Question]:
    judge = plan.judges[scorer]
    if label.text is not None and isinstance(judge, ModelJudge):
        texts = texts_of(items_of(label, pool, scorer, plan, split), scorer, pool.seed)
        for _, question in judge.questions(label.text, texts, scorer):
            yield question


def score_label(label: Label, pool: Pool, scorer: Scorer, plan: Plan, split: Split) -> Score:
    """One label's score by one scorer."""
    items = items_of(label, pool, scorer, plan, split)
    texts = texts_of(items, scorer, pool.seed)
    judge = plan.judges[scorer]
    verdicts = judge.judge(label.text or "", texts, scorer)
    strata = [item.stratum for item in items]
    table = table_of(strata, verdicts.values, pool.shares)
    measures = None if table is None else measure(table, pool.seed)
    weights = text_weights(strata, verdicts.values, pool.shares)
    has_yes = measures is not None and scorer not in RANKING
    given = [item.truth for item, v in zip(items, verdicts.values, strict=True) if v is not None]
    return Score(
        direction=label.direction,
        pole=label.pole,
        labeler=label.labeler,
        scorer=scorer,
        judge=judge.name,
        text=label.text or "",
        f1=measures.f1 if measures and has_yes else None,
        auprc=measures.auprc if measures else None,
        f1_interval=measures.f1_interval if measures and has_yes else None,
        auprc_interval=measures.auprc_interval if measures else None,
        chance=measures.chance if measures and has_yes else None,
        base_rate=pool.base_rate,
        between=pool.between,
        n_positive=sum(given),
        n_negative=len(given) - sum(given),
        unparsed=len(items) - len(given),
        faults=verdicts.faults,
        prompt_tokens=verdicts.usage.prompt_tokens,
        completion_tokens=verdicts.usage.completion_tokens,
        cost=verdicts.usage.cost,
        candidate=label.candidate,
        split=split,
        judged=tuple(
            Judged(
                stratum=item.stratum,
                place=item.place,
                doc_id=item.window.doc_id,
                truth=item.truth,
                verdict=verdict,
                weight=weight,
                first=item.first,
                length=len(item.window.token_ends),
                marked=text.marked or (),
            )
            for item, text, verdict, weight in zip(
                items, texts, verdicts.values, weights, strict=True
            )
        ),
    )


def items_of(label: Label, pool: Pool, scorer: Scorer, plan: Plan, split: Split) -> list[Item]:
    """The texts that a label is judged on.

    Raises StoreError if its labeler has seen one of them, which a score must not rest on.
    """
    part = 1 if split == "test" and plan.parts > 1 else 0
    items = pool.take(plan.most[scorer], part, plan.parts)
    seen = {item.window.doc_id for item in items} & set(label.example_docs)
    if seen:
        raise StoreError(
            f"{label.direction} {label.pole}: the label by {label.labeler!r} was made from "
            f"document {min(seen)}, which is held out for scores; run `weightatlas label` again"
        )
    return items


def texts_of(items: Sequence[Item], scorer: Scorer, seed: int) -> list[Text]:
    """The items as the judge of a scorer is shown them."""
    return fuzzing_texts(items, seed) if scorer == "fuzzing" else detection_texts(items)
