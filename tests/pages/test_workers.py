"""Pages come out the same however many processes make them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from builder.comparison import compare_runs
from builder.config import SiteSettings
from builder.errors import SiteError, StoreError
from builder.pages import build_site
from builder.pages.direction_job import DirectionJob, direction_files
from builder.pages.views import read_run
from builder.store import RunStore
from tests.pages.conftest import SMALL, files_of


@pytest.mark.parametrize("which", ["hostile", "tiny"])
def test_two_processes_make_the_bytes_that_one_makes(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (
        [request.getfixturevalue("hostile_folder")]
        if which == "hostile"
        else request.getfixturevalue("tiny_folders")
    )
    comparisons = compare_runs(folders).near
    # Units as small as these are given out in turns.
    monkeypatch.setattr("builder.pages.direction_job.AT_ONCE", 3)
    settings = SiteSettings(title="a <b>\u202e", examples=6, context=16)
    for workers in (1, 2):
        report = build_site(
            folders, tmp_path / str(workers), settings, comparisons, workers=workers
        )
        assert report.made == report.pages
    one, two = files_of(tmp_path / "1"), files_of(tmp_path / "2")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    # A part of the pages that others make goes with what is there.
    for path in (tmp_path / "1" / "m").rglob("l00*.html"):
        path.unlink()
    build_site(folders, tmp_path / "1", settings, comparisons, workers=2)
    assert files_of(tmp_path / "1") == two


def test_units_do_not_show_in_files_and_every_page_is_told_once(
    hostile_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[dict[str, bytes]] = []
    with RunStore(hostile_folder / "run.duckdb") as store:
        run = read_run(hostile_folder, store)
        job = DirectionJob([(run, store)], SMALL, {})
        places = range(1, len(run.directions), 2)
        units = [range(at, at + 1) for at in places]
        for at_once, workers in ((1, 1), (2, 2), (64, 2)):
            monkeypatch.setattr("builder.pages.direction_job.AT_ONCE", at_once)
            told: list[int] = []
            files.append({})
            for found in direction_files(job, [units], told.append, workers=workers):
                assert not files[-1].keys() & found.keys()
                files[-1].update(found)
            assert sum(told) == len(places)
    assert files[0] == files[1] == files[2]
    names = [run.directions[at].name for at in places]
    forms = ("m/hostile/{}.html", "m/hostile/d/{}.js", "api/hostile/{}.json")
    assert set(files[0]) == {form.format(name) for name in names for form in forms}


def test_a_database_that_is_gone_is_an_error_of_the_site(
    hostile_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.pages.direction_job.AT_ONCE", 3)
    folder = Path(shutil.copytree(hostile_folder, tmp_path / "run"))
    with RunStore(folder / "run.duckdb") as store:
        job = DirectionJob([(read_run(folder, store), store)], SMALL, {})
        (folder / "run.duckdb").unlink()
        with pytest.raises((SiteError, StoreError), match="no database here"):
            list(
                direction_files(
                    job, [[range(at, at + 1) for at in range(8)]], lambda _: None, workers=2
                )
            )
