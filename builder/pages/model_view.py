"""What does a model's page hold? The map of its directions, its lists, and what was covered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from builder.pages import charts
from builder.pages.direction_view import PeakStats
from builder.pages.formats import NONE, fixed, ranged, share, short
from builder.pages.label_view import PoleView
from builder.pages.spans import plain
from builder.pages.views import DirectionView, RunView, Tail
from builder.records import POLES, ROLES, Pole, Score

#: Rows of the lists on a model's page.
LISTED = 24
#: A pole looks like a trigger when at least this share of its examples peak on one token.
CONCENTRATED = 0.5

Peaks = Mapping[tuple[str, Pole], PeakStats | None]


@dataclass(frozen=True, slots=True)
class PoleRow:
    """One pole in a list."""

    item: DirectionView
    pole: PoleView
    tail: Tail
    peak: PeakStats | None


@dataclass(frozen=True, slots=True)
class Legend:
    """What the seven colours of one of the map's measures mean: least value of each step."""

    name: str
    starts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """One line of a coverage table; ``part`` is its share of the table's total."""

    name: str
    values: tuple[int | None, ...]
    part: float
    bar: Markup
    by_layer: tuple[tuple[int, int], ...] = ()


def direction_map(run: RunView) -> Markup:
    """The layer x writer x rank table: one link per direction with singular value, energy, tail.

    Where labels are scored, with the best F1 of its two labels as well. The page's style sheet
    shows one of the numbers and its colour at a time. Built as a
    string: a run may have thousands of directions, and a template's loop costs ten times that.
    """
    levels = _levels(run)
    groups = _groups(run)
    is_scored = _is_scored(run)
    places = {
        (item.row.hookpoint.layer, item.row.hookpoint.writer, item.row.rank): item
        for item in run.directions
    }
    layers = sorted({item.row.hookpoint.layer for item in run.directions})
    head = "".join(
        f'<th scope=colgroup colspan={len(ranks)} class="g">{name}</th>'
        for name, _, ranks in groups
    )
    ranks = "".join(
        f'<th scope=col{" class=g" if at == 0 else ""}><abbr title="rank {rank}">u{rank:02d}</abbr>'
        "</th>"
        for _, _, own in groups
        for at, rank in enumerate(own)
    )
    body = []
    for layer in layers:
        cells = "".join(
            _cell(places.get((layer, writer, rank)), levels, first=at == 0, is_scored=is_scored)
            for _, writer, own in groups
            for at, rank in enumerate(own)
        )
        body.append(f"<tr><th scope=row>L{layer:02d}</th>{cells}</tr>")
    # Of what stands in here only names come from outside, and those went through escape().
    return Markup(  # noqa: S704
        '<table class="map"><caption>One row a layer, one column a rank of a matrix; '
        "each cell opens a direction.</caption>"
        f"<thead><tr><td></td>{head}</tr><tr><th scope=col>layer</th>{ranks}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def thumbnail(run: RunView) -> Markup:
    """The map in small, coloured by tail."""
    level = _levels(run)[2]
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
        rows.append(
            [
                level.step(item.tail.distance if item.tail else None) if item else None
                for item in found
            ]
        )
    return charts.thumbnail(rows, "The map of directions in small, by tail")


def legends(run: RunView) -> tuple[tuple[str, Legend], ...]:
    """The map's measures: short name for the switch, and what their colours mean."""
    sigma, energy, tail = _levels(run)
    scores = Legend("F1 of the label", tuple(fixed(step / 7, 2) for step in range(7)))
    return (
        ("sigma", Legend("singular value", tuple(short(value, 2) for value in sigma.starts()))),
        ("energy", Legend("energy share", tuple(share(value) for value in energy.starts()))),
        ("tail", Legend("tail, in sd", tuple(fixed(value, 1) for value in tail.starts()))),
        *([("score", scores)] if _is_scored(run) else []),
    )


def _is_scored(run: RunView) -> bool:
    return any(pole.score for item in run.directions for pole in item.poles.values())


def _best_score(item: DirectionView) -> tuple[Score | None, int]:
    """The best score of a direction's labels, and its step of colour: 0 if no better than chance.

    A label that says more than chance goes before one that does not.
    """
    found = [
        (not pole.doubt, pole.score.score.f1, pole.score.score)
        for pole in item.poles.values()
        if pole.score and pole.score.score.f1 is not None
    ]
    if not found:
        return None, 0
    beyond, f1, score = max(found, key=lambda item: item[:2])
    return score, min(7, 1 + int(f1 * 7)) if beyond else 0


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


def _levels(run: RunView) -> tuple[charts.Levels, charts.Levels, charts.Levels]:
    return (
        charts.Levels.of([_of_change(item, item.row.sigma) or 0.0 for item in run.directions]),
        charts.Levels.of([_of_change(item, item.row.energy) or 0.0 for item in run.directions]),
        charts.Levels.of([item.tail.distance for item in run.directions if item.tail]),
    )


def _of_change(item: DirectionView, value: float | None) -> float | None:
    """A size of weight change; None for a base control, whose sizes are those of the weights."""
    return None if item.control == "base" else value


def _cell(
    item: DirectionView | None, levels: tuple[charts.Levels, ...], *, first: bool, is_scored: bool
) -> str:
    edge = " g" if first else ""
    if item is None:
        return f'<td class="none{edge}"></td>'
    row, tail = item.row, item.tail.distance if item.tail else None
    sigma, energy = _of_change(item, row.sigma), _of_change(item, row.energy)
    steps = [level.step(value) for level, value in zip(levels, (sigma, energy, tail), strict=True)]
    texts = (short(sigma, 2), _percent(energy), fixed(tail, 1))
    said = " / ".join(f"{pole}: {_said(view)}" for pole, view in item.poles.items())
    name = f"{row.id}, singular value {texts[0]}, energy {texts[1]} percent, tail {texts[2]}"
    scored, last = "", ""
    if is_scored:
        score, step = _best_score(item)
        best = ranged(score.f1, score.f1_interval) if score else NONE
        name += f", best F1 {best}"
        scored, last = f" f{step}", f"<span>{fixed(score.f1 if score else None, 2)}</span>"
    return (
        f'<td class="s{steps[0]} e{steps[1]} t{steps[2]}{scored}{edge}">'
        f'<a href="{item.name}.html" aria-label="{escape(plain(name))}" '
        f'title="{escape(plain(row.id))} &#10;{escape(plain(said))}">'
        f"<span>{texts[0]}</span><span>{texts[1]}</span><span>{texts[2]}</span>{last}</a></td>"
    )


def _said(pole: PoleView) -> str:
    """What stands for a pole, with the F1 of a scored label and its interval."""
    score = pole.score.score if pole.score else None
    return f"{pole.said}, F1 {ranged(score.f1, score.f1_interval)}" if score else pole.said


def _percent(value: float | None) -> str:
    return short(None if value is None else 100 * value, 2)


def strongest(run: RunView) -> tuple[DirectionView, ...]:
    """The directions with the largest singular values."""
    ordered = sorted(run.own, key=lambda item: (-(item.row.sigma or 0.0), item.row.index))
    return tuple(ordered[:LISTED])


def trigger_like(run: RunView, peaks: Peaks) -> tuple[PoleRow, ...]:
    """Poles whose examples peak on one token far beyond the mean: distance x share, descending."""
    rows = [row for row in _pole_rows(run, peaks) if row.peak and row.peak.share >= CONCENTRATED]
    rows.sort(key=lambda row: -row.tail.distance * (row.peak.share if row.peak else 0.0))
    return tuple(rows[:LISTED])


def findings(run: RunView, n: int) -> tuple[DirectionView, ...]:
    """The directions with the largest singular values that have a label, each label once.

    A label that scores no better than chance is no finding.
    """
    ordered = sorted(run.own, key=lambda item: (-(item.row.sigma or 0.0), item.row.index))
    found: list[DirectionView] = []
    seen: set[str] = set()
    for item in ordered:
        labels = {
            pole.text.casefold() for pole in item.poles.values() if pole.text and not pole.doubt
        }
        if labels - seen and len(found) < n:
            found.append(item)
        seen |= labels
    return tuple(found)


def _pole_rows(run: RunView, peaks: Peaks) -> list[PoleRow]:
    return [
        PoleRow(item, item.poles[pole], tail, peaks.get((item.row.id, pole)))
        for item in run.own
        for pole in POLES
        if (tail := item.tail_at(pole)) is not None
    ]


def coverage(run: RunView, what: Sequence[str]) -> tuple[CoverageRow, ...]:
    """Counts by name, one column for each of ``what``; the last one gives the shares."""
    order: dict[str, None] = {}
    found: dict[tuple[str, str], int] = {}
    for count in run.counts:
        if count.what in what:
            order.setdefault(count.name)
            key = (count.what, count.name)
            found[key] = found.get(key, 0) + count.n
    total = sum(n for (kind, _), n in found.items() if kind == what[-1])
    rows = []
    for name in order:
        part = found.get((what[-1], name), 0) / total if total else 0.0
        values = tuple(found.get((kind, name)) for kind in what)
        rows.append(CoverageRow(name, values, part, charts.bar([("fill", part)], share(part))))
    if what[-1] == "roles":
        rows.sort(key=lambda item: ROLES.index(item.name) if item.name in ROLES else len(ROLES))
    else:
        rows.sort(key=lambda item: (-(item.values[-1] or 0), item.name))
    return tuple(rows)


def exclusions(run: RunView) -> tuple[CoverageRow, ...]:
    """Positions left out by reason; where layers differ, the sum over layers and each layer's."""
    reasons: dict[str, list[tuple[int, int]]] = {}
    totals: dict[str, int] = {}
    for count in run.counts:
        if count.what == "excluded":
            totals[count.name] = totals.get(count.name, 0) + count.n
            layers = reasons.setdefault(count.name, [])
            if count.layer is not None:
                layers.append((count.layer, count.n))
    return tuple(
        CoverageRow(name, (totals[name],), 0.0, Markup(""), tuple(sorted(layers)))
        for name, layers in reasons.items()
    )


def sources(run: RunView) -> tuple[Mapping[str, Any], ...]:
    """What the run says about its corpus' sources: name, licence, where."""
    listed = run.corpus.get("sources")
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return ()
    return tuple(item for item in listed if isinstance(item, Mapping))
