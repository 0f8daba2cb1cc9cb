"""Which pages list all labels for reading without script? One, or one for each so many labels.

A page is cut by what it will weigh, as labels differ in length, and in how much of them has to be
escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builder.pages import links
from builder.pages.spans import brief, visible
from builder.pages.views import DirectionView, RunView

#: Bytes of rows that one page may hold.
LARGEST = 1_200_000
#: What a row of the list takes beside its labels, about.
_ROW = 600


@dataclass(frozen=True, slots=True)
class LabelList:
    """Directions of one model that have a label at one of their poles, in scan order."""

    run: RunView
    items: tuple[DirectionView, ...]
    page: str


def label_pages(runs: Sequence[RunView]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, template, values) of the list of all labels: ``directions.html`` and its parts.

    Where all fit into LARGEST there are no parts.
    """
    held = {run.name: [i for i in run.own if any(p.text for p in i.poles.values())] for run in runs}
    if sum(_weight(item) for items in held.values() for item in items) <= LARGEST:
        lists = [LabelList(run, tuple(held[run.name]), "") for run in runs]
        yield "directions.html", "directions.html", {"lists": lists, "parts": []}
        return
    parts = [
        (
            run,
            [
                LabelList(run, tuple(items), links.labels_page(run.name, number))
                for number, items in enumerate(_cut(held[run.name]), 1)
            ],
        )
        for run in runs
    ]
    yield "directions.html", "directions.html", {"lists": [], "parts": parts}
    for _, own in parts:
        for at, listed in enumerate(own):
            yield (
                listed.page,
                "labels.html",
                {
                    "listed": listed,
                    "number": at + 1,
                    "of": len(own),
                    "before": own[at - 1] if at else None,
                    "after": own[at + 1] if at + 1 < len(own) else None,
                },
            )


def _cut(items: Sequence[DirectionView]) -> Iterator[list[DirectionView]]:
    """The items in turn, as many at a time as a page may hold; at least one."""
    part: list[DirectionView] = []
    weight = 0
    for item in items:
        own = _weight(item)
        if part and weight + own > LARGEST:
            yield part
            part, weight = [], 0
        part.append(item)
        weight += own
    if part:
        yield part


def _weight(item: DirectionView) -> int:
    texts = (pole.text or "" for pole in item.poles.values())
    return _ROW + sum(len(visible(brief(text)).encode("utf-8")) for text in texts)
