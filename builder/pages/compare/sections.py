"""What is shown of two models, and of a line of stages? Values for the sections of a group's page.

Tables show the first of what may be thousands, and say how many there are. A direction of the
directions file that the database does not hold (it was made from other weights) has no page to
lead to; it is left out of tables and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from builder.pages.charts import bar
from builder.pages.compare.chart import nearest_chart
from builder.pages.compare.groups import Group, Line, Match, Pair, Side
from builder.pages.compare.labels import key_of
from builder.pages.compare.stages import Lineage, Step, lineages, steps
from builder.pages.label_view import PoleView
from builder.pages.links import pair_anchor
from builder.pages.nearby import Key
from builder.pages.views import CHANCE, DirectionView, RunView
from builder.records import CONTROLS

#: Rows of a table of matches, of directions in one model only, and of directions followed.
SHOWN, SHOWN_ONLY, SHOWN_LINEAGES = 30, 12, 30


@dataclass(frozen=True, slots=True)
class MatchRow:
    """Two matched directions; ``poles`` pairs the ends that point the same way."""

    one: DirectionView
    two: DirectionView
    cosine: float
    is_same: bool
    poles: tuple[tuple[PoleView, PoleView], ...]

    @property
    def is_turned_round(self) -> bool:
        """Whether the max pole of one is the min pole of the other."""
        return self.cosine < 0

    @property
    def is_elsewhere(self) -> bool:
        """Whether the two are of different layers or writers."""
        return self.one.row.hookpoint.key != self.two.row.hookpoint.key

    @property
    def in_groups(self) -> bool:
        """Whether both may be turned at will within a group of equal singular values."""
        return bool(self.one.row.group and self.two.row.group)


@dataclass(frozen=True, slots=True)
class SideView:
    """One model of a pair: its directions that the other has nothing near, strongest first."""

    run: RunView
    count: int
    share: float
    energy: float
    beside: int
    only: tuple[DirectionView, ...]
    total_only: int
    #: (kind, what it is, how many reach the level, of how many).
    controls: tuple[tuple[str, str, int, int], ...]
    chart: Markup


@dataclass(frozen=True, slots=True)
class PairView:
    """A section on two models; ``unknown`` directions are in no database."""

    anchor: str
    sides: tuple[SideView, SideView]
    level: float
    matches: tuple[MatchRow, ...]
    total: int
    same: int
    turned_round: int
    elsewhere: int
    unknown: int


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step of a line: its counts, and a bar of what became of the directions before it."""

    one: RunView
    two: RunView
    anchor: str
    step: Step
    bar: Markup


@dataclass(frozen=True, slots=True)
class LineageCell:
    """A direction of a lineage; cosine with the one before, None for the first."""

    item: DirectionView
    cosine: float | None
    is_turned_round: bool


@dataclass(frozen=True, slots=True)
class LineView:
    """A section on a line of stages.

    Of ``total`` directions followed, the first; a row has None where a direction is not there.
    """

    line: Line
    runs: tuple[RunView, ...]
    steps: tuple[StepRow, ...]
    rows: tuple[tuple[LineageCell | None, ...], ...]
    total: int
    through: int


def pair_view(pair: Pair, one: RunView, two: RunView) -> PairView:
    """The section on two runs."""
    items = _by_key(one), _by_key(two)
    rows = [row for match in pair.matches if (row := _match_row(match, *items)) is not None]
    known = {*items[0], *items[1]}
    unknown = sum(key not in known for side in (pair.one, pair.two) for key in side.nearest)
    return PairView(
        anchor=pair_anchor(one.name, two.name),
        sides=(_side(pair, pair.one, one, items[0]), _side(pair, pair.two, two, items[1])),
        level=pair.level,
        matches=tuple(rows[:SHOWN]),
        total=len(pair.matches),
        same=sum(match.is_same for match in pair.matches),
        turned_round=sum(match.cosine < 0 for match in pair.matches),
        elsewhere=sum(row.is_elsewhere for row in rows),
        unknown=unknown,
    )


def line_view(group: Group, line: Line, runs: Mapping[Path, RunView]) -> LineView:
    """The section on a line of stages; ``runs`` are those of the group by folder."""
    found = steps(group, line)
    own = tuple(runs[folder] for folder in line.runs)
    items = [_by_key(run) for run in own]
    order = {folder: at for at, folder in enumerate(group.runs)}
    rows = []
    for one, two, step in zip(own, own[1:], found, strict=False):
        names = sorted((one, two), key=lambda run: order[run.folder])
        rows.append(StepRow(one, two, pair_anchor(*(run.name for run in names)), step, _bar(step)))
    followed = lineages(found)
    cells = [row for lineage in followed if (row := _lineage_row(lineage, items)) is not None]
    return LineView(
        line=line,
        runs=own,
        steps=tuple(rows),
        rows=tuple(cells[:SHOWN_LINEAGES]),
        total=len(followed),
        through=sum(len(lineage.keys) == len(own) for lineage in followed),
    )


def _side(pair: Pair, side: Side, run: RunView, items: Mapping[Key, DirectionView]) -> SideView:
    only = pair.only(side)
    counted = pair.control_matches(side)
    chance = [size for kind in CHANCE for size in side.controls.get(kind, ())]
    return SideView(
        run=run,
        count=len(side.nearest),
        share=pair.share(side),
        energy=side.energy,
        beside=pair.beside(side),
        only=tuple(_strongest(items[key] for key in only if key in items)[:SHOWN_ONLY]),
        total_only=len(only),
        controls=tuple(
            (kind, about, *counted[kind]) for kind, about in CONTROLS.items() if kind in counted
        ),
        chart=nearest_chart(list(side.nearest.values()), chance, pair.level),
    )


def _match_row(
    match: Match, ones: Mapping[Key, DirectionView], twos: Mapping[Key, DirectionView]
) -> MatchRow | None:
    one, two = ones.get(match.one), twos.get(match.two)
    if one is None or two is None:
        return None
    poles = tuple(
        (view, two.poles["min" if (pole == "max") == (match.cosine < 0) else "max"])
        for pole, view in one.poles.items()
    )
    return MatchRow(one, two, match.cosine, match.is_same, poles)


def _lineage_row(
    lineage: Lineage, items: Sequence[Mapping[Key, DirectionView]]
) -> tuple[LineageCell | None, ...] | None:
    """A cell for each stage; None if the database lacks one of its directions."""
    row: list[LineageCell | None] = [None] * len(items)
    facts = zip(lineage.keys, (None, *lineage.cosines), lineage.flips, strict=True)
    for at, (key, cosine, flip) in enumerate(facts, lineage.first):
        item = items[at].get(key)
        if item is None:
            return None
        row[at] = LineageCell(item, cosine, flip)
    return tuple(row)


def _bar(step: Step) -> Markup:
    """What became of the directions of a stage, as parts of a bar."""
    count = max(1, len(step.pair.one.nearest))
    parts = (("kept", step.kept), ("turned", step.rotated), ("beside", step.beside))
    told = ", ".join(
        f"{n} {name}"
        for name, n in (
            ("kept", step.kept),
            ("rotated", step.rotated),
            ("near a matched one", step.beside),
            ("vanished", len(step.vanished)),
        )
    )
    return bar([(name, n / count) for name, n in parts], told)


def _by_key(run: RunView) -> dict[Key, DirectionView]:
    return {key_of(item): item for item in run.own}


def _strongest(items: Iterable[DirectionView]) -> list[DirectionView]:
    return sorted(items, key=lambda item: (-(item.row.sigma or 0.0), item.row.index))
