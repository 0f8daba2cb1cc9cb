"""Which of several answers stands for a pole? A person's, then a model's, then word counts."""

from __future__ import annotations

from builder.records import HAND, KEYWORDS, Label, LabelFailure


def precedence(answer: Label | LabelFailure) -> tuple[int, int, int, str, int]:
    """What answers for one pole are sorted by, the one that stands for it first.

    A person's answer goes before all others, "no consistent pattern" included. Of machines, a label
    with a text goes before "no consistent pattern" and that before a failure; among equals a
    language model's before statistics, and the newest before those of earlier days; then the
    labeler's name decides, and the candidate.
    """
    by = 0 if answer.labeler == HAND else 2 if answer.labeler == KEYWORDS else 1
    if isinstance(answer, LabelFailure):
        state, day = 3, 0
    else:
        state = 0 if by == 0 else 2 if not answer.text else 1
        day = int(answer.created.replace("-", "") or 0)
    return (state, by, -day, answer.labeler, answer.candidate)
