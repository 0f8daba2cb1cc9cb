"""What do the examples of every pole have in common? For lists over a whole run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from builder.pages.direction_view import PeakStats, common
from builder.pages.peaks_view import PoleRead
from builder.records import Pole


@dataclass(frozen=True, slots=True)
class PolePeaks:
    """What a pole's examples share, and the activation that half of them go beyond."""

    stats: PeakStats
    middle: float


Peaks = Mapping[tuple[str, Pole], PolePeaks]


def pole_peaks(read: Iterable[PoleRead], documents: Mapping[str, float]) -> Peaks:
    """What the examples of every pole's joint list share; ``documents`` are sources' shares."""
    found: dict[tuple[str, Pole], PolePeaks] = {}
    for direction, pole, peaks in read:
        stats = common([peak.token for peak in peaks], [peak.source for peak in peaks], documents)
        if stats:
            found[direction, pole] = PolePeaks(stats, median(peak.value for peak in peaks))
    return found
