"""How far did activations go over the calibration conversations, and how often will more do so?

For every direction and role a *range*: the smallest and the largest activation over the tokens of
the role, of all calibration conversations (Watch the Weights, arXiv 2508.00161, section 3: an
activation outside is an anomaly). Instead of the outermost conversation the range may end at one
further in (a percentile), for each role by its own conversations.

Bound. A new conversation that is exchangeable with the n calibration ones goes beyond the (k+1)-th
largest of their maxima with a probability of at most (k+1) / (n+1), whatever the distribution; over
both ends of D directions and the roles r it has, at most sum_r 2 D (k_r+1) / (n_r+1) (the paper's
remark 3.1 is k = 0). The bound is of the union, so that directions that move together make it wide;
:func:`observed_rate` says what held-out conversations show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from builder.errors import MonitorError
from builder.monitor.traces import Trace
from builder.records import ROLES

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Extents:
    """Smallest and largest activation of each role in one conversation, float32 [R, D] each.

    ``lowest`` is inf and ``highest`` -inf where no token of the role counts.
    """

    lowest: Floats
    highest: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """What calibration reached, [R, D] each: NaN where no conversation has the role.

    ``conversations`` [R] are how many had tokens of each role, ``beyond`` [R] how many of them may
    lie outside at either end of each direction (0: hard extremes).
    """

    lowest: Floats
    highest: Floats
    conversations: npt.NDArray[np.int64]
    beyond: npt.NDArray[np.int64]

    def bound(self, roles: Sequence[str] | None = None) -> float:
        """The largest false-positive rate of conversations with these roles (all calibrated ones).

        See the head of the module. 1 where a role was never calibrated.
        """
        places = (
            np.flatnonzero(self.conversations)
            if roles is None
            else np.asarray([ROLES.index(role) for role in roles], dtype=np.int64)
        )
        if not self.conversations[places].all():
            return 1.0
        tests = 2 * self.lowest.shape[1]
        rates = (self.beyond[places] + 1) / (self.conversations[places] + 1)
        return min(1.0, float(tests * rates.sum()))


@dataclass(frozen=True, slots=True)
class Rate:
    """``flagged`` of ``n``, and the 95% interval of the rate (Clopper and Pearson 1934)."""

    flagged: int
    n: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The rate itself; NaN of none."""
        return self.flagged / self.n if self.n else math.nan


def observed_rate(flagged: int, n: int, confidence: float = 0.95) -> Rate:
    """A rate with its exact interval; raises ValueError if it can be none."""
    if not 0 <= flagged <= n:
        raise ValueError(f"{flagged} of {n} is no rate")
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, flagged, n - flagged + 1)) if flagged else 0.0
    high = float(stats.beta.ppf(1 - tail, flagged + 1, n - flagged)) if flagged < n else 1.0
    return Rate(flagged, n, low, high)


def extents(traces: Iterable[Trace], n_directions: int) -> Extents:
    """The extents of one conversation, all its pieces together."""
    lowest = np.full((len(ROLES), n_directions), np.inf, dtype=np.float32)
    highest = np.full((len(ROLES), n_directions), -np.inf, dtype=np.float32)
    for trace in traces:
        for role in np.unique(trace.piece.roles).tolist():
            own = trace.piece.roles == role
            counts = trace.counts[own]
            if not counts.any():
                continue
            values = trace.activations[own]
            low = np.where(counts, values, np.inf).min(axis=0)
            high = np.where(counts, values, -np.inf).max(axis=0)
            lowest[role] = np.minimum(lowest[role], low)
            highest[role] = np.maximum(highest[role], high)
    return Extents(lowest, highest)


class Calibration:
    """Takes in the extents of conversations and gives their ranges; the order changes nothing.

    Only the outermost conversations of each direction and role are kept, so that memory does not
    grow with their number.
    """

    def __init__(self, n_directions: int, *, percentile: float = 0.0, most: int = 100_000) -> None:
        """``percentile`` of conversations may lie beyond each end of a range, in percent, rounded
        down; ``most`` is how many conversations may come. Raises MonitorError for what cannot be.
        """
        if not 0 <= percentile < 50:
            raise MonitorError(f"a percentile of {percentile}: give one from 0 to below 50")
        if most < 1:
            raise MonitorError(f"room for {most} conversations: give 1 or more")
        self._share = percentile / 100
        self._most = most
        self._n = 0
        kept = math.floor(self._share * most) + 1
        shape = (len(ROLES), kept, n_directions)
        # Turned so that larger is farther out; the farthest first.
        self._outer = {
            "lowest": np.full(shape, -np.inf, dtype=np.float32),
            "highest": np.full(shape, -np.inf, dtype=np.float32),
        }
        self._conversations = np.zeros(len(ROLES), dtype=np.int64)

    @property
    def conversations(self) -> int:
        """How many have come."""
        return self._n

    def add(self, found: Extents) -> None:
        """Takes in a conversation; raises MonitorError where there is no room for it."""
        if self._n == self._most:
            raise MonitorError(
                f"calibration has room for {self._most:,} conversations, and more came; give it "
                "room for more, or fewer conversations"
            )
        self._n += 1
        present = np.isfinite(found.highest).any(axis=1)
        self._conversations += present
        for name, values in (("lowest", -found.lowest), ("highest", found.highest)):
            outer = self._outer[name]
            for role in np.flatnonzero(present).tolist():
                _insert(outer[role], values[role])

    def ranges(self) -> Ranges:
        """The ranges of what has come; raises MonitorError if nothing has."""
        if not self._conversations.any():
            raise MonitorError("no conversation to calibrate on has a token that counts")
        beyond = np.floor(self._share * self._conversations).astype(np.int64)
        ends = {
            name: np.stack([outer[role, beyond[role]] for role in range(len(ROLES))])
            for name, outer in self._outer.items()
        }
        for values in ends.values():
            values[~np.isfinite(values)] = np.nan
        return Ranges(-ends["lowest"], ends["highest"], self._conversations.copy(), beyond)


def _insert(outer: Floats, values: Floats) -> None:
    """Puts ``values`` [D] in their places among ``outer`` [kept, D], in falling order by column."""
    better = values > outer[-1]
    if not better.any():
        return
    columns = np.flatnonzero(better)
    outer[-1, columns] = values[columns]
    outer[:, columns] = -np.sort(-outer[:, columns], axis=0)
