"""What is known of all directions of a run at once? Read in a few queries, for lists and maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.pages import peaks_view
from builder.pages.corpus_view import ENRICHED
from builder.pages.peaks import Peaks, PolePeaks, pole_peaks
from builder.pages.triggers import Triggers, trigger_likeness
from builder.pages.views import RunView
from builder.records import Pole
from builder.store import Bulk, RunStore, Saturation, SourceShare


@dataclass(frozen=True, slots=True)
class Overview:
    """Statistics of every pole: what examples share and peak on, how trigger-like it is, sources.

    ``enriched`` are all sources that a pole's tail holds more of than chance, the least p-value
    first; ``leading`` is the first of each pole.
    """

    peaks: Peaks
    peaking: peaks_view.Peaking
    triggers: Triggers
    bulks: Mapping[str, Bulk]
    enriched: tuple[SourceShare, ...]
    saturations: tuple[Saturation, ...]
    leading: Mapping[tuple[str, Pole], SourceShare] = field(init=False)

    def __post_init__(self) -> None:
        leading: dict[tuple[str, Pole], SourceShare] = {}
        for held in self.enriched:
            leading.setdefault((held.direction, held.pole), held)
        object.__setattr__(self, "leading", leading)


def overview(run: RunView, store: RunStore, examples: int) -> Overview:
    """What a run's database says of all poles, by the first ``examples`` of each."""
    documents, bulks = run.document_shares(), store.bulks()
    peaks: dict[tuple[str, Pole], PolePeaks] = {}
    on: dict[tuple[str, Pole], peaks_view.PolePeaks] = {}
    # A pole at a time: together they would be the most that a build ever holds.
    for read in store.peaks(examples):
        peaks |= pole_peaks([read], documents)
        on |= peaks_view.peaking([read])
    return Overview(
        peaks=peaks,
        peaking=on,
        triggers=trigger_likeness(peaks, bulks),
        bulks=bulks,
        enriched=tuple(store.enriched_sources(ENRICHED)),
        saturations=tuple(store.saturations()),
    )


def fold(held: SourceShare) -> float:
    """How many times its share of the corpus a source has of a tail."""
    return (held.n / held.tail) / (held.documents / held.all_documents)
