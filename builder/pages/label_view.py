"""What do the pages say of one pole's label? The answers of every labeler, and how each scored.

A score is nothing by itself: it stands beside those that the same labeler's labels of controls got
by the same texts and the same judge. A label that does no better is shown as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from builder.labels.precedence import precedence
from builder.pages.spans import brief
from builder.records import HAND, SCORERS, Label, LabelFailure, Pole, Score, Scorer
from builder.scores.percentile import Controls

#: Labelers that are no language model, and what the page says about them.
NOT_A_MODEL = {
    "keywords": "keyword statistics, not a language model",
    HAND: "written by a person",
}
#: What the failures of a labeler mean, in the reader's words.
REASONS = {
    "refusal": "the labeler refused",
    "truncated": "the answer was cut off",
    "empty": "the answer was empty",
    "malformed": "the answer could not be read",
    "schema": "the answer did not have the form asked for",
    "content_filter": "a content filter stopped the answer",
    "timeout": "the labeler did not answer in time",
    "http": "the labeler's server refused the request",
    "no_examples": "there were no examples to label",
    "budget": "not asked, for the budget was used up",
}
#: Judges that are no language model, and what the page says about them.
JUDGES_BY_RULE = {"words": "a rule that looks for the words of the label"}
#: What the page says about the model behind cosines.
BY_COSINE = "by the cosine of embeddings"
#: A label says more than chance if it scores higher than this share of the poles of controls.
BEYOND = 0.95

State = Literal["label", "none", "failed", "unlabelled"]


@dataclass(frozen=True, slots=True)
class ScoreView:
    """A score and where it stands among those of the same labeler's labels of controls.

    ``beats`` is the share of the ``controls`` poles of controls that score lower, those without a
    pattern as 0; None where there are none.
    """

    score: Score
    beats: float | None
    controls: int

    @property
    def doubt(self) -> str:
        """Why the score speaks against the label, in a few words; empty if it does not."""
        score = self.score
        if score.f1 is None:
            return ""
        if score.chance and score.f1 <= score.chance[1]:
            return "no better than shuffled verdicts"
        if self.beats is not None and self.beats < BEYOND:
            return "no better than controls"
        return ""


#: The scores of controls by labeler and scorer.
Chance = Mapping[tuple[str, Scorer], Controls]


def chance_of(chance: Chance, score: Score) -> tuple[float, ...]:
    """The scores of controls by the labeler and the scorer of this one, ascending."""
    found = chance.get((score.labeler, score.scorer))
    return found.values if found else ()


def score_view(chance: Chance, score: Score) -> ScoreView:
    """A score beside those of the controls."""
    found = chance.get((score.labeler, score.scorer))
    if found is None or score.value is None:
        return ScoreView(score, None, 0)
    return ScoreView(score, found.better_than(score.value), len(found.values))


@dataclass(frozen=True, slots=True)
class Answer:
    """What one labeler made of a pole: a label, or why there is none.

    ``candidates`` are all it gave, if they are several; ``scores`` those of the label, one for each
    scorer.
    """

    labeler: str
    label: Label | None
    failure: LabelFailure | None
    candidates: tuple[Label | LabelFailure, ...] = ()
    scores: tuple[ScoreView, ...] = ()

    @property
    def score(self) -> ScoreView | None:
        """The score that lists show: detection if there is one; None if nothing was scored."""
        return next((view for view in self.scores if view.score.f1 is not None), None)


@dataclass(frozen=True, slots=True)
class PoleView:
    """One pole and what its labelers made of it; the best answer, the first, stands for it."""

    pole: Pole
    answers: tuple[Answer, ...] = field(default=())
    #: How the label that stands for the pole scored; found once, for pages ask many times.
    score: ScoreView | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", self.answers[0].score if self.text else None)

    @property
    def state(self) -> State:
        """What the answer that stands for the pole is."""
        if not self.answers:
            return "unlabelled"
        label = self.answers[0].label
        if label is None:
            return "failed"
        return "label" if label.text else "none"

    @property
    def label(self) -> Label | None:
        """The label that stands for the pole."""
        return self.answers[0].label if self.answers else None

    @property
    def failure(self) -> LabelFailure | None:
        """Why no label does, if every labeler failed."""
        return self.answers[0].failure if self.answers and not self.label else None

    @property
    def text(self) -> str | None:
        """The label's text, or None where there is none."""
        return self.label.text if self.label else None

    @property
    def doubt(self) -> str:
        """Why the score speaks against the label; empty if it does not, or without a score."""
        return self.score.doubt if self.score else ""

    @property
    def said(self) -> str:
        """What stands for the pole in one line, whatever its state; a long label shortened."""
        if self.text:
            return brief(self.text)
        if self.state == "none":
            return "no consistent pattern"
        if self.failure:
            return f"no label: {brief(REASONS.get(self.failure.reason, self.failure.reason))}"
        return "not labelled yet"


def pole_view(
    pole: Pole,
    given: Iterable[Label | LabelFailure],
    scores: Sequence[Score] = (),
    chance: Chance | None = None,
) -> PoleView:
    """The answers to one pole, best first; see :func:`builder.labels.precedence.precedence`.

    ``given`` are all candidates of all labelers, ``scores`` those of test texts. A score counts if
    it is of the text that the label has now.
    """
    by_labeler: dict[str, list[Label | LabelFailure]] = {}
    for answer in given:
        by_labeler.setdefault(answer.labeler, []).append(answer)
    answers = []
    for labeler, found in by_labeler.items():
        found.sort(key=lambda answer: answer.candidate)
        labels = [answer for answer in found if isinstance(answer, Label)]
        label = next((item for item in labels if item.is_chosen), None)
        failure = next((item for item in found if isinstance(item, LabelFailure)), None)
        if label is None and failure is None:
            continue
        views = [
            score_view(chance or {}, score)
            for score in scores
            if label and score.labeler == labeler and score.text == label.text
        ]
        views.sort(key=lambda view: SCORERS.index(view.score.scorer))
        several = tuple(found) if len(found) > 1 else ()
        answers.append(Answer(labeler, label, None if label else failure, several, tuple(views)))
    answers.sort(key=_precedence)
    return PoleView(pole, tuple(answers))


def _precedence(answer: Answer) -> tuple[int, int, int, str, int]:
    held = answer.label or answer.failure
    assert held is not None
    return precedence(held)
