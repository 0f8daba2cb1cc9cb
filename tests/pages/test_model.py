"""A model's page: what stands out, the map, the lists, and how much is chance."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from bench.made_run import make_database
from builder.config import SiteSettings
from builder.pages.lists_view import LISTED, shift_list, source_list
from builder.pages.map_view import best_score, map_view
from builder.pages.model_view import model_page
from builder.pages.overview import Overview, overview
from builder.pages.render import Renderer
from builder.pages.saturation_view import saturation_view
from builder.pages.taught_view import taught
from builder.pages.views import RunView, read_run
from builder.store import RunStore
from tests.pages.conftest import SMALL, Opened

#: What a cell of the map takes, with its tooltip and accessible name.
BYTES_A_CELL = 260


@pytest.fixture(scope="module")
def view(run_folders: list[Path], run: RunView) -> Overview:
    with RunStore(run_folders[0] / "run.duckdb") as store:
        return overview(run, store, SMALL.examples)


@pytest.fixture(scope="module")
def with_base(run_folders: list[Path]) -> tuple[RunView, Overview]:
    with RunStore(run_folders[1] / "run.duckdb") as store:
        run = read_run(run_folders[1], store)
        return run, overview(run, store, SMALL.examples)


def page_text(run: RunView, view: Overview) -> str:
    page = Renderer(SiteSettings(title="atlas")).page(
        "model.html", run.page, **model_page(run, view)
    )
    return page.decode("utf-8")


def as_chance(run: RunView) -> RunView:
    """The same run with its directions and its random controls changed over."""
    own = {item.row.id for item in run.own}
    swapped = []
    for item in run.directions:
        place = item.row.hookpoint
        if item.row.id in own:
            row = dataclasses.replace(
                item.row, kind="control", hookpoint=dataclasses.replace(place, writer="random")
            )
        elif item.control == "random":
            row = dataclasses.replace(item.row, kind="delta")
        else:
            row = item.row
        swapped.append(dataclasses.replace(item, row=row))
    return dataclasses.replace(run, directions=tuple(swapped))


def test_what_stands_out_is_beyond_every_control(run: RunView, view: Overview) -> None:
    found = taught(run, view, 100)
    chance = {item.row.id for item in run.chance}
    trigger = max(v.value for (name, _), v in view.triggers.items() if name in chance)
    p_value = min((h.p_value for h in view.enriched if h.direction in chance), default=1.0)
    assert found.listed
    for one in found.listed:
        assert one.kinds
        assert one.trigger is None or one.trigger.value > trigger
        assert one.source is None or one.source.p_value < p_value
        assert one.label is None or not one.pole.doubt
    kinds = [one.kinds for one in found.listed]
    assert kinds == sorted(kinds, reverse=True)
    assert found.by_chance == found.poles / (found.controls + 1)


def test_poles_that_say_the_same_stand_once_and_are_counted(run: RunView, view: Overview) -> None:
    found = taught(run, view, 1000)
    sources = [one.source.source for one in found.listed if one.source]
    labels = [one.pole.text for one in found.listed if one.label]
    assert len(sources) == len(set(sources))
    assert len(labels) == len(set(labels))
    told = sum(1 + one.others for one in found.listed)
    assert max(found.triggers, found.sources) <= told
    assert told <= found.triggers + found.sources + found.labels


def test_random_directions_in_the_place_of_real_ones_do_not_stand_out(
    run: RunView, view: Overview
) -> None:
    swapped = as_chance(run)
    found = taught(swapped, view, 5)
    assert (found.triggers, found.sources, found.listed) == (0, 0, ())
    text = page_text(swapped, view)
    assert "On this corpus nothing stands out." in text
    assert "nothing in this model goes beyond chance" in text


def test_without_controls_the_page_says_that_nothing_says_what_chance_gives(
    run: RunView, view: Overview
) -> None:
    alone = dataclasses.replace(run, directions=run.own, control_scores={})
    assert taught(alone, view, 5).by_chance is None
    text = page_text(alone, view)
    assert text.count("nothing here says what chance gives") == 2


def test_every_measure_of_a_cell_is_that_of_its_direction(run: RunView, view: Overview) -> None:
    table = str(map_view(run, view).table)
    for item in run.directions:
        (cell,) = re.findall(rf'<td class="[^"]*"><a href={re.escape(item.name)}\.html.*?</a>',
                             table, re.DOTALL)  # fmt: skip
        values = dict(re.findall(r" data-([sefqt])=([^ >]+)", cell))
        score = best_score(item)
        assert ("f" in values) == (score is not None)
        if score:
            assert values["f"] == f"{score.score.f1:.2f}"
            assert bool(re.search(r"[\" ]f[1-7]", cell)) == (not score.doubt)
        assert ("s" in values) == (item.control not in ("random", "base"))
        likeness = [view.triggers[item.row.id, pole].value for pole in item.poles]
        assert values["t"] == f"{max(likeness):.2f}"
        labels = [pole.text for pole in item.poles.values() if pole.text]
        assert ("title=" in cell) == bool(labels)
        assert f"<b>{item.row.id}</b>" in cell


def test_the_map_of_many_labelled_and_scored_directions_is_small(tmp_path: Path) -> None:
    path = tmp_path / "run.duckdb"
    make_database(path, 120, top=4, texts=60)
    with RunStore(path) as store:
        run = read_run(tmp_path, store)
        table = str(map_view(run, overview(run, store, 4)).table)
    cells = re.findall(r'<td class="[^"]*"><a .*?</a>', table, re.DOTALL)
    assert len(cells) == 120
    assert sum(len(cell.encode()) for cell in cells) / len(cells) < BYTES_A_CELL


def test_sources_have_a_row_each_with_their_plainest_pole(run: RunView, view: Overview) -> None:
    found = source_list(run, view)
    assert found.rows
    names = [row.held.source for row in found.rows]
    assert len(names) == len(set(names)) <= LISTED
    own = {item.row.id for item in run.own}
    for row in found.rows:
        same = [h for h in view.enriched if h.source == row.held.source and h.direction in own]
        assert row.held.p_value == min(held.p_value for held in same)
        assert row.poles == len(same)
        assert row.fold == pytest.approx(row.share / row.corpus_share)


def test_shifts_are_listed_where_the_base_was_scanned_alone(
    run: RunView, view: Overview, with_base: tuple[RunView, Overview]
) -> None:
    assert shift_list(run).rows == ()
    assert 'id="shifts"' not in page_text(run, view)
    other, its_view = with_base
    found = shift_list(other)
    assert found.measured == len(other.own)
    outside = [row.shift.outside for row in found.rows]
    assert outside == sorted(outside, reverse=True)
    for row in found.rows:
        assert row.mean == pytest.approx(row.shift.mean / row.base.std)
        assert row.shift.outside == max(
            s.outside for s in row.item.shifts if s.role != "template" and s.n >= 100
        )
    assert 'id="shifts"' in page_text(other, its_view)


def test_saturation_counts_the_poles_of_directions_from_the_weights(
    run: RunView, view: Overview
) -> None:
    found = saturation_view(run, view)
    own = {item.row.id for item in run.own}
    gains = [one.gain for one in view.saturations if one.direction in own and one.gain is not None]
    assert found.known == len(gains)
    assert found.rising == sum(gain > 0.25 for gain in gains)
    assert found.gain is not None
    assert found.gain[0] <= found.gain[1] <= found.gain[2]
    assert str(found.chart).startswith("<svg")
    none = dataclasses.replace(view, saturations=())
    assert saturation_view(run, none).gain is None
    assert "too small to say" in page_text(run, none)


class _Elements(HTMLParser):
    """Counts what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = self.images = 0
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.images += tag == "img"
        self.attributes |= {name for name, _ in attrs}


def test_names_of_hostile_runs_stay_text(hostile_folder: Path) -> None:
    with RunStore(hostile_folder / "run.duckdb") as store:
        run = read_run(hostile_folder, store)
        text = page_text(run, overview(run, store, 20))
    assert "<script>window" not in text
    assert "\u202e" not in text
    found = _Elements()
    found.feed(text)
    assert found.scripts == 4
    assert not [name for name in found.attributes if name.startswith("on")]
    assert found.images == 1  # the mark of the site


def test_a_run_without_examples_and_labels_has_a_page(tmp_path: Path) -> None:
    path = tmp_path / "run.duckdb"
    make_database(path, 40, top=2, texts=40, scored=False)
    with RunStore(path, read_only=False) as store:
        store.forget_labels("example-8b")
        for table in ("examples", "sources", "saturation", "histograms", "ranges"):
            store._connection.execute(f"DELETE FROM {table}")
    with RunStore(path) as store:
        run = read_run(tmp_path, store)
        text = page_text(run, overview(run, store, 2))
    assert "No pole looks like a trigger" in text
    assert "No source is enriched" in text
    assert "by-trigger" not in text


def shown(cell: Locator) -> str:
    return str(cell.evaluate("(e) => getComputedStyle(e, '::before').content")).strip('"')


@pytest.mark.browser
def test_each_switch_shows_its_number_colour_and_legend_without_script(
    browser: Browser, site: Path, run: RunView, view: Overview
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.as_uri()}/{run.page}")
    measures = map_view(run, view).measures
    assert [one.key for one in measures] == ["sigma", "energy", "score", "source", "trigger"]
    item = run.own[len(run.own) // 2]
    cell = page.locator(f'.map a[href="{item.name}.html"]')
    colours = set()
    for measure in measures:
        page.locator(f"label[for=by-{measure.key}]").click()
        key = {"score": "f", "source": "q"}.get(measure.key, measure.key[0])
        number = cell.get_attribute(f"data-{key}") or "–"
        assert shown(cell) == number
        # What is seen is part of the name that is heard, with the place in the model.
        assert page.get_by_role("link", name=f"{number} {item.row.id}", exact=False).count() == 1
        expect(page.locator(f".legend.of-{measure.key}")).to_be_visible()
        assert page.locator(".legend:visible").count() == 1
        colours.add(cell.evaluate("(e) => getComputedStyle(e).backgroundColor"))
    assert len(colours) > 1
    context.close()


@pytest.mark.browser
def test_arrow_keys_go_from_cell_to_cell_and_tab_passes_the_map(
    opened: Opened, site: Path, run: RunView
) -> None:
    page = opened.page
    page.goto(f"{site.as_uri()}/{run.page}")
    at = "() => document.activeElement.getAttribute('href')"
    first = page.locator(".map td a").first
    first.focus()
    seen = [page.evaluate(at)]
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "Home"):
        page.keyboard.press(key)
        seen.append(page.evaluate(at))
    assert seen[:5] == [
        "l00.o_proj.u00.html", "l00.o_proj.u01.html", "l01.o_proj.u01.html",
        "l01.o_proj.u00.html", "l00.o_proj.u00.html",
    ]  # fmt: skip
    assert "shuffled" in seen[5]
    assert seen[6] == seen[0]
    assert page.locator(".map td a").first.evaluate("(e) => getComputedStyle(e).outlineStyle") == (
        "solid"
    )
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('.map') !== null")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(at) == seen[0]
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("L00.o_proj.u00")
    assert opened.faults == []


@pytest.mark.browser
def test_a_cell_says_all_that_is_known_of_it_under_the_pointer_and_on_focus(
    opened: Opened, site: Path, run: RunView, view: Overview
) -> None:
    page = opened.page
    page.goto(f"{site.as_uri()}/{run.page}")
    tip = page.locator(".tip")
    expect(tip).to_be_hidden()
    item = next(i for i in run.own if all(pole.text for pole in i.poles.values()))
    cell = page.locator(f'.map a[href="{item.name}.html"]')
    said = (cell.get_attribute("title") or "").split("\n")
    assert len(said) == 2
    cell.hover()
    expect(tip).to_be_visible()
    lines = tip.locator("p").all_inner_texts()
    assert lines[0] == item.row.id
    assert lines[-2:] == said
    numbers = dict(line.split("\n") for line in lines[1:-2])
    for measure in map_view(run, view).measures:
        assert numbers.pop(measure.name, None) == cell.get_attribute(f"data-{measure.letter}")
    assert numbers == {}
    assert tip.locator(".chosen").inner_text().startswith("singular value")
    assert cell.get_attribute("aria-describedby") == "tip"
    assert cell.get_attribute("title") is None, "the browser would show it as well"
    page.mouse.move(5, 5)
    expect(tip).to_be_hidden()

    page.locator("label[for=by-energy]").click()
    page.locator(".map td a").first.focus()
    page.keyboard.press("ArrowRight")
    expect(tip).to_be_visible()
    there = page.evaluate("document.activeElement.textContent")
    expect(tip.locator("p").first).to_have_text(there)
    assert tip.locator(".chosen").inner_text().startswith("energy")
    box, window = tip.bounding_box(), page.viewport_size
    assert box
    assert window
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= window["width"]
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(tip).to_be_visible()
    page.keyboard.press("Tab")
    expect(tip).to_be_hidden()
    assert opened.faults == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_of_the_page_is_wider_than_the_screen(
    browser: Browser, site: Path, with_base: tuple[RunView, Overview], width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    for path in (with_base[0].page, "index.html", "methods.html"):
        page.goto(f"{site.as_uri()}/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == width
    context.close()
