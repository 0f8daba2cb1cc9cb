"""What do the examples of every pole have in common? For lists over a whole run."""

from __future__ import annotations

from builder.pages.direction_view import PeakStats, common
from builder.pages.views import RunView
from builder.records import Pole
from builder.store import RunStore

Peaks = dict[tuple[str, Pole], PeakStats]


def pole_peaks(store: RunStore, run: RunView, examples: int) -> Peaks:
    """What the first ``examples`` of every pole's joint list share, in one query."""
    documents = run.document_shares()
    found: Peaks = {}
    for direction, pole, peaks in store.peaks(most=examples):
        stats = common([peak.token for peak in peaks], [peak.source for peak in peaks], documents)
        if stats:
            found[direction, pole] = stats
    return found
