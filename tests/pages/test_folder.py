"""A site's folder: nothing of others is harmed, and what was left half done is finished."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from builder import cli
from builder.errors import SiteError
from builder.pages import build_site
from builder.pages.folder import MANIFEST, PART
from tests.pages.conftest import SMALL, files_of


def test_a_second_build_writes_nothing_and_a_smaller_one_removes_the_rest(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / "README.md").write_text("kept")
    first = build_site(tiny_folders, out, SMALL)
    assert first.written == len(files_of(out)) - 2  # but for README.md and the manifest
    assert first.home == out / "index.html"
    assert first.pages == len(list(out.rglob("*.html")))
    assert first.bytes == sum(
        len(content)
        for name, content in files_of(out).items()
        if name not in {"README.md", MANIFEST}
    )
    (out / "notes.txt").write_text("a stranger's")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    second = build_site(tiny_folders, out, SMALL)
    assert (second.written, second.removed) == (0, 0)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    third = build_site(tiny_folders[:1], out, SMALL)
    assert third.removed > 0
    assert not (out / "m" / "pico-lora").exists()
    assert (out / "README.md").read_text() == "kept"
    assert (out / "notes.txt").read_text() == "a stranger's"
    build_site(tiny_folders[:1], tmp_path / "fresh", SMALL)
    kept = {k: v for k, v in files_of(out).items() if k not in {"README.md", "notes.txt"}}
    assert kept == files_of(tmp_path / "fresh")


@pytest.mark.parametrize("stranger", ["thesis.docx", "index.html", ".secret"])
def test_a_folder_of_others_is_refused_untouched(
    tiny_folders: list[Path], tmp_path: Path, stranger: str
) -> None:
    (tmp_path / stranger).write_text("mine")
    with pytest.raises(SiteError, match=re.escape(stranger)):
        build_site(tiny_folders, tmp_path, SMALL)
    assert files_of(tmp_path) == {stranger: b"mine"}


def test_a_file_of_others_in_the_way_of_a_page_is_not_overwritten(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    build_site(tiny_folders[:1], tmp_path, SMALL)
    before = files_of(tmp_path)
    (tmp_path / "m" / "pico-lora").mkdir()
    (tmp_path / "m" / "pico-lora" / "index.html").write_text("mine")
    with pytest.raises(SiteError, match="in the way"):
        build_site(tiny_folders, tmp_path, SMALL)
    assert files_of(tmp_path) == {**before, "m/pico-lora/index.html": b"mine"}


def test_nothing_is_written_through_a_link_out_of_the_site(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    build_site(tiny_folders[:1], out, SMALL)
    shutil.move(out / "m", elsewhere)
    (out / "m").symlink_to(elsewhere)
    before = files_of(elsewhere)
    with pytest.raises(SiteError, match="link leads out"):
        build_site(tiny_folders, out, SMALL)
    assert files_of(elsewhere) == before


@pytest.mark.parametrize(
    "content",
    ["not json", '{"files": ["index.html"]}', '{"generator": "weightatlas", "files": ["../x"]}'],
)
def test_a_manifest_that_is_not_ours_is_refused(
    tiny_folders: list[Path], tmp_path: Path, content: str
) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (tmp_path / "x").write_text("outside")
    (out / MANIFEST).write_text(content)
    with pytest.raises(SiteError, match="not a manifest"):
        build_site(tiny_folders, out, SMALL)
    assert (tmp_path / "x").read_text() == "outside"
    assert files_of(out) == {MANIFEST: content.encode()}


def test_a_build_that_was_killed_while_rendering_or_moving_is_finished_by_the_next(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    site, rendering = tmp_path / "site", tmp_path / "rendering"
    build_site(tiny_folders, site, SMALL)
    (rendering / PART / "m").mkdir(parents=True)
    (rendering / PART / "m" / "half.html").write_text("<html")
    moving = tmp_path / "moving"
    shutil.copytree(site, moving)
    (moving / "search.html").unlink()
    (moving / PART).mkdir()
    for out in (rendering, moving):
        build_site(tiny_folders, out, SMALL)
        assert files_of(out) == files_of(site)


def test_a_fault_while_rendering_leaves_the_old_site_whole(
    tiny_folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "site"
    build_site(tiny_folders[:1], out, SMALL)
    before = files_of(out)

    def broken(*_: object) -> str:
        raise RuntimeError("broken")

    monkeypatch.setattr("builder.pages.site.search_scripts", broken)
    with pytest.raises(RuntimeError, match="broken"):
        build_site(tiny_folders, out, SMALL.model_copy(update={"title": "another"}))
    assert files_of(out) == before


def test_render_takes_the_folder_from_the_recipe_and_says_which_models_left(
    tiny_folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [shutil.copytree(folder, tmp_path / folder.name) for folder in tiny_folders]
    recipe = 'name = "pico-chat"\n[model]\ntuned = "x"\nbase = "y"\n[site]\nout = "public"\n'
    for run in runs:
        (run / "run.toml").write_text(recipe.replace("pico-chat", run.name))
    assert cli.main(["render", *map(str, runs)]) == 0
    assert "no longer" not in capsys.readouterr().out
    assert (tmp_path / "public" / "index.html").is_file()
    assert cli.main(["render", str(runs[0])]) == 0
    assert "no longer in the site: pico-lora" in capsys.readouterr().out
    assert not (tmp_path / "public" / "m" / "pico-lora").exists()
    assert not (tmp_path / "site").exists()
