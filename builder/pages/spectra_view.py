"""What does a model's page say of singular values? Charts of writers, tables of all matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from builder.pages import charts
from builder.pages.views import RunView
from builder.records import WRITERS, Spectrum


@dataclass(frozen=True, slots=True)
class SpectrumView:
    """One matrix: its singular values drawn (empty for what is no writer) and their features."""

    spectrum: Spectrum
    first: float
    chart: Markup

    @property
    def beyond(self) -> float:
        """How many times its noise floor, the larger one, the first singular value is."""
        floor = max(known(floors_of(self.spectrum)), default=math.nan)
        return self.first / floor if floor > 0 else math.nan


@dataclass(frozen=True, slots=True)
class SpectraView:
    """The spectra of a run by kind of matrix, and which noise floors are known of any."""

    #: (writer, its spectra by layer), drawn to one common height.
    writers: tuple[tuple[str, tuple[SpectrumView, ...]], ...]
    #: The same of the matrices that read the residual stream; empty where only writers were read.
    readers: tuple[tuple[str, tuple[SpectrumView, ...]], ...]
    has_shuffled: bool
    has_rounding: bool
    #: Singular values drawn where a spectrum holds more; None where all are drawn.
    drawn: int | None
    #: Directions whose singular values cannot be told from others'.
    grouped: int


def spectra(run: RunView) -> SpectraView:
    """Every matrix's spectrum by kind, and what its legend has to explain."""
    drawn = [item for item in run.spectra if item.hookpoint.writer in WRITERS]
    kept: dict[tuple[int, str], int] = {}
    for direction in run.own:
        key = (direction.row.hookpoint.layer, direction.row.hookpoint.writer)
        kept[key] = kept.get(key, 0) + 1
    heights = [
        *(float(item.sigmas[0]) for item in drawn if item.sigmas.size),
        *(floor for item in drawn for floor in known(floors_of(item))),
    ]
    top = max(heights, default=0.0)
    writers: dict[str, list[SpectrumView]] = {}
    readers: dict[str, list[SpectrumView]] = {}
    for item in run.spectra:
        place = item.hookpoint
        first = float(item.sigmas[0]) if item.sigmas.size else math.nan
        if place.writer in WRITERS:
            count = kept.get((place.layer, place.writer), 0)
            chart = charts.spectrum(item.sigmas, count, top, floors_of(item))
            writers.setdefault(place.writer, []).append(SpectrumView(item, first, chart))
        else:
            readers.setdefault(place.writer, []).append(SpectrumView(item, first, Markup("")))
    return SpectraView(
        writers=tuple((name, tuple(views)) for name, views in writers.items()),
        readers=tuple((name, tuple(views)) for name, views in readers.items()),
        has_shuffled=any(known([item.shuffled_floor]) for item in drawn),
        has_rounding=any(known([item.rounding_floor]) for item in drawn),
        drawn=charts.DRAWN if any(len(item.sigmas) > charts.DRAWN for item in drawn) else None,
        grouped=sum(bool(direction.row.group) for direction in run.own),
    )


def floors_of(spectrum: Spectrum) -> tuple[float, float]:
    """The noise floors, of shuffled entries and of rounding; NaN for one that is not known."""
    return (spectrum.shuffled_floor, spectrum.rounding_floor)


def known(values: Iterable[float]) -> list[float]:
    """The values that are numbers."""
    return [value for value in values if math.isfinite(value)]
