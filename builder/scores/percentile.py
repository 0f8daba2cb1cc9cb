"""Is a score better than what directions of no meaning get? Its place among the controls' scores.

Controls are labelled by the same labeler and scored by the same scorer; what is compared is
:attr:`builder.records.Score.value`, F1 or, where a scorer has none, AUPRC. A pole of a control for
which the labeler found no pattern, or which has no examples, counts as 0 where F1 is compared:
nothing is what a label of nothing is worth. One whose label failed or could not be judged says
nothing and is left out. So is, for a scorer of RANKING, every pole without a score: the AUPRC of a
random order is the base rate and never 0, so a 0 would be below any label at all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from builder.records import RANKING, Label, LabelFailure, Score, Scorer


@dataclass(frozen=True, slots=True)
class Controls:
    """The values of the controls' labels of one labeler by one scorer, ascending.

    ``unknown`` counts the poles of controls that say nothing.
    """

    values: tuple[float, ...]
    unknown: int = 0

    def better_than(self, value: float) -> float | None:
        """The share of the controls' poles that are below ``value``, equal ones counted half.

        None without controls.
        """
        if not self.values:
            return None
        below, upto = bisect_left(self.values, value), bisect_right(self.values, value)
        return (below + upto) / (2 * len(self.values))

    def quantile(self, share: float) -> float | None:
        """The value that this share of the controls' poles does not exceed; None without any."""
        if not self.values:
            return None
        return self.values[min(len(self.values) - 1, int(share * len(self.values)))]


def control_scores(
    scores: Iterable[Score],
    labels: Iterable[Label],
    failures: Iterable[LabelFailure],
    controls: Collection[str],
) -> dict[tuple[str, Scorer], Controls]:
    """The controls' scores by labeler and scorer; ``controls`` are the ids of their directions.

    ``scores`` on test texts and the chosen ``labels``, of the whole run.
    """
    known: dict[tuple[str, Scorer], list[float]] = {}
    unknown: dict[tuple[str, Scorer], int] = {}
    for score in scores:
        key = (score.labeler, score.scorer)
        known.setdefault(key, [])
        unknown.setdefault(key, 0)
        if score.direction in controls and score.split == "test":
            if score.value is None:
                unknown[key] += 1
            else:
                known[key].append(score.value)
    found: dict[str, set[tuple[str, str]]] = {}
    for label in labels:
        if label.direction in controls:
            found.setdefault(label.labeler, set()).add((label.direction, label.pole))
            if label.text is None:
                _add_nothing(known, unknown, label.labeler)
    for failure in failures:
        pole = (failure.direction, failure.pole)
        poles = found.setdefault(failure.labeler, set())
        if failure.direction in controls and pole not in poles:
            poles.add(pole)
            if failure.reason == "no_examples":
                _add_nothing(known, unknown, failure.labeler)
            else:
                for key in unknown:
                    unknown[key] += key[0] == failure.labeler
    return {key: Controls(tuple(sorted(values)), unknown[key]) for key, values in known.items()}


def _add_nothing(
    known: dict[tuple[str, Scorer], list[float]],
    unknown: dict[tuple[str, Scorer], int],
    labeler: str,
) -> None:
    """Takes in a pole of a control that has no label."""
    for key, values in known.items():
        if key[0] == labeler and key[1] in RANKING:
            unknown[key] += 1
        elif key[0] == labeler:
            values.append(0.0)
