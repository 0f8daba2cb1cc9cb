"""A strict build changes nothing while there is anything to warn of; all builds say their size."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from builder import cli
from builder.config import ModelSettings, Settings, SiteSettings, dump_settings
from builder.errors import WarnedError
from builder.pages import build_site
from builder.pages.forecast import Forecast
from builder.store import RunStore
from tests.pages.conftest import SMALL
from tests.pages.fixture import make_run


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """A run whose sources have no licence."""
    folder = tmp_path / "doubtful"
    make_run(folder, name="doubtful", title="Doubtful", layers=1, ranks=1, documents=12, seed=4)
    with RunStore(folder / "run.duckdb", read_only=False) as store:
        store.update_meta({"corpus": {"sources": [{"name": "chats"}, {"name": "mail"}]}})
    return folder


def recipe(run: Path) -> Path:
    """The run with the settings that a run folder has."""
    settings = Settings(name=run.name, model=ModelSettings(tuned="made-up"), site=SMALL)
    (run / "run.toml").write_text(dump_settings(settings), encoding="utf-8")
    return run


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_strict_build_names_all_warnings_and_leaves_the_site(
    doubtful: Path, tiny_folders: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "site"
    build_site(tiny_folders, out, SMALL)
    before = snapshot(out)
    report = build_site([doubtful], tmp_path / "other", SMALL, warnings=("of the caller",))
    with pytest.raises(WarnedError) as caught:
        build_site([doubtful], out, SMALL, warnings=("of the caller",), strict=True)
    lines = str(caught.value).splitlines()
    assert [line.strip() for line in lines[1:]] == list(report.warnings)
    assert "of the caller" in lines[1]
    assert any("no licence is stated for texts of chats, mail" in line for line in lines)
    assert snapshot(out) == before


def test_without_warnings_a_strict_build_is_a_build(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_folders[0], folder)
    with RunStore(folder / "run.duckdb", read_only=False) as store:
        store.update_meta({"corpus": {"sources": [{"name": "chats", "licence": "CC0"}]}})
        store._connection.execute("DELETE FROM label_failures")
    report = build_site([folder], tmp_path / "site", SMALL, strict=True)
    assert report.warnings == ()
    assert report.written > 0


def test_the_command_ends_with_1_and_tells_all(
    doubtful: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "site"
    assert cli.main(["render", str(recipe(doubtful)), "--out", str(out), "--strict"]) == 1
    told = capsys.readouterr().err
    assert "no licence is stated" in told
    assert not out.exists()
    assert cli.main(["render", str(recipe(doubtful)), "--out", str(out)]) == 0


def test_a_size_is_told_before_pages_are_made_and_is_about_right(
    tiny_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "site"
    told: list[Forecast] = []

    def note(found: Forecast) -> None:
        assert not (out / "index.html").exists()
        told.append(found)

    build_site(tiny_folders, out, SMALL, on_forecast=note)
    (found,) = told
    listed = json.loads((out / "manifest.json").read_text("utf-8"))["files"]
    # Files of directions: pages by name, and what they load.
    sizes = [
        size
        for path, (_, size, _) in listed.items()
        if re.fullmatch(r"(m|api)/[^/]+/(d/)?l\d\d\..*", path)
    ]
    assert found.directions == len(sizes) / 3
    assert abs(found.bytes - sum(sizes)) < 0.1 * sum(sizes)
    assert (
        cli.main(
            [
                "render",
                *(str(recipe(run)) for run in tiny_folders),
                "--out",
                str(tmp_path / "again"),
            ]
        )
        == 0
    )
    line = rf"^{found.directions} directions: about \d+ kB, \d+ kB each$"
    assert re.search(line, capsys.readouterr().err, flags=re.MULTILINE)


def test_settings_of_a_site_can_be_changed_as_it_is_rendered(
    tiny_folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = str(tmp_path / "site"), str(recipe(tiny_folders[0]))
    assert cli.main(["render", run, "--out", out, "--set", "site.redact=[]"]) == 0
    assert "Nothing was covered" in (tmp_path / "site" / "downloads.html").read_text("utf-8")
    assert cli.main(["render", run, "--out", out, "--set", "scan.top=3"]) == 2
    assert cli.main(["render", run, "--out", out, "--set", 'site.redact=["names"]']) == 2
    assert "site.redact" in capsys.readouterr().err
    assert SiteSettings().redact == ("email", "phone", "key")
