"""Was the corpus large enough? How the extremes of all directions grew with it.

A behaviour whose text is not in the corpus cannot show. If extremes still rise with every doubling
of the corpus, more text would find more; if they do not, the absence of a behaviour of the kinds
that the corpus holds means something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from markupsafe import Markup

from builder.pages import charts
from builder.pages.corpus_view import RISING
from builder.pages.overview import Overview
from builder.pages.views import RunView
from builder.store import Saturation


@dataclass(frozen=True, slots=True)
class SaturationView:
    """All poles of the directions from the weights together.

    ``gain`` are the quartiles, in standard deviations of content tokens, of what the last doublings
    of the corpus added to a pole's extreme, of ``known`` poles, of which ``rising`` still rise.
    ``rising_by_chance`` is the share of poles of random and shuffled controls that do.
    """

    poles: int
    known: int
    rising: int
    gain: tuple[float, float, float] | None
    rising_by_chance: float | None
    #: What a doubling adds to the greatest of as many normal values, also in standard deviations.
    normal: float | None
    chart: Markup


def saturation_view(run: RunView, view: Overview) -> SaturationView:
    """How far the extremes of a run's directions still rise."""
    own = {item.row.id for item in run.own}
    chance = {item.row.id for item in run.chance}
    held = [one for one in view.saturations if one.direction in own]
    gains = _gains(held)
    by_chance = _gains(one for one in view.saturations if one.direction in chance)
    quartiles = np.percentile(gains, (25, 50, 75)).tolist() if gains else None
    return SaturationView(
        poles=len(held),
        known=len(gains),
        rising=sum(gain > RISING for gain in gains),
        gain=(quartiles[0], quartiles[1], quartiles[2]) if quartiles else None,
        rising_by_chance=sum(gain > RISING for gain in by_chance) / len(by_chance)
        if by_chance
        else None,
        normal=_normal_gain(max(bulk.n for bulk in view.bulks.values())) if view.bulks else None,
        chart=_chart(held, view),
    )


def _normal_gain(n: int) -> float:
    """How far the greatest of ``n`` normal values exceeds that of half as many, in the median."""

    def middle(count: float) -> float:
        return NormalDist().inv_cdf(0.5 ** (1 / max(1.0, count)))

    return middle(n) - middle(n / 2)


def _gains(held: Iterable[Saturation]) -> list[float]:
    return [one.gain for one in held if one.gain is not None]


def _chart(held: list[Saturation], view: Overview) -> Markup:
    """Quartiles of extremes, in standard deviations from the mean, over shares of the corpus.

    Of the poles that have a value at the same shares; nearly all have.
    """
    shares = Counter(one.documents for one in held).most_common(1)
    if not shares or len(shares[0][0]) < 2:
        return Markup("")
    documents = shares[0][0]
    rows = [
        [abs(value - bulk.mean) / bulk.std for value in one.extremes]
        for one in held
        if one.documents == documents and (bulk := view.bulks.get(one.direction)) and bulk.std > 0
    ]
    if not rows:
        return Markup("")
    low, middle, high = np.percentile(np.asarray(rows), (25, 50, 75), axis=0).tolist()
    return charts.band(documents, low, middle, high, len(rows))
