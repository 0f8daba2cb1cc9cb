"""What did the fine-tune teach, as far as something says more than chance? The strongest evidence.

Three things can be said of a pole: its label does better than chance on texts kept from labelers,
it looks more like a trigger than any control, and one source holds more of its tail than chance and
than of any control's. What more of them say goes first. One behaviour shows in many directions, so
of poles with the same source or label only the first is listed, and the others are counted. Some
labels of random directions do better than chance as well; where those of the fine-tune are no more
than that, a label alone is no evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from builder.pages.label_view import BEYOND, PoleView, ScoreView
from builder.pages.overview import Overview
from builder.pages.triggers import Trigger, of_directions
from builder.pages.views import DirectionView, RunView
from builder.records import POLES
from builder.store import SourceShare


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is said of one pole, each part None where it is no more than chance; at least one is.

    ``faint`` is the first source enriched in its tail where some control is as plain in one.
    ``others`` is how many further poles of the run say the same.
    """

    item: DirectionView
    pole: PoleView
    label: ScoreView | None
    trigger: Trigger | None
    source: SourceShare | None
    faint: SourceShare | None = None
    others: int = 0

    @property
    def kinds(self) -> int:
        """How many of the three say something."""
        return sum(part is not None for part in (self.label, self.trigger, self.source))


@dataclass(frozen=True, slots=True)
class Taught:
    """The strongest evidence, and how many poles have some of each kind."""

    listed: tuple[Evidence, ...]
    poles: int
    labels: int
    triggers: int
    sources: int
    #: Poles of random and shuffled controls that all of these were held against.
    controls: int
    #: How many poles would be more like a trigger than all controls' if none differed from those,
    #: and as many hold a source more plainly; None without controls.
    by_chance: float | None
    #: Scored labels.
    scored: int
    #: How many of as many poles of controls have a label that does better than chance; None where
    #: no label of a control was scored.
    labels_by_chance: float | None
    #: Whether there are so many more of them that a label alone is evidence.
    labels_count: bool


def taught(run: RunView, view: Overview, n: int) -> Taught:
    """The ``n`` strongest poles that say different things, of the directions from the weights."""
    chance = [item.row.id for item in run.chance]
    trigger_bar = max(of_directions(view.triggers, chance), default=0.0)
    ids = set(chance)
    source_bar = min((held.p_value for held in view.enriched if held.direction in ids), default=1.0)
    found: list[Evidence] = []
    for item in run.own:
        for pole in POLES:
            key, said = (item.row.id, pole), item.poles[pole]
            trigger, source = view.triggers.get(key), view.leading.get(key)
            is_plain = source is not None and source.p_value < source_bar
            one = Evidence(
                item,
                said,
                said.score if said.score and not said.doubt else None,
                trigger if trigger and trigger.value > trigger_bar else None,
                source if is_plain else None,
                None if is_plain else source,
            )
            if one.kinds:
                found.append(one)
    labels = sum(one.label is not None for one in found)
    by_chance = (1 - BEYOND) * len(run.own) * len(POLES) if run.control_scores else None
    labels_count = by_chance is None or labels > by_chance + 1.645 * math.sqrt(by_chance * BEYOND)
    listed = [one for one in found if labels_count or one.trigger or one.source]
    return Taught(
        listed=tuple(_different(sorted(listed, key=_order), n)),
        poles=len(run.own) * len(POLES),
        labels=labels,
        triggers=sum(one.trigger is not None for one in found),
        sources=sum(one.source is not None for one in found),
        controls=len(chance) * len(POLES),
        # Of m + 1 values that come from one distribution each is the greatest as often.
        by_chance=len(run.own) * len(POLES) / (len(chance) * len(POLES) + 1) if chance else None,
        scored=sum(bool(pole.score) for item in run.own for pole in item.poles.values()),
        labels_by_chance=by_chance,
        labels_count=labels_count,
    )


def _order(one: Evidence) -> tuple[float, ...]:
    return (
        -one.kinds,
        -(one.trigger.value if one.trigger else 0.0),
        one.source.p_value if one.source else 1.0,
        -((one.label.score.f1 or 0.0) if one.label else 0.0),
        -(one.item.row.sigma or 0.0),
        one.item.row.index,
    )


def _different(found: list[Evidence], n: int) -> list[Evidence]:
    """The first ``n`` that share neither source nor label with one before, others counted."""
    first: dict[tuple[str, str], int] = {}
    kept: list[Evidence] = []
    others: list[int] = []
    for one in found:
        says = _says(one)
        known = [first[name] for name in says if name in first]
        if known:
            others[known[0]] += 1
            continue
        first.update(dict.fromkeys(says, len(kept)))
        kept.append(one)
        others.append(0)
    return [replace(one, others=count) for one, count in zip(kept[:n], others, strict=False)]


def _says(one: Evidence) -> list[tuple[str, str]]:
    says = []
    if one.source:
        says.append(("source", one.source.source))
    if one.label and one.pole.text:
        says.append(("label", one.pole.text.casefold()))
    # A token alone tells little: commas stand in every text.
    if one.trigger and not says:
        says.append(("token", one.trigger.token))
    return says
