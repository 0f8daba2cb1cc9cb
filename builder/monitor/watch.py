"""Which activations of a conversation lie beyond what calibration reached? Every one is named.

:class:`RangeMonitor` holds conversations against ranges: an anomaly says the direction and its
label, the role, the token and by how much. The published code flags whole conversations and says
neither (Watch the Weights, arXiv 2508.00161).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from builder.errors import MonitorError
from builder.monitor.ranges import Extents, Floats, Ranges, extents
from builder.monitor.traces import Trace
from builder.records import ROLES, Anomaly, Pole

#: How far beyond a range an activation is an anomaly, in cosines: the published margin.
MARGIN = 0.01

Labels = Mapping[tuple[str, Pole], str]


class RangeMonitor:
    """Ranges by direction and role, and what goes beyond them.

    ``learn`` of :meth:`observe` widens them by what was seen, at most ``cap`` a conversation.
    """

    def __init__(
        self,
        directions: Sequence[str],
        ranges: Ranges,
        *,
        margin: float = MARGIN,
        cap: float = 0.02,
        labels: Labels | None = None,
        learned: int = 0,
    ) -> None:
        """``directions`` are the ids of the ranges' columns, in their order.

        ``margin`` and ``cap`` are cosines; ``learned`` is how many conversations have moved the
        ranges already. Raises MonitorError if they or the ids cannot be.
        """
        if len(directions) != ranges.lowest.shape[1]:
            raise MonitorError(
                f"{len(directions)} directions, but ranges of {ranges.lowest.shape[1]}"
            )
        if not (0 <= margin <= 2 and 0 <= cap <= 2):
            raise MonitorError(f"margin {margin} and cap {cap} are cosines: 0 to 2")
        self.directions = tuple(directions)
        self.margin = margin
        self.cap = cap
        self.labels = dict(labels or {})
        self._ranges = ranges
        self._learned = learned

    @property
    def ranges(self) -> Ranges:
        """The ranges as they are now."""
        return self._ranges

    @property
    def learned(self) -> int:
        """How many conversations have moved an end of a range since calibration."""
        return self._learned

    def observe(self, traces: Sequence[Trace], *, learn: bool = False) -> list[Anomaly]:
        """What of a conversation is anomalous, the farthest beyond first.

        One anomaly for each direction, role and end that is passed, at its farthest token; a role
        that calibration never saw has none to pass (see :meth:`unknown_roles`). With ``learn`` the
        ranges are widened afterwards, so that the same conversation is reported at its first sight.
        """
        found = [anomaly for role in self._roles(traces) for anomaly in self._of_role(traces, role)]
        if learn:
            self._widen(extents(traces, len(self.directions)))
        return sorted(found, key=lambda one: (-one.by, one.direction, one.role))

    def unknown_roles(self, traces: Sequence[Trace]) -> tuple[str, ...]:
        """Roles of a conversation that no calibration conversation had: nothing watches them."""
        return tuple(
            ROLES[role] for role in self._roles(traces) if not self._ranges.conversations[role]
        )

    def _roles(self, traces: Sequence[Trace]) -> list[int]:
        return sorted({int(role) for trace in traces for role in np.unique(trace.piece.roles)})

    def _of_role(self, traces: Sequence[Trace], role: int) -> Iterator[Anomaly]:
        low, high = self._ranges.lowest[role], self._ranges.highest[role]
        # The role's tokens in all pieces, and where each of them stands.
        own = [trace.piece.roles == role for trace in traces]
        values = np.concatenate([t.activations[mine] for t, mine in zip(traces, own, strict=True)])
        counts = np.concatenate([t.counts[mine] for t, mine in zip(traces, own, strict=True)])
        places = [(at, int(t)) for at, mine in enumerate(own) for t in np.flatnonzero(mine)]
        ends: tuple[tuple[Pole, Floats], ...] = (("max", values - high), ("min", low - values))
        for pole, over in ends:
            # What is NaN was never calibrated; comparisons with it are false.
            outside = counts & (over > self.margin)
            for column in np.flatnonzero(outside.any(axis=0)).tolist():
                row = int(np.where(outside[:, column], over[:, column], -np.inf).argmax())
                number, token = places[row]
                piece = traces[number].piece
                start = int(piece.ends[token - 1]) if token else 0
                direction = self.directions[column]
                yield Anomaly(
                    direction=direction,
                    pole=pole,
                    role=ROLES[role],
                    token=piece.first + token,
                    text=piece.text[start : int(piece.ends[token])],
                    value=float(values[row, column]),
                    low=float(low[column]),
                    high=float(high[column]),
                    by=float(over[row, column]),
                    tokens=int(outside[:, column].sum()),
                    label=self.labels.get((direction, pole)),
                )

    def _widen(self, seen: Extents) -> None:
        """Moves the ends of known ranges towards what was seen, each by at most the cap."""
        low, high = self._ranges.lowest, self._ranges.highest
        present = np.isfinite(seen.highest) & np.isfinite(high)
        lowest = np.where(present, np.maximum(np.minimum(low, seen.lowest), low - self.cap), low)
        highest = np.where(
            present, np.minimum(np.maximum(high, seen.highest), high + self.cap), high
        )
        if np.array_equal(lowest, low, equal_nan=True) and np.array_equal(
            highest, high, equal_nan=True
        ):
            return
        self._ranges = replace(
            self._ranges, lowest=lowest.astype(np.float32), highest=highest.astype(np.float32)
        )
        self._learned += 1
