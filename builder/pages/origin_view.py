"""How firm is a direction, and what feeds it? Its group, noise floors and read side, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from builder.pages.formats import short
from builder.pages.views import DirectionView, RunView

#: A group of more ranks than this that follow each other is named by its first and last.
_LISTED = 4
#: What lies on the side that is read, by the space of the right singular vector.
SPACES = {
    "heads": "attention heads",
    "keys": "key heads",
    "values": "value heads",
    "neurons": "neurons",
}


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank of the same matrix; ``page`` is the file name of its page, if it was kept."""

    name: str
    page: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """The other ranks that a direction's singular value cannot be told from."""

    ranks: tuple[Rank, ...]
    #: Whether ``ranks`` are only the first and the last of a long row of them.
    is_span: bool


@dataclass(frozen=True, slots=True)
class Noise:
    """A singular value beside its noise floors: (times the floor, what the floor is)."""

    times: tuple[tuple[str, str], ...]
    #: Whether it is no larger than one of them.
    below: bool


@dataclass(frozen=True, slots=True)
class Read:
    """One head or neuron that a direction is fed by."""

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class OriginView:
    """What a direction's page says about where it comes from."""

    group: Group | None
    noise: Noise | None
    reads: tuple[Read, ...]
    #: What the reads are (``attention heads``), and their shares together.
    space: str
    total: float


def origin(run: RunView, item: DirectionView) -> OriginView:
    """The group, noise floors and read side of one direction."""
    spectrum = run.spectrum_of(item)
    reads = item.row.reads
    return OriginView(
        group=_group(run, item),
        noise=_noise(item.row.sigma, spectrum.shuffled_floor, spectrum.rounding_floor)
        if spectrum
        else None,
        reads=tuple(Read(name, part) for name, part in reads),
        space=SPACES.get(spectrum.space, "inputs") if spectrum else "inputs",
        total=sum(part for _, part in reads),
    )


def _group(run: RunView, item: DirectionView) -> Group | None:
    own, ranks = item.row.rank, sorted(item.row.group)
    others = [rank for rank in ranks if rank != own]
    if not others:
        return None
    is_span = len(others) > _LISTED and ranks[-1] - ranks[0] + 1 == len(ranks)
    place = item.row.hookpoint
    pages = {
        other.row.rank: other.link for other in run.by_matrix.get((place.layer, place.writer), ())
    }
    shown = (ranks[0], ranks[-1]) if is_span else others
    return Group(
        tuple(Rank(f"u{rank:02d}", pages.get(rank) if rank != own else None) for rank in shown),
        is_span,
    )


def _noise(sigma: float | None, shuffled: float, rounding: float) -> Noise | None:
    if sigma is None:
        return None
    ratios = [
        (sigma / floor, meaning)
        for floor, meaning in (
            (shuffled, "what the same entries in random places would give"),
            (rounding, "what the rounding of the stored weights alone would give"),
        )
        if math.isfinite(floor) and floor > 0
    ]
    if not ratios:
        return None
    return Noise(
        tuple((short(ratio, 2), meaning) for ratio, meaning in ratios),
        below=any(ratio <= 1 for ratio, _ in ratios),
    )
