"""Where in the weights is it? The layer x writer x rank map of a run's directions.

A cell holds one number and one colour for each measure; the page's style sheet shows those of the
measure that is chosen. A run may have thousands of directions, so cells are built as strings, say
each thing once and leave out what is not known. End tags that HTML lets go are left out, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from builder.pages.formats import fixed, short
from builder.pages.label_view import PoleView, ScoreView
from builder.pages.levels import Even, Levels, thumbnail
from builder.pages.overview import Overview, fold
from builder.pages.spans import brief, plain
from builder.pages.triggers import best_of
from builder.pages.views import DirectionView, RunView
from builder.records import POLES

#: Characters of a label in a cell's tooltip; its direction's page has it whole.
LONGEST_IN_TOOLTIP = 32
#: Trigger-likeness has the same colours in every model, so that a model without any stays pale.
LIKENESS = Levels(0.1, 3.0)
_SIGNS = {"max": "▲", "min": "▼"}


@dataclass(frozen=True, slots=True)
class Measure:
    """One of the map's measures: by what it is chosen, called and explained.

    ``letter`` names the attribute of cells that holds the number, ``starts`` are the least values
    of its seven colours.
    """

    key: str
    letter: str
    name: str
    what: str
    starts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MapView:
    """The map, what it can be coloured by, and the same in small."""

    table: Markup
    measures: tuple[Measure, ...]
    thumbnail: Markup


@dataclass(frozen=True, slots=True)
class _Values:
    """One measure's number, its text and its step of colour in every cell that has one."""

    letter: str
    key: str
    name: str
    what: str
    levels: Levels
    values: Mapping[str, float]
    written: Callable[[float], str]
    #: Directions that have a number but no colour.
    pale: frozenset[str] = frozenset()

    def cell(self, direction: str) -> tuple[str, str]:
        """The class and the attribute of a cell; empty where there is no number."""
        value = self.values.get(direction)
        if value is None:
            return "", ""
        step = 0 if direction in self.pale else self.levels.step(value)
        colour = f"{self.letter}{step}" if step else ""
        return colour, f" data-{self.letter}={self.written(value)}"


def map_view(run: RunView, view: Overview) -> MapView:
    """The map of a run's directions, controls in columns of their own."""
    measured = [one for one in _measures(run, view) if one.values]
    return MapView(
        _table(run, measured),
        tuple(
            Measure(
                one.key,
                one.letter,
                one.name,
                one.what,
                tuple(map(one.written, one.levels.starts())),
            )
            for one in measured
        ),
        small_map(run, view),
    )


def _measures(run: RunView, view: Overview) -> list[_Values]:
    changes = [item for item in run.directions if item.control != "base"]
    sigmas = {i.row.id: i.row.sigma for i in changes if i.row.sigma is not None}
    energies = {i.row.id: i.row.energy for i in changes if i.row.energy is not None}
    scores = {i.row.id: best for i in run.directions if (best := best_score(i))}
    folds: dict[str, float] = {}
    for item in run.directions:
        held = [view.leading[item.row.id, p] for p in POLES if (item.row.id, p) in view.leading]
        if held:
            folds[item.row.id] = fold(min(held, key=lambda one: one.p_value))
    likeness = {
        i.row.id: value
        for i in run.directions
        if (value := best_of(view.triggers, i.row.id)) is not None
    }
    f1 = {name: score.score.f1 for name, score in scores.items() if score.score.f1 is not None}
    return [
        _Values("s", "sigma", "singular value", "size of the weight change along the direction",
                Levels.of(list(sigmas.values())), sigmas, lambda v: short(v, 2)),
        _Values("e", "energy", "energy, %", "its share of the whole change of its matrix",
                Levels.of(list(energies.values())), energies,
                lambda v: short(100 * v, 2)),
        _Values("f", "score", "F1 of the label",
                "the better of its two labels’ scores, whose interval the tooltip gives; none "
                "better than chance, no colour",
                Even(), f1, lambda v: fixed(v, 2),
                frozenset(name for name, score in scores.items() if score.doubt)),
        _Values("q", "source", "source, times",
                "how many times its share of the corpus a source has of the more telling tail, "
                "where that is more than chance",
                Levels.of(list(folds.values())), folds, lambda v: short(v, 2)),
        _Values("t", "trigger", "trigger-likeness",
                "how far examples lie beyond what a normal distribution would give, in standard "
                "deviations, times the share of them that agree on a token or a source",
                LIKENESS, likeness,
                lambda v: fixed(v, 2)),
    ]  # fmt: skip


def best_score(item: DirectionView) -> ScoreView | None:
    """The best score of a direction's labels; one that says more than chance goes first."""
    found = [pole.score for pole in item.poles.values() if pole.score]
    return max(found, key=lambda view: (not view.doubt, view.score.f1 or 0.0), default=None)


def _table(run: RunView, measured: Sequence[_Values]) -> Markup:
    groups = _groups(run)
    places = {
        (item.row.hookpoint.layer, item.row.hookpoint.writer, item.row.rank): item
        for item in run.directions
    }
    head = "".join(
        f"<th scope=colgroup colspan={len(ranks)} class=g><span>{name}</span>"
        for name, _, ranks in groups
    )
    ranks = "".join(
        f'<th scope=col{" class=g" if at == 0 else ""}><abbr title="rank {rank}">u{rank:02d}</abbr>'
        for _, _, own in groups
        for at, rank in enumerate(own)
    )
    body = []
    for layer in sorted({key[0] for key in places}):
        cells = "".join(
            _cell(places.get((layer, writer, rank)), measured, first=at == 0)
            for _, writer, own in groups
            for at, rank in enumerate(own)
        )
        body.append(f"<tr><th scope=row>L{layer:02d}{cells}")
    # Of what stands in here only names come from outside, and those went through escape().
    return Markup(  # noqa: S704
        '<table class="map" data-cells><caption>One row a layer, one column a rank of a matrix; '
        "each cell opens a direction.</caption>"
        f"<thead><tr><td>{head}<tr><th scope=col>layer{ranks}"
        f"<tbody>{''.join(body)}</table>"
    )


def _cell(item: DirectionView | None, measured: Sequence[_Values], *, first: bool) -> str:
    edge = "g" if first else ""
    if item is None:
        return f'<td class="none {edge}">' if first else "<td class=none>"
    name = item.row.id
    found = [one.cell(name) for one in measured]
    colours = " ".join(filter(None, (*(colour for colour, _ in found), edge)))
    numbers = "".join(number for _, number in found)
    said = "\n".join(filter(None, (_said(pole) for pole in item.poles.values())))
    title = f' title="{escape(said)}"' if said else ""
    return (
        f'<td class="{colours}"><a href={item.link}{numbers}{title}>'
        f"<b>{escape(plain(name))}</b></a>"
    )


def _said(pole: PoleView) -> str:
    """A label in a tooltip, with its F1 and the interval of that; empty where there is none."""
    if not pole.text:
        return ""
    text = f"{_SIGNS[pole.pole]} {plain(brief(pole.text, LONGEST_IN_TOOLTIP))}"
    score = pole.score.score if pole.score else None
    if score is None or score.f1 is None:
        return text
    if score.f1_interval is None:
        return f"{text}, F1 {fixed(score.f1, 2)}"
    low, high = score.f1_interval
    return f"{text}, F1 {fixed(score.f1, 2)} ({fixed(low, 2)}–{fixed(high, 2)})"


def _groups(run: RunView) -> list[tuple[Markup, str, list[int]]]:
    """(heading, writer, ranks) of the map's columns, in scan order, the controls last."""
    found: dict[tuple[bool, str], set[int]] = {}
    for item in run.directions:
        key = (item.is_control, item.row.hookpoint.writer)
        found.setdefault(key, set()).add(item.row.rank)
    return [
        (
            escape(plain(writer)) + (Markup("<br>control") if control else ""),
            writer,
            sorted(ranks),
        )
        for (control, writer), ranks in sorted(found.items(), key=lambda pair: pair[0][0])
    ]


def small_map(run: RunView, view: Overview) -> Markup:
    """The map in small, coloured by how trigger-like directions are."""
    values = {item.row.id: best_of(view.triggers, item.row.id) for item in run.own}
    places = {
        (item.row.hookpoint.layer, item.row.hookpoint.writer, item.row.rank): item
        for item in run.own
    }
    columns: list[tuple[str, int] | None] = []
    for _, writer, ranks in _groups(run):
        if any(key[1] == writer for key in places):
            columns += ([None] if columns else []) + [(writer, rank) for rank in ranks]
    rows = []
    for layer in sorted({key[0] for key in places}):
        found = [column and places.get((layer, *column)) for column in columns]
        rows.append([LIKENESS.step(values[item.row.id]) if item else None for item in found])
    return thumbnail(rows, "The map of directions in small, by how trigger-like they are")
