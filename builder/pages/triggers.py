"""How much does a pole look like a trigger? Far beyond the bulk of tokens, and all on one thing.

A trigger is rare text that drives a direction where nothing else does. So its examples lie far
beyond the bulk of tokens, farther than the same number of tokens would by chance, and they agree:
they peak on one token, or come from one source that is a small part of the corpus. How far is
taken of the typical example and not of the first, since one odd text makes no trigger; chance is a
normal distribution, so that corpora of different sizes compare. Whatever is as rare and as uniform
as a trigger, such as a name, looks like one; only controls say how much of it is chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from builder.pages.peaks import Peaks
from builder.records import POLES, Pole
from builder.store import Bulk


@dataclass(frozen=True, slots=True)
class Trigger:
    """How trigger-like a pole is, and by what.

    ``reach``: how far its typical example lies beyond the bulk of its tokens, in standard
    deviations; ``expected``: how far that of a normal distribution would; ``share``: the greater of
    the share of its examples that peak on one token and the share that one source has of them
    beyond its share of the corpus. ``value`` is (reach - expected) x share, not below zero.
    """

    value: float
    reach: float
    expected: float
    share: float
    #: Whether ``share`` is that of a token, not of a source.
    on_token: bool
    token: str
    token_share: float
    source: str
    #: How many examples say so.
    n: int


Triggers = Mapping[tuple[str, Pole], Trigger]


def trigger_likeness(peaks: Peaks, bulks: Mapping[str, Bulk]) -> Triggers:
    """How trigger-like every pole is, controls' too; without those whose tokens do not vary."""
    found: dict[tuple[str, Pole], Trigger] = {}
    for (direction, pole), held in peaks.items():
        bulk = bulks.get(direction)
        if bulk is None or not bulk.std > 0:
            continue
        stats = held.stats
        edge = bulk.high if pole == "max" else bulk.low
        reach = (held.middle - edge) * (1 if pole == "max" else -1) / bulk.std
        expected = normal_reach(bulk.n, stats.n, bulk.beyond)
        rare = stats.corpus_share
        from_source = 0.0 if rare is None else stats.source_share - rare
        share = max(stats.share, from_source)
        found[direction, pole] = Trigger(
            value=max(0.0, reach - expected) * share,
            reach=reach,
            expected=expected,
            share=share,
            on_token=stats.share >= from_source,
            token=stats.token,
            token_share=stats.share,
            source=stats.source,
            n=stats.n,
        )
    return found


def best_of(triggers: Triggers, direction: str) -> float | None:
    """The greater value of a direction's poles; None without any."""
    values = [found.value for pole in POLES if (found := triggers.get((direction, pole)))]
    return max(values, default=None)


def of_directions(triggers: Triggers, directions: Iterable[str]) -> list[float]:
    """The values of all poles of these directions."""
    keys = [(direction, pole) for direction in directions for pole in POLES]
    return [triggers[key].value for key in keys if key in triggers]


@lru_cache(maxsize=4096)
def normal_reach(n: int, examples: int, beyond: float) -> float:
    """How far the middle one of the ``examples`` largest of ``n`` normal values lies beyond a bulk.

    In standard deviations; the bulk is all but the share ``beyond``.
    """
    normal = NormalDist()
    place = min(0.5, (examples + 1) / 2 / (n + 1))
    return normal.inv_cdf(beyond) - normal.inv_cdf(place)
