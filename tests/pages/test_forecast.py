"""How large a site will be is known before it is made, and one that is too large is not made."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.comparison import compare_runs
from builder.config import SiteSettings
from builder.errors import SiteError
from builder.pages import build_site
from builder.pages.direction_job import DirectionJob
from builder.pages.forecast import SAMPLE, Forecast, forecast, refuse_oversize
from builder.pages.layout import own_pages, units
from builder.pages.views import read_run
from builder.store import RunStore
from tests.pages.conftest import SMALL, files_of


@contextlib.contextmanager
def job_of(folders: list[Path]) -> Iterator[tuple[DirectionJob, list[dict[range, int]]]]:
    """What makes the pages of these runs, and how many directions each has."""
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(RunStore(folder / "run.duckdb")) for folder in folders]
        runs = [read_run(folder, store) for folder, store in zip(folders, stores, strict=True)]
        opened = list(zip(runs, stores, strict=True))
        yield (
            DirectionJob(opened, SMALL, compare_runs(folders).near),
            [own_pages(run, units(run)) for run in runs],
        )


def of_directions(site: Path) -> list[Path]:
    """The files of all directions of a site."""
    pages = [path for path in site.glob("m/*/*.html") if path.name != "index.html"]
    data = [*site.glob("m/*/d/*.js"), *site.glob("api/pico-*/*.json")]
    return [*pages, *(path for path in data if path.name != "index.json")]


def test_the_forecast_is_close_to_what_the_files_take(site: Path, run_folders: list[Path]) -> None:
    with job_of(run_folders) as (job, own):
        assert min(map(len, own)) > SAMPLE
        found = forecast(job, own, directions=sum(len(unit) for cut in own for unit in cut))
    files = of_directions(site)
    assert found.directions == len(files) / 3
    taken = sum(path.stat().st_size for path in files)
    assert found.bytes == pytest.approx(taken, rel=0.15)
    assert found.each == found.bytes / found.directions


def test_the_forecast_of_few_pages_is_exact(
    tiny_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[Forecast] = []
    out = tmp_path / "site"

    def note(found: Forecast) -> None:
        assert not out.exists(), "it is said before anything is written"
        said.append(found)

    build_site(tiny_folders, out, SMALL, on_forecast=note)
    taken = sum(path.stat().st_size for path in of_directions(out))
    assert said == [Forecast(12, taken)]
    with job_of(tiny_folders) as (job, _):
        assert forecast(job, [{}, {}], directions=5, kept=70) == Forecast(5, 70)
    assert Forecast(0, 0).each == 0
    assert capsys.readouterr() == ("", "")


def test_a_site_that_is_too_large_is_refused_and_its_folder_left_alone(
    run_folders: list[Path], tiny_folders: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "site"
    settings = SMALL.model_copy(update={"largest_mb": 1})
    with pytest.raises(SiteError, match=r"80 directions would take \d+ MB"):
        build_site(run_folders, out, settings)
    assert not out.exists()
    build_site(tiny_folders, out, settings)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    content = files_of(out)
    with pytest.raises(SiteError, match=r"site\.largest_mb = 1 ") as refused:
        build_site(run_folders, out, settings)
    assert files_of(out) == content
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path != out} == {
        path: at for path, at in before.items() if path != out
    }
    fewer = re.search(r"site\.examples = (\d+)", str(refused.value))
    assert fewer is not None
    assert 1 <= int(fewer[1]) < settings.examples


def test_as_much_as_is_allowed_is_not_too_much() -> None:
    settings = SiteSettings(largest_mb=900, examples=20)
    refuse_oversize(Forecast(9000, 900_000_000), settings)
    with pytest.raises(SiteError, match=r"9,000 .* 900 MB \(100 kB each\), .* = 900 .*= 17\)"):
        refuse_oversize(Forecast(9000, 900_000_001), settings)
    with pytest.raises(SiteError, match=r"site\.examples = 1\)"):
        refuse_oversize(Forecast(1, 10**12), settings)
