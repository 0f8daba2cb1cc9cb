"""On which tokens do the poles of a run peak, and how often? Counted over all its examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from builder.pages.formats import SEEN_SPACES
from builder.records import Pole
from builder.store import Peak

#: A pole and the peaks of its examples.
PoleRead = tuple[str, Pole, list[Peak]]


@dataclass(frozen=True, slots=True)
class PeakToken:
    """A token that examples of a pole peak on: how many do, and the farthest activation of one."""

    token: str
    n: int
    value: float


@dataclass(frozen=True, slots=True)
class PolePeaks:
    """The tokens that a pole's ``n`` examples peak on, the commonest first."""

    n: int
    tokens: tuple[PeakToken, ...]


#: By direction and pole; a pole without examples is not among them.
Peaking = Mapping[tuple[str, Pole], PolePeaks]


@lru_cache(maxsize=65536)
def folded(token: str) -> str:
    """A token as tokens are compared: without case and surrounding space.

    White space alone is kept, as signs that can be seen.
    """
    return token.strip().casefold() or token.translate(SEEN_SPACES)


def peaking(read: Iterable[PoleRead]) -> dict[tuple[str, Pole], PolePeaks]:
    """What the examples of each pole's default list peak on; those of :meth:`RunStore.peaks`."""
    found = {}
    for direction, pole, peaks in read:
        counts = Counter(folded(peak.token) for peak in peaks)
        # Examples are by place, so the last that is put in here is the farthest.
        values = {folded(peak.token): peak.value for peak in reversed(peaks)}
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        found[direction, pole] = PolePeaks(
            len(peaks), tuple(PeakToken(token, n, values[token]) for token, n in ordered)
        )
    return found
