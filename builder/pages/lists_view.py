"""Which poles and directions of a model stand out? By trigger, by source, and against the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.pages.label_view import PoleView
from builder.pages.overview import Overview, fold
from builder.pages.triggers import Trigger, of_directions
from builder.pages.views import MIN_TOKENS, DirectionView, RunView
from builder.records import CONTENT_ROLES, POLES, Range, Shift
from builder.store import SourceShare

#: Rows of each list on a model's page.
LISTED = 12


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """A trigger-like pole; ``beats`` is the share of controls' poles that are less so."""

    item: DirectionView
    pole: PoleView
    trigger: Trigger
    beats: float | None


@dataclass(frozen=True, slots=True)
class TriggerList:
    """The most trigger-like poles, and how many go beyond every control's.

    ``most`` is the greatest value among controls that say what chance gives; None without any.
    """

    rows: tuple[TriggerRow, ...]
    beyond: int
    most: float | None


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A source with the pole whose tail holds more of it than chance, most plainly of all poles.

    ``share`` is that of the tail, ``corpus_share`` that of the corpus; ``poles`` is how many poles
    of directions from the weights are enriched in it, ``controls`` how many of controls.
    """

    item: DirectionView
    pole: PoleView
    held: SourceShare
    share: float
    corpus_share: float
    fold: float
    poles: int
    controls: int


@dataclass(frozen=True, slots=True)
class SourceList:
    """The most enriched sources; ``sources`` is how many there are in all, ``poles`` of them."""

    rows: tuple[SourceRow, ...]
    sources: int
    poles: int
    #: Share of poles of random and shuffled controls that are enriched in any source.
    chance: float | None


@dataclass(frozen=True, slots=True)
class ShiftRow:
    """How far tuning moved a direction in the role in which it goes farthest beyond the base.

    ``mean`` and ``spread`` are the mean of the difference and its standard deviation, both in
    standard deviations of the base's activations.
    """

    item: DirectionView
    shift: Shift
    base: Range
    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class ShiftList:
    """The directions that tuning moved most; empty where the base was not scanned.

    ``chance`` is the greatest share outside among random and shuffled controls.
    """

    rows: tuple[ShiftRow, ...]
    measured: int
    chance: float | None


def strongest(run: RunView) -> tuple[DirectionView, ...]:
    """The directions with the largest singular values."""
    ordered = sorted(run.own, key=lambda item: (-(item.row.sigma or 0.0), item.row.index))
    return tuple(ordered[:LISTED])


def trigger_list(run: RunView, view: Overview) -> TriggerList:
    """The poles that look most like a trigger, those that do not at all left out."""
    chance = sorted(of_directions(view.triggers, (item.row.id for item in run.chance)))
    found = [
        (trigger, item, pole)
        for item in run.own
        for pole in POLES
        if (trigger := view.triggers.get((item.row.id, pole))) and trigger.value > 0
    ]
    found.sort(key=lambda row: (-row[0].value, row[1].row.index))
    most = chance[-1] if chance else None
    return TriggerList(
        rows=tuple(
            TriggerRow(
                item,
                item.poles[pole],
                trigger,
                sum(value < trigger.value for value in chance) / len(chance) if chance else None,
            )
            for trigger, item, pole in found[:LISTED]
        ),
        beyond=sum(trigger.value > (most or 0.0) for trigger, _, _ in found),
        most=most,
    )


def source_list(run: RunView, view: Overview) -> SourceList:
    """Sources by how plainly a pole of a direction from the weights is enriched in them."""
    own = {item.row.id: item for item in run.own}
    chance = {item.row.id for item in run.chance}
    first: dict[str, SourceShare] = {}
    poles: dict[str, int] = {}
    by_chance: dict[str, int] = {}
    for held in view.enriched:
        if held.direction in own:
            first.setdefault(held.source, held)
            poles[held.source] = poles.get(held.source, 0) + 1
        elif held.direction in chance:
            by_chance[held.source] = by_chance.get(held.source, 0) + 1
    enriched = {(held.direction, held.pole) for held in view.enriched}
    return SourceList(
        rows=tuple(
            SourceRow(
                item=own[held.direction],
                pole=own[held.direction].poles[held.pole],
                held=held,
                share=held.n / held.tail,
                corpus_share=held.documents / held.all_documents,
                fold=fold(held),
                poles=poles[name],
                controls=by_chance.get(name, 0),
            )
            for name, held in list(first.items())[:LISTED]
        ),
        sources=len(first),
        poles=sum(direction in own for direction, _ in enriched),
        chance=sum(direction in chance for direction, _ in enriched) / (len(chance) * len(POLES))
        if chance
        else None,
    )


def shift_list(run: RunView) -> ShiftList:
    """The directions whose tokens go beyond what the base reached most often."""
    found = [row for item in run.own if (row := _shift(item))]
    found.sort(key=lambda row: (-row.shift.outside, -abs(row.mean), row.item.row.index))
    chance = [row.shift.outside for item in run.chance if (row := _shift(item))]
    return ShiftList(tuple(found[:LISTED]), len(found), max(chance, default=None))


def _shift(item: DirectionView) -> ShiftRow | None:
    """The content role with the greatest share outside; None without one of MIN_TOKENS tokens."""
    base: Mapping[str, Range] = {extent.role: extent for extent in item.base_ranges}
    shifts: Sequence[Shift] = [
        shift
        for shift in item.shifts
        if shift.role in CONTENT_ROLES
        and shift.n >= MIN_TOKENS
        and shift.role in base
        and base[shift.role].std > 0
    ]
    if not shifts:
        return None
    shift = max(shifts, key=lambda one: (one.outside, abs(one.mean) / base[one.role].std))
    extent = base[shift.role]
    return ShiftRow(item, shift, extent, shift.mean / extent.std, shift.std / extent.std)
