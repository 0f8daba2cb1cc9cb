"""How do a model's directions compare with its controls? Tails drawn, and figures side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from builder.pages import charts
from builder.pages.formats import NONE, fixed, share
from builder.pages.overview import Overview
from builder.pages.triggers import of_directions
from builder.pages.views import CHANCE, DirectionView, RunView
from builder.records import POLES


@dataclass(frozen=True, slots=True)
class Beside:
    """One figure of directions from the weights, and the same of controls that say what chance is.

    ``beyond`` is the share of the directions (or poles) that go beyond every such control.
    """

    own: float
    controls: float
    beyond: float


@dataclass(frozen=True, slots=True)
class ChanceView:
    """The directions from the weights beside each kind of control.

    ``tails``, ``labels`` and ``triggers`` compare the longest tail, the median F1 and the greatest
    trigger-likeness; None where either side has none.
    """

    plot: Markup
    #: Headings of the columns: ``from the weights``, then the kinds of control that there are.
    kinds: tuple[str, ...]
    #: (name of a figure, its value in each column).
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    tails: Beside | None
    labels: Beside | None
    triggers: Beside | None


def chance(run: RunView, view: Overview) -> ChanceView:
    """Tails, peak tokens, trigger-likeness and labels of directions and controls, by kind.

    What chance gives is said by random and shuffled controls alone: base controls come from the
    model as it was, which need not look like chance, and stand beside the others for comparison.
    """
    controls = run.controls
    groups: dict[str, Sequence[DirectionView]] = {"from the weights": run.own}
    groups |= {kind: controls[kind] for kind in CHANCE if kind in controls}
    groups |= {kind: items for kind, items in controls.items() if kind not in CHANCE}
    tails = {name: _tails(items) for name, items in groups.items()}
    above = max(_tails(run.chance), default=math.nan)

    def beyond(name: str) -> str:
        if not tails[name] or math.isnan(above):
            return NONE
        return share(sum(tail > above for tail in tails[name]) / len(tails[name]))

    agreeing = {
        name: [
            held.stats.share
            for item in items
            for pole in POLES
            if (held := view.peaks.get((item.row.id, pole)))
        ]
        for name, items in groups.items()
    }
    triggers = {
        name: of_directions(view.triggers, [item.row.id for item in items])
        for name, items in groups.items()
    }
    labelled = {
        name: [bool(pole.text) for item in items for pole in item.poles.values()]
        for name, items in groups.items()
    }
    chance_names = " and ".join(kind for kind in CHANCE if kind in groups)
    rows = [
        ("directions", [str(len(items)) for items in groups.values()]),
        ("median tail, sd", [fixed(median(g) if g else None, 1) for g in tails.values()]),
        ("longest tail, sd", [fixed(max(g, default=math.nan), 1) for g in tails.values()]),
        *(
            [(f"beyond every {chance_names} control", [beyond(name) for name in groups])]
            if chance_names
            else []
        ),
        (
            "examples that share one peak token, median",
            [share(median(g) if g else None) for g in agreeing.values()],
        ),
        ("most trigger-like", [fixed(max(g, default=math.nan), 2) for g in triggers.values()]),
        (
            "poles with a label",
            [share(sum(g) / len(g) if g else None) for g in labelled.values()],
        ),
    ]
    scores = {name: list(_scores(items)) for name, items in groups.items()}
    if any(scores.values()):
        rows.append(
            ("F1 of labels, median", [fixed(median(g) if g else None, 2) for g in scores.values()])
        )
    drawn = [("from the weights", "own", tails["from the weights"])]
    if run.chance:
        names = ", ".join(kind for kind in CHANCE if kind in groups)
        drawn.append((f"controls: {names}", "chance", _tails(run.chance)))
    drawn += [
        (f"controls: {kind}", "base", tails[kind])
        for kind in groups
        if kind in controls and kind not in CHANCE
    ]
    return ChanceView(
        charts.dots(drawn, "standard deviations"),
        tuple(groups),
        tuple((name, tuple(values)) for name, values in rows),
        tails=_beside(tails["from the weights"], _tails(run.chance), max),
        labels=_beside(list(_scores(run.own)), list(_scores(run.chance)), median),
        triggers=_beside(
            triggers["from the weights"],
            of_directions(view.triggers, [item.row.id for item in run.chance]),
            max,
        ),
    )


def _beside(
    own: Sequence[float], controls: Sequence[float], figure: Callable[[Sequence[float]], float]
) -> Beside | None:
    if not own or not controls:
        return None
    most = max(controls)
    return Beside(figure(own), figure(controls), sum(value > most for value in own) / len(own))


def _scores(items: Sequence[DirectionView]) -> Iterator[float]:
    for item in items:
        for pole in item.poles.values():
            if pole.score and pole.score.score.f1 is not None:
                yield pole.score.score.f1


def _tails(items: Sequence[DirectionView]) -> list[float]:
    return [item.tail.distance for item in items if item.tail]
