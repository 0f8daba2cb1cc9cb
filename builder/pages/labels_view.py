"""What came of labelling a model? States, scores beside chance, the best labels, and the cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from builder.pages import charts
from builder.pages.formats import share
from builder.pages.label_view import REASONS, PoleView
from builder.pages.views import DirectionView, RunView
from builder.records import HAND, POLES, SCORERS

#: Best labels on a model's page.
LISTED = 12


@dataclass(frozen=True, slots=True)
class StateRow:
    """How many poles came out in one way, and their share of all."""

    name: str
    n: int
    share: float
    bar: Markup


@dataclass(frozen=True, slots=True)
class ScoredPole:
    """A pole with a scored label, and what number it is among those of its direction's run."""

    item: DirectionView
    pole: PoleView


@dataclass(frozen=True, slots=True)
class LabelsView:
    """Everything about labels on a model's page."""

    poles: int
    states: tuple[StateRow, ...]
    #: (labeler, how many labels of it stand for a pole).
    labelers: tuple[tuple[str, int], ...]
    scored: int
    #: Scored labels that do better than chance.
    beyond: int
    by_hand: int
    #: The scorer that lists show, for this model; empty if nothing was scored.
    scorer: str
    plot: Markup
    middle: float | None
    #: Of the widths of the intervals of F1.
    middle_width: float | None
    middle_of_controls: float | None
    best: tuple[ScoredPole, ...]


def labels_view(run: RunView) -> LabelsView:
    """What came of labelling the poles of a run's directions from the weights."""
    poles = list(_poles(run.own))
    scored = [row for row in poles if row.pole.score]
    chance = [row.pole.score for row in _poles(run.chance)]
    used = {row.pole.score.score.scorer for row in scored if row.pole.score}
    scorer = next((name for name in SCORERS if name in used), "")
    own = [_f1(row.pole) for row in scored]
    intervals = [row.pole.score.score.f1_interval for row in scored if row.pole.score]
    widths = [high - low for low, high in filter(None, intervals)]
    controls = [view.score.f1 for view in chance if view and view.score.f1 is not None]
    best = sorted(
        (row for row in scored if not row.pole.doubt),
        key=lambda row: (-_f1(row.pole), -(row.item.row.sigma or 0.0), row.item.row.index),
    )
    standing = Counter(row.pole.label.labeler for row in poles if row.pole.label and row.pole.text)
    groups = [("labels of directions from the weights", "own", own)]
    if controls:
        groups.append(("labels of random and shuffled controls", "chance", controls))
    return LabelsView(
        poles=len(poles),
        states=_states(poles),
        labelers=tuple(sorted(standing.items(), key=lambda pair: (-pair[1], pair[0]))),
        scored=len(scored),
        beyond=len(best),
        by_hand=standing.get(HAND, 0),
        scorer=scorer,
        plot=charts.dots(groups, "F1", high=1.0) if own else Markup(""),
        middle=median(own) if own else None,
        middle_width=median(widths) if widths else None,
        middle_of_controls=median(controls) if controls else None,
        best=tuple(best[:LISTED]),
    )


def _poles(items: tuple[DirectionView, ...]) -> Iterator[ScoredPole]:
    for item in items:
        for pole in POLES:
            yield ScoredPole(item, item.poles[pole])


def _f1(pole: PoleView) -> float:
    return (pole.score.score.f1 if pole.score else None) or 0.0


def _states(poles: list[ScoredPole]) -> tuple[StateRow, ...]:
    """Rows of the states that occur; failures by reason, the commonest first."""
    states = Counter(row.pole.state for row in poles)
    reasons = Counter(row.pole.failure.reason for row in poles if row.pole.failure)
    found = [("labelled", states["label"]), ("no consistent pattern", states["none"])]
    found += [
        (f"failed: {REASONS.get(reason, reason)}" if reason != "budget" else REASONS[reason], n)
        for reason, n in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    found.append(("not asked", states["unlabelled"]))
    return tuple(_state(name, n, n / len(poles)) for name, n in found if n)


def _state(name: str, n: int, part: float) -> StateRow:
    return StateRow(name, n, part, charts.bar([("fill", part)], share(part)))
