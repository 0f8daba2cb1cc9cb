"""Directions that share files say just what they would say on pages of their own."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from builder.assets import asset_dir
from builder.config import SiteSettings
from builder.errors import SiteError
from builder.pages import build_site, layout, links
from builder.pages.layout import PER_SHARD, decided, opened_shard
from builder.pages.packed import opened as bytes_of
from builder.pages.site import DIRECTION_SCRIPTS
from builder.publish.checks import check_site
from builder.publish.private_names import PrivateNames
from builder.store.schema import connect
from tests.findings.writing import write_finding
from tests.pages.conftest import SMALL, Opened, files_of
from tests.pages.fixture import make_run

OWN = 5
SHARDS = SMALL.model_copy(update={"layout": "shards"})
#: Of as many examples as shards have for a single role.
PAGES = SMALL.model_copy(update={"layout": "pages"})


@pytest.fixture(scope="module", autouse=True)
def few_pages() -> object:
    """So few directions have pages of their own that the others can be looked at."""
    patch = pytest.MonkeyPatch()
    patch.setattr(layout, "STANDING", OWN)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shards") / "run"
    return make_run(place, name="many", title="Many", seed=8, layers=2, ranks=8, documents=20)


@pytest.fixture(scope="module")
def sharded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sites") / "shards"
    report = build_site([folder], out, SHARDS)
    assert report.pages > PER_SHARD
    return out


@pytest.fixture(scope="module")
def paged(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sites") / "pages"
    patch = pytest.MonkeyPatch()
    # The one thing that shards have less of.
    patch.setattr("builder.pages.direction_view.OF_ROLE", {"pages": 5, "shards": 5})
    build_site([folder], out, PAGES)
    patch.undo()
    return out


def test_the_page_for_all_loads_the_scripts_that_a_page_of_one_has() -> None:
    shell = (asset_dir() / "templates" / "shell.html").read_text("utf-8")
    script = (asset_dir() / "static" / "shard.js").read_text("utf-8")
    before = re.search(r"for name in (\[.*?\])", shell)
    after = re.search(r"const SCRIPTS = (\[.*?\]);", script)
    assert before
    assert after
    assert {*json.loads(before[1]), *json.loads(after[1])} == {*DIRECTION_SCRIPTS, "shard"}


def of_shards(site: Path) -> dict[str, tuple[str, bytes]]:
    """The main part of each direction's page, and what its script gets."""
    found = {}
    for path in sorted((site / "m" / "many" / "s").iterdir(), key=lambda path: int(path.stem)):
        for name, html, content in opened_shard(path.read_bytes()):
            found[name] = (html, content)
    return found


def main_of(page: Path) -> str:
    found = re.search(r"<main[^>]*>(.*)</main>", page.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_shards_hold_what_pages_would(sharded: Path, paged: Path) -> None:
    held = of_shards(sharded)
    pages = {path.stem: path for path in paged.glob("m/many/*.html") if path.stem != "index"}
    assert held.keys() == pages.keys()
    own = {path.stem for path in sharded.glob("m/many/*.html")} - {"index", links.SHELL}
    assert len(own) == OWN
    assert len(held) > PER_SHARD
    for name, (html, content) in held.items():
        addressed = re.sub(r"direction\.html\?d=([a-z0-9._-]+)", r"\1.html", html)
        assert addressed == main_of(pages[name])
        assert content == bytes_of((paged / links.direction_script("many", name)).read_bytes())
        if name in own:
            assert main_of(sharded / links.direction_page("many", name)) == html
    names = bytes_of((sharded / links.names_script("many")).read_bytes()).decode().split("\n")
    assert names == list(held)


def test_data_of_shards_is_that_of_files(sharded: Path, paged: Path) -> None:
    index = json.loads((sharded / "api" / "many" / "index.json").read_bytes())
    for direction in index["directions"]:
        lines = gzip.decompress((sharded / direction["json"]).read_bytes()).splitlines()
        (held,) = [one for one in map(json.loads, lines) if one["id"] == direction["id"]]
        name = direction["page"].partition("?d=")[2] or Path(direction["page"]).stem
        wanted = json.loads((paged / links.api_file("many", name)).read_bytes())
        assert held.pop("page") == direction["page"]
        wanted.pop("page")
        for one in (held, wanted):
            for near in one["neighbours"]:
                near.pop("page", None)
        assert held == wanted


def test_a_new_label_touches_its_shard_only(folder: Path, tmp_path: Path) -> None:
    run, out = shutil.copytree(folder, tmp_path / "run"), tmp_path / "site"
    build_site([run], out, SHARDS)
    before = files_of(out)
    again = build_site([run], out, SHARDS)
    assert again.written == 0
    with connect(run / "run.duckdb", read_only=False) as database:
        database.execute(
            "UPDATE labels SET text = 'never heard of' "
            "WHERE direction = (SELECT max(direction) FROM labels WHERE text <> '')"
        )
    build_site([run], out, SHARDS)
    after = files_of(out)
    changed = {name for name in before if "/s/" in name and before[name] != after.get(name)}
    saying = {
        name for name in after if "/s/" in name and b"never heard of" in bytes_of(after[name])
    }
    assert changed == saying
    assert changed
    build_site([run], tmp_path / "fresh", SHARDS)
    assert files_of(tmp_path / "fresh") == after


def test_either_layout_takes_the_place_of_the_other(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    for settings in (SHARDS, PAGES, SHARDS):
        build_site([folder], out, settings)
        fresh = tmp_path / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        build_site([folder], fresh, settings)
        assert files_of(out) == files_of(fresh)


def test_very_many_directions_are_packed_unless_settings_say_otherwise() -> None:
    plain = SiteSettings()
    assert decided(plain, layout.MOST_PAGES).layout == "pages"
    assert decided(plain, layout.MOST_PAGES).examples == plain.examples
    found = decided(plain, layout.MOST_PAGES + 1)
    assert (found.layout, found.examples) == ("shards", layout.EXAMPLES)
    assert decided(SiteSettings(examples=3), layout.MOST_PAGES + 1).examples == 3
    assert decided(PAGES, 10**6).layout == "pages"
    assert decided(SHARDS, 1).layout == "shards"


def test_a_site_that_is_too_large_is_told_of_shards(folder: Path, tmp_path: Path) -> None:
    tight = PAGES.model_copy(update={"largest_mb": 1})
    with pytest.raises(SiteError, match=r'site\.layout = "shards"'):
        build_site([folder], tmp_path / "site", tight)


def test_links_into_shards_are_checked(sharded: Path, tmp_path: Path) -> None:
    nothing = PrivateNames([], [])
    assert check_site(sharded, "folder", names=nothing).faults == ()
    site = Path(shutil.copytree(sharded, tmp_path / "site"))
    page = site / "directions.html"
    text = page.read_text("utf-8")
    assert "direction.html?d=" in text
    page.write_text(
        re.sub(r"direction\.html\?d=[a-z0-9._-]+", "direction.html?d=gone", text, count=1)
    )
    faults = check_site(site, "folder", names=nothing).faults
    assert any("m/many/direction.html?d=gone, which is not there" in fault for fault in faults)


def test_findings_link_into_shards_and_site_maps_leave_their_page_out(
    folder: Path, sharded: Path, tmp_path: Path
) -> None:
    own = {path.stem for path in sharded.glob("m/many/*.html")}
    name = next(name for name in of_shards(sharded) if name not in own)
    index = json.loads((sharded / "api" / "many" / "index.json").read_bytes())
    cited = index["directions"][0]["id"]
    (tmp_path / "findings").mkdir()
    settings = {**SHARDS.model_dump(), "findings": str(tmp_path / "findings")}
    known = SiteSettings.model_validate({**settings, "url": "https://example.org/"})

    def build(link: str) -> str:
        body = f"See [it](../m/many/{link}#max).\n"
        write_finding(tmp_path / "findings", "a.md", body, directions=f"[many/{cited}]")
        build_site([folder], tmp_path / "site", known)
        return (tmp_path / "site" / "findings" / "a.html").read_text("utf-8")

    assert f'href="../m/many/direction.html?d={name}#max"' in build(f"direction.html?d={name}")
    with pytest.raises(SiteError, match="no such page"):
        build("direction.html?d=gone")
    listed = (tmp_path / "site" / "sitemap.xml").read_text("utf-8")
    assert f"{links.SHELL}.html" not in listed
    assert all(f"m/many/{page}.html" in listed for page in own - {links.SHELL})


@pytest.mark.browser
def test_a_direction_without_a_page_is_shown_from_disk(
    sharded: Path, paged: Path, opened: Opened
) -> None:
    page = opened.page
    own = {path.stem for path in sharded.glob("m/many/*.html")}
    name = next(name for name in reversed(of_shards(sharded)) if name not in own)
    shell = (sharded / links.shell_page("many")).as_uri()

    def shown() -> str:
        page.wait_for_selector("html.filled")
        return page.locator("main").inner_html()

    page.goto((paged / links.direction_page("many", name)).as_uri())
    wanted, title = shown(), page.title()
    page.goto(f"{shell}?d={name}")
    assert re.sub(r"direction\.html\?d=([a-z0-9._-]+)", r"\1.html", shown()) == wanted
    assert page.title() == title
    # A part of the page that an address names, the step to the one before, and what one looks at.
    page.goto(f"{shell}?d={name}#provenance")
    shown()
    expect(page.locator("#provenance")).to_be_in_viewport()
    page.locator("label[for^=role-]").nth(1).click()
    assert f"d={name}" in page.url
    assert "role=" in page.url
    page.locator("h1").click()
    page.keyboard.press("k")
    page.wait_for_url(lambda url: name not in url)
    shown()
    # One that has a page of its own takes what its script shows from the shard, too.
    page.goto((sharded / "m" / "many" / f"{min(own - {'index', links.SHELL})}.html").as_uri())
    shown()
    for query, said in (("?d=nothing", "has no direction nothing"), ("", "names no direction")):
        page.goto(shell + query)
        expect(page.locator("main .warn").last).to_contain_text(said)
    assert opened.faults == []


@pytest.mark.browser
def test_search_and_triage_lead_into_shards(sharded: Path, opened: Opened) -> None:
    page = opened.page
    page.goto((sharded / "search.html").as_uri())
    first = page.locator("#results a[href*='?d=']").first
    first.wait_for()
    first.click()
    page.wait_for_selector("html.filled")
    page.goto((sharded / "triage.html").as_uri())
    expect(page.locator("#max-examples li").first).to_be_visible()
    assert "m/many/" in (page.locator("#open").get_attribute("href") or "")
    assert opened.faults == []
