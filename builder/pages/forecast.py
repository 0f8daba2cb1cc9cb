"""How large will a site be? Known before its pages are made, from a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.config import SiteSettings
from builder.errors import SiteError
from builder.pages.direction_job import DirectionJob, direction_files

#: Pages of each run that are made for it.
SAMPLE = 12
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes that the files of directions will take: in all, and one on average."""

    directions: int
    bytes: int

    @property
    def each(self) -> float:
        """Bytes a direction."""
        return self.bytes / self.directions if self.directions else 0.0


def forecast(job: DirectionJob, counts: Sequence[int]) -> Forecast:
    """The size of the files of all directions; ``counts`` are how many each run has.

    From SAMPLE directions of each run, evenly spaced from its first to its last.
    """
    total = 0.0
    for at, count in enumerate(counts):
        n = min(count, SAMPLE)
        if not n:
            continue
        places = sorted({round(place * (count - 1) / max(1, n - 1)) for place in range(n)})
        wanted = [places if number == at else [] for number in range(len(counts))]
        size = sum(
            len(content)
            for files in direction_files(job, wanted, lambda _: None, workers=1)
            for content in files.values()
        )
        total += size / len(places) * count
    return Forecast(sum(counts), round(total))


def refuse_oversize(found: Forecast, settings: SiteSettings) -> None:
    """Raises SiteError, saying what would help, if the site would be larger than is allowed."""
    allowed = settings.largest_mb * _MB
    if found.bytes <= allowed:
        return
    share = allowed / found.bytes
    fewer = max(1, int(settings.examples * share * 0.9))
    raise SiteError(
        f"the pages of {found.directions:,} directions would take {found.bytes / _MB:,.0f} MB "
        f"({found.each / 1000:.0f} kB each), more than site.largest_mb = {settings.largest_mb:,} "
        f"(hosts such as GitHub Pages take 1 GB): show fewer examples (site.examples = {fewer}), "
        "render fewer runs, keep fewer directions a matrix (directions.k), or raise the limit"
    )
