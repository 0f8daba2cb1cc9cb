"""The page that compares models: what it says, whom it leaves out, how it looks and is reached."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from builder import pipeline
from builder.comparison import compare_runs
from builder.config import SiteSettings
from builder.labels.similar import nearest_across
from builder.pages import build_site
from builder.pages.compare.chart import nearest_chart
from builder.pages.compare.labels import labels_of
from builder.pages.compare.sections import line_view, pair_view
from builder.pages.compare.view import named_groups, pair_addresses
from builder.pages.views import RunView, read_run
from builder.records import Label, ModelRef
from builder.store import RunStore
from builder.weights.direction_file import load_directions, save_directions
from tests.pages.conftest import SMALL, Opened
from tests.pages.fixture import make_run

WIDTHS = (1280, 390, 360)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Three numbered stages, the last of a hostile kind, and their site; the fourth has no file."""
    folder = tmp_path_factory.mktemp("staged")
    evil = '"><script>window.owned=1</script>\u202e'
    runs = [
        make_run(folder / "one", name="sft", title="Stage SFT", seed=1, ranks=3, documents=40),
        make_run(folder / "two", name="dpo", title="Stage DPO", seed=2, ranks=3, documents=40),
        make_run(
            folder / "three", name="rl", title=evil, seed=3, ranks=2, documents=66, hostile=True
        ),
        make_run(folder / "four", name="bare", title="Bare", seed=4, ranks=1, documents=20),
    ]
    (runs[3] / "directions.safetensors").unlink()
    for stage, run in enumerate(runs, 1):
        recipe = f'name = "{run.name}"\n[model]\ntuned = "a/b"\nstage = {stage}\n'
        (run / "run.toml").write_text(recipe, encoding="utf-8")
    out = folder / "site"
    pipeline.make_site(runs, SiteSettings(out=str(out), examples=3, context=8))
    return runs, out


@pytest.fixture
def two(tiny_folders: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of the two small runs, for a build leaves its records in run folders."""
    return [Path(shutil.copytree(run, tmp_path / "runs" / run.name)) for run in tiny_folders]


def page_of(site: Path) -> Path:
    """The one compare page of a site."""
    (page,) = (site / "compare").iterdir()
    return page


def test_every_link_of_the_page_leads_somewhere(
    site: Path, staged: tuple[list[Path], Path]
) -> None:
    for top in (site, staged[1]):
        page = page_of(top)
        addresses = set(_attributes(page, "href"))
        assert len(addresses) > 20
        for address in addresses:
            path, _, anchor = address.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), address
            assert not anchor or anchor in _attributes(target, "id"), address


def test_direction_pages_lead_to_the_pair(site: Path) -> None:
    found = []
    for page in (site / "m" / "pico-lora").glob("l*.html"):
        found += re.findall(r"href=\.\./\.\./(compare/[^ >#]+)#([^ >]+)", page.read_text("utf-8"))
    assert set(found) == {(f"compare/{page_of(site).name}", "pico-chat~pico-lora")}
    assert ' id="pico-chat~pico-lora"' in page_of(site).read_text("utf-8")


def test_home_navigation_and_model_pages_lead_there(site: Path) -> None:
    name = f"compare/{page_of(site).name}"
    home, model = ((site / p).read_text("utf-8") for p in ("index.html", "m/pico-chat/index.html"))
    assert home.count(f'href="{name}"') == 2
    assert model.count(f'href="../../{name}"') == 2
    assert "Compared with <bdi>Pico LoRA</bdi>" in model


def test_without_models_of_one_base_there_is_no_page_and_no_link(
    two: list[Path], tmp_path: Path
) -> None:
    pipeline.make_site(two[:1], SMALL.model_copy(update={"out": str(tmp_path / "site")}))
    assert not (tmp_path / "site" / "compare").exists()
    for page in (tmp_path / "site").rglob("*.html"):
        assert "compare/" not in page.read_text("utf-8"), page


def test_a_group_that_is_gone_takes_its_page_along(two: list[Path], tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"out": str(tmp_path / "site")})
    pipeline.make_site(two, settings)
    assert page_of(tmp_path / "site").is_file()
    pipeline.make_site(two[:1], settings)
    assert not (tmp_path / "site" / "compare").exists()
    for page in (tmp_path / "site").rglob("*.html"):
        assert "compare/" not in page.read_text("utf-8"), page


def test_a_run_without_its_directions_is_named_on_the_page(
    staged: tuple[list[Path], Path],
) -> None:
    text = page_of(staged[1]).read_text("utf-8")
    assert "<bdi>Bare</bdi> has the same base, but is not compared" in text
    assert "has no directions.safetensors" in text


def test_bases_of_one_name_have_pages_of_their_own(
    tiny_folders: list[Path], tmp_path: Path
) -> None:
    runs = []
    for at in range(4):
        run = shutil.copytree(tiny_folders[at % 2], tmp_path / f"run{at}")
        with RunStore(run / "run.duckdb", read_only=False) as store:
            store.update_meta({"name": f"run{at}"})
        path = run / "directions.safetensors"
        base = ModelRef("pico/chat-base", "ef"[at // 2] * 40)
        save_directions(path, replace(load_directions(path), base=base))
        runs.append(run)
    pipeline.make_site(runs, SMALL.model_copy(update={"out": str(tmp_path / "site")}))
    assert len(list((tmp_path / "site" / "compare").iterdir())) == 2
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert home.count('href="compare/') == 2
    assert 'href="index.html#compare"' in home


def test_poles_that_point_the_same_way_stand_together(run_folders: list[Path]) -> None:
    (group,) = compare_runs(run_folders).groups
    runs = [_read(folder) for folder in group.runs]
    view = pair_view(group.pairs[0], *runs)
    turned = [row for row in view.matches if row.is_turned_round]
    straight = [row for row in view.matches if not row.is_turned_round]
    assert turned
    assert straight
    for row in turned:
        assert [(a.pole, b.pole) for a, b in row.poles] == [("max", "min"), ("min", "max")]
    for row in straight:
        assert [(a.pole, b.pole) for a, b in row.poles] == [("max", "max"), ("min", "min")]
    assert view.turned_round == len(turned)
    sizes = [abs(row.cosine) for row in view.matches]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= view.level


def test_directions_of_other_weights_are_counted_and_not_listed(
    run_folders: list[Path], tmp_path: Path
) -> None:
    runs = [shutil.copytree(folder, tmp_path / folder.name) for folder in run_folders]
    path = runs[1] / "directions.safetensors"
    found = load_directions(path)
    newer = tuple(
        replace(item, content_hash="0" * 16) if item.rank == 0 and item.kind == "delta" else item
        for item in found.directions
    )
    save_directions(path, replace(found, directions=newer))
    (group,) = compare_runs(runs).groups
    views = [_read(folder) for folder in group.runs]
    pair = pair_view(group.pairs[0], *views)
    assert pair.unknown == sum(item.kind == "delta" and item.rank == 0 for item in newer)
    assert len(pair.matches) < pair.total
    build = compare_runs(runs)
    build_site(runs, tmp_path / "site", SMALL, build.near, build.groups)
    text = page_of(tmp_path / "site").read_text("utf-8")
    assert f"{pair.unknown} directions are counted here and not listed" in text


def test_lines_show_every_stage_and_hold_what_their_steps_say(
    staged: tuple[list[Path], Path],
) -> None:
    (group,) = compare_runs(staged[0]).groups
    (line,) = group.lines
    runs = {folder: _read(folder) for folder in group.runs}
    view = line_view(group, line, runs)
    assert [run.name for run in view.runs] == ["sft", "dpo", "rl"]
    for row in view.steps:
        step = row.step
        count = step.kept + step.rotated + step.beside + len(step.vanished)
        assert count == len(step.pair.one.nearest)
        after = step.kept + step.rotated + step.beside_new + len(step.born)
        assert after == len(step.pair.two.nearest)
    assert view.rows
    assert all(sum(cell is not None for cell in row) > 1 for row in view.rows)
    text = page_of(staged[1]).read_text("utf-8")
    assert "as their recipes number them (model.stage)" in text
    assert "All are compared with one base" in text


def test_labels_shared_by_models_are_found_and_matched_directions_set_apart(
    run_folders: list[Path],
) -> None:
    (group,) = compare_runs(run_folders).groups
    runs = [_read(folder) for folder in group.runs]
    view = labels_of(group, runs)
    assert view.labelled
    for found in view.shared:
        assert len({said.run.name for said in found.said}) > 1
        assert 0.5 <= found.similarity <= 1
        assert not any(said.pole.doubt or said.item.is_control for said in found.said)
    none = labels_of(group, [replace(run, directions=()) for run in runs])
    assert (none.labelled, none.shared, none.total) == (0, (), 0)


def label(direction: str, text: str) -> Label:
    return Label(direction, "max", "by test", text)


def test_nearest_labels_across_models_equal_a_loop() -> None:
    words = ["red boats", "boats that are red", "blue birds", "blue", "winter", "red winter boats"]
    groups = [
        [label(f"a{at}", text) for at, text in enumerate(words)],
        [label(f"b{at}", text) for at, text in enumerate(reversed(words))],
        [],
    ]
    found = nearest_across(groups)
    assert found[0, 2][1].tolist() == [0.0] * 6
    assert found[2, 0][0].tolist() == []
    indices, sizes = found[0, 1]
    assert indices.tolist() == [5, 4, 3, 2, 1, 0]
    assert sizes == pytest.approx(np.ones(6), abs=1e-5)
    assert found[1, 0][0].tolist() == [5, 4, 3, 2, 1, 0]


def test_hostile_titles_and_labels_are_text(staged: tuple[list[Path], Path]) -> None:
    text = page_of(staged[1]).read_text("utf-8")
    assert "<script>window" not in text
    assert "&lt;script&gt;window.owned=1&lt;/script&gt;" in text
    assert "\u202e" not in text
    assert "U+202E" in text
    assert not re.search(r'\s(style|on\w+)="', text)


def test_the_chart_says_in_words_what_it_draws() -> None:
    drawn = nearest_chart([0.1, 0.2, 0.95], [0.1, 0.15], 0.3)
    assert "3 directions, 1 of them at 0.30 or more; of 2 controls 0" in drawn
    assert "outline" not in nearest_chart([0.5], [], 0.3)
    assert "class=area" not in nearest_chart([], [], 1.0)


def test_pages_do_not_depend_on_who_makes_them(run_folders: list[Path], tmp_path: Path) -> None:
    found = compare_runs(run_folders)
    for workers in (1, 2):
        out = tmp_path / str(workers)
        build_site(run_folders, out, SMALL, found.near, found.groups, workers=workers)
    left, right = (
        {p.relative_to(t): p.read_bytes() for p in t.rglob("*.html")}
        for t in (tmp_path / "1", tmp_path / "2")
    )
    assert left == right


def test_addresses_of_a_pair_are_the_same_from_either_side(run_folders: list[Path]) -> None:
    found = compare_runs(run_folders)
    runs = [_read(folder) for folder in run_folders]
    addresses = pair_addresses(named_groups(runs, found.groups))
    one, two = run_folders
    assert addresses[one, two] == addresses[two, one]
    assert set(addresses) == {(one, two), (two, one)}


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_screen_and_runs_nothing_from_outside(
    browser: Browser, staged: tuple[list[Path], Path], width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    opened = Opened(context.new_page())
    opened.watch()
    opened.page.goto(page_of(staged[1]).as_uri())
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.evaluate("window.owned") is None
    assert opened.faults == []
    assert _too_pale(opened.page) == []
    context.close()


@pytest.mark.browser
def test_cells_of_the_matrix_are_reached_by_keys_and_lead_to_their_pair(
    opened: Opened, staged: tuple[list[Path], Path]
) -> None:
    page = opened.page
    page.goto(page_of(staged[1]).as_uri())
    page.locator(".overlap td a").first.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("decodeURIComponent(location.hash)") == "#sft~dpo"
    heading = page.locator("[id='sft~dpo']")
    assert "Stage DPO" in heading.inner_text()
    page.wait_for_function(  # it may scroll there smoothly
        "(e) => { const {top} = e.getBoundingClientRect(); return top >= 0 && top < innerHeight; }",
        arg=heading.element_handle(),
    )


@pytest.mark.browser
def test_the_page_is_whole_without_scripts(
    browser: Browser, staged: tuple[list[Path], Path]
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_of(staged[1]).as_uri())
    assert page.locator(".matches tbody tr").count() > 2
    assert page.locator("svg.reach").count() == 6
    assert page.locator("svg.reach").first.get_attribute("aria-label")
    context.close()


_PALE = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const bright = ([r, g, b]) => {
    const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    return .2126 * f(r) + .7152 * f(g) + .0722 * f(b);
  };
  return [...document.querySelectorAll(".overlap td a")].filter(cell => {
    const style = getComputedStyle(cell);
    const [a, b] = [bright(parse(style.color)), bright(parse(style.backgroundColor))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
  }).map(cell => cell.textContent);
}"""


def _too_pale(page: Page) -> list[str]:
    """Cells of the matrix whose text does not stand out enough (WCAG AA)."""
    found: list[str] = page.evaluate(_PALE)
    return found


def _attributes(page: Path, name: str) -> list[str]:
    """The values that an attribute has on a page."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value for key, value in attrs if key == name and value)

    Reader().feed(page.read_text("utf-8"))
    return found


def _read(folder: Path) -> RunView:
    with RunStore(folder / "run.duckdb") as store:
        return read_run(folder, store)
