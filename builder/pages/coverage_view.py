"""What text went through the model, and what was left out of it? Tables of counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from builder.pages import charts
from builder.pages.formats import share
from builder.pages.views import RunView
from builder.records import ROLES


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """One line of a coverage table; ``part`` is its share of the table's total."""

    name: str
    values: tuple[int | None, ...]
    part: float
    bar: Markup
    by_layer: tuple[tuple[int, int], ...] = ()


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
