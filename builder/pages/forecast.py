"""How large will a site be? Known before its pages are made, from a few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.config import SiteSettings
from builder.errors import SiteError
from builder.pages.direction_job import DirectionJob, direction_files

#: Pages of each run that are made for it; where several make a unit, SHARDS units.
SAMPLE = 12
SHARDS = 2
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes that the files of directions will take: in all, and a direction on average."""

    directions: int
    bytes: int

    @property
    def each(self) -> float:
        """Bytes a direction."""
        return self.bytes / self.directions if self.directions else 0.0


def forecast(
    job: DirectionJob, units: Sequence[Mapping[range, int]], *, directions: int, kept: int = 0
) -> Forecast:
    """The size of the files of all ``directions``, of which ``kept`` bytes are there already.

    ``units`` are the others of each run, with how many of their directions have a page of their
    own. Made are SAMPLE units of each run, or SHARDS, evenly spaced from the first to the last, and
    one that has such pages.
    """
    total = float(kept)
    for at, own in enumerate(units):
        if not own:
            continue
        sample = _sample(own)
        wanted = [sample if number == at else [] for number in range(len(units))]
        pages, other = [], 0
        for files in direction_files(job, wanted, lambda _: None, workers=1):
            sizes = {path: len(content) for path, content in files.items()}
            pages += [size for path, size in sizes.items() if path.endswith(".html")]
            other += sum(size for path, size in sizes.items() if not path.endswith(".html"))
        total += other / sum(map(len, sample)) * sum(map(len, own))
        total += sum(pages) / max(1, len(pages)) * sum(own.values())
    return Forecast(directions, round(total))


def _sample(own: Mapping[range, int]) -> list[range]:
    every = list(own)
    n = min(len(every), SAMPLE if len(every[0]) == 1 else SHARDS)
    places = {round(place * (len(every) - 1) / max(1, n - 1)) for place in range(n)}
    if not any(own[every[place]] for place in places):
        places.add(max(range(len(every)), key=lambda place: own[every[place]]))
    return [every[place] for place in sorted(places)]


def refuse_oversize(found: Forecast, settings: SiteSettings) -> None:
    """Raises SiteError, saying what would help, if the site would be larger than is allowed."""
    allowed = settings.largest_mb * _MB
    if found.bytes <= allowed:
        return
    share = allowed / found.bytes
    is_packed = settings.layout == "shards"
    packed = "" if is_packed else 'pack pages together (site.layout = "shards"), '
    fewer = max(1, int(settings.examples * share * 0.9))
    raise SiteError(
        f"the pages of {found.directions:,} directions would take {found.bytes / _MB:,.0f} MB "
        f"({found.each / 1000:.0f} kB each), more than site.largest_mb = {settings.largest_mb:,} "
        f"(hosts such as GitHub Pages take 1 GB): {packed}"
        f"show fewer examples (site.examples = {fewer}), render fewer runs, keep fewer "
        "directions a matrix (directions.k), or raise the limit"
    )
