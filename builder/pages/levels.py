"""How do values become steps of colour? Seven steps over a range, and maps drawn in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Levels:
    """Seven steps of colour over positive values, evenly spaced in their logarithm."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Levels:
        """Levels from the least to the greatest positive value, at most a factor 1000 apart."""
        positive = [value for value in values if value > 0 and math.isfinite(value)]
        if not positive:
            return cls(1.0, 1.0)
        return cls(max(min(positive), max(positive) / 1000), max(positive))

    def step(self, value: float | None) -> int:
        """1 to 7; 0 for no value or none above zero."""
        if value is None or not math.isfinite(value) or value <= 0:
            return 0
        if self.high <= self.low:
            return 4
        scaled = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return min(7, 1 + int(scaled * 7))

    def starts(self) -> list[float]:
        """The least value of each step."""
        return [self.low * (self.high / self.low) ** (step / 7) for step in range(7)]


class Even(Levels):
    """Seven even steps from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)

    def step(self, value: float | None) -> int:
        """1 to 7; 0 for no value."""
        return 0 if value is None else min(7, 1 + int(value * 7))

    def starts(self) -> list[float]:
        """The least value of each step."""
        return [step / 7 for step in range(7)]


def thumbnail(rows: Sequence[Sequence[int | None]], label: str) -> Markup:
    """A small map without numbers: a row a layer, a step from 0 to 7 a cell, None for a gap."""
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        return Markup("")
    tall = max(1.0, 2.6 * columns / 12 / max(1, len(rows)) * 2)
    shapes: dict[int, str] = {}
    for y, row in enumerate(rows):
        for x, step in enumerate(row):
            if step is not None:
                cell = f"M{x}.06 {y * tall + 0.1:.1f}h.88v{tall - 0.2:.1f}h-.88z"
                shapes[step] = shapes.get(step, "") + cell
    paths = "".join(f'<path class=l{step} d="{path}"/>' for step, path in sorted(shapes.items()))
    return (
        Markup(f'<svg class="plot thumb" viewBox="0 0 {columns} {len(rows) * tall:.1f}" ')
        + Markup('preserveAspectRatio=none role=img aria-label="{}">').format(label)
        + Markup(f"{paths}</svg>")
    )
