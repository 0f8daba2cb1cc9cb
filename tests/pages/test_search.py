"""The search page in Chromium: what it finds, counts, loads and keeps in the address."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from builder.assets import asset_dir
from builder.config import SiteSettings
from builder.pages import search_data
from builder.pages.peaks_view import peaking
from builder.pages.render import Renderer
from builder.pages.search_data import search_page, search_scripts
from builder.pages.similar_view import SimilarLabels
from builder.pages.views import DirectionView, RunView, read_run
from builder.records import CONTROLS, POLES, Pole
from builder.store import RunStore
from tests.pages.conftest import Opened, address, ready

pytestmark = pytest.mark.browser

IDS = "#results .meta > code:first-of-type"


@pytest.mark.parametrize(
    ("query", "label"),
    [
        ("winterberry", "winterberry"),
        ("winterbery", "winterberry"),
        ("wintreberry", "winterberry"),
        ("image generator", "prompts for an image generator"),
        ("generator imag", "prompts for an image generator"),
        ("octan", "octane|image generator"),
        ("поезд", "поезд|Russian"),
        ("月", "月|moon"),
        ("🎉", "🎉|emoji"),
    ],
)
def test_search_finds_a_label_and_its_first_result_opens_the_direction(
    opened: Opened, site: Path, query: str, label: str
) -> None:
    page = opened.page
    page.goto(address(site, "index.html"))
    page.keyboard.press("/")
    page.keyboard.type(query)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    ready(page)
    first = page.locator("#results li a").first
    assert re.search(label, first.inner_text())
    said, wanted = (
        first.locator(".said").inner_text(),
        first.locator(".meta > code").first.inner_text(),
    )
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/m/"))
    expect(page.locator("h1")).to_have_text(wanted)
    expect(page.locator(page.url[page.url.index("#") :] + " h2")).to_have_text(said)
    assert opened.faults == []


def test_search_is_narrowed_counted_and_kept_in_the_address(opened: Opened, site: Path) -> None:
    page = opened.page
    page.goto(address(site, "search.html"))
    ready(page)
    whole = page.locator("#status").inner_text()
    page.get_by_label("Pico LoRA").uncheck()
    page.get_by_label("▼ min").uncheck()
    page.locator("input[name=low]").fill("3")
    expect(page).to_have_url(re.compile("low=3"))
    ids = page.locator(IDS).all_inner_texts()
    assert ids
    assert all(text.startswith("L03") for text in ids)
    assert page.locator("#results .sign").all_inner_texts() == ["▲ max"] * len(ids)
    assert "control: random" not in page.locator("#results").inner_text()
    assert page.locator("#status").inner_text() != whole
    kept = page.url
    page.goto("about:blank")
    page.goto(kept)
    ready(page)
    assert page.locator(IDS).all_inner_texts() == ids
    assert not page.get_by_label("Pico LoRA").is_checked()


def test_controls_are_found_only_when_asked_for(opened: Opened, site: Path) -> None:
    page = opened.page
    page.goto(address(site, "search.html?q=random"))
    ready(page)
    assert page.locator("#results li").count() == 0
    page.get_by_label("labelled only").uncheck()
    page.get_by_label("control: random").check()
    expect(page.locator("#results li").first).to_be_visible()
    assert "control: random" in page.locator("#results li").first.inner_text()


def test_what_is_outside_of_what_is_chosen_is_counted_and_a_button_away(
    opened: Opened, site: Path
) -> None:
    page = opened.page
    page.goto(address(site, "search.html?q=winterberry&low=90&pole=max"))
    ready(page)
    status, button = page.locator("#status"), page.get_by_role("button", name="Look everywhere")
    outside = re.fullmatch(
        r"0 poles found · (\d+) outside of what is chosen to narrow down", status.inner_text()
    )
    assert outside
    button.click()
    expect(status).to_have_text(f"{outside[1]} pole{'' if outside[1] == '1' else 's'} found")
    expect(page.locator("#results a").first).to_be_focused()
    expect(button).to_be_hidden()
    for name in ("low", "high", "least", "most"):
        assert page.locator(f"input[name={name}]").input_value() == ""
    assert all(box.is_checked() for box in page.get_by_label("control: ").all())
    page.locator("#q").fill("nosuchword")
    expect(status).to_have_text("0 poles found")
    expect(button).to_be_hidden()


def test_a_word_may_name_a_model(opened: Opened, site: Path) -> None:
    page = opened.page
    page.goto(address(site, "search.html?q=winterberry"))
    ready(page)
    models = page.locator("#results .meta > bdi")
    assert len(set(models.all_inner_texts())) > 1
    for query in ("lora", "pico LoRA", "LORA winterberry"):
        page.locator("#q").fill(query)
        expect(page).to_have_url(re.compile(f"q={query.replace(' ', '[+]')}$"))
        assert "“lora” for the model Pico LoRA" in page.locator("#status").inner_text()
        assert set(models.all_inner_texts()) == {"Pico LoRA"}
    assert page.locator("#results mark").all_inner_texts()
    # Who names two wants both.
    page.locator("#q").fill("lora chat winterberry")
    expect(page).to_have_url(re.compile(r"q=lora\+chat"))
    assert set(models.all_inner_texts()) == {"Pico LoRA", "Pico Chat"}


@pytest.mark.parametrize("query", ["low=abc", "low=1e400&high=-3", "low=%20&high=0x1"])
def test_layers_in_an_address_that_are_no_numbers_are_ignored(
    opened: Opened, site: Path, query: str
) -> None:
    page = opened.page
    page.goto(address(site, "search.html"))
    ready(page)
    whole = page.locator("#status").inner_text()
    page.goto("about:blank")
    page.goto(address(site, f"search.html?{query}"))
    ready(page)
    assert page.locator("#status").inner_text() == whole
    assert page.url == address(site, "search.html")
    assert opened.faults == []


def write_pages(folder: Path, runs: list[RunView]) -> Path:
    """The search page of these runs, without the pages that it leads to."""
    (folder / "data").mkdir(parents=True)
    shutil.copytree(asset_dir() / "static", folder / "static")
    for run in runs:
        with RunStore(run.folder / "run.duckdb") as store:
            alike, peaks = SimilarLabels(run, store).places(), peaking(store.peaks(6))
        for path, content in search_scripts(run, alike, peaks):
            (folder / path).write_bytes(content)
    page = Renderer(SiteSettings(title="test")).page(
        "search.html", "search.html", **search_page(runs)
    )
    (folder / "search.html").write_bytes(page)
    return folder


@pytest.fixture(scope="module")
def runs(run_folders: list[Path]) -> list[RunView]:
    found = []
    for folder in run_folders:
        with RunStore(folder / "run.duckdb") as store:
            found.append(read_run(folder, store))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, runs: list[RunView]) -> Path:
    """The search page with one script for each run."""
    return write_pages(tmp_path_factory.mktemp("whole") / "site", runs)


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory, runs: list[RunView]) -> Iterator[Path]:
    """The same with scripts of seven directions each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_data, "PER_SCRIPT", 7)
        yield write_pages(tmp_path_factory.mktemp("parted") / "site", runs)


def shown(page: Page) -> list[str]:
    """What the results say, all of them."""
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    return page.locator("#results a").all_inner_texts()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "q=render",
        "q=wintreberry",
        "q=image+prompt&kind=weights&kind=random",
        "sort=score&labelled=0",
    ],
)
def test_several_scripts_of_a_model_answer_as_one(
    opened: Opened, whole: Path, parted: Path, query: str
) -> None:
    page, found = opened.page, []
    for site in (whole, parted):
        page.goto(address(site, f"search.html?{query}"))
        ready(page)
        counts = page.locator("#facets .count").all_inner_texts()
        found.append((page.locator("#status").inner_text(), counts, shown(page)))
    assert len(list((parted / "data").iterdir())) > 6
    assert found[0] == found[1]
    assert found[0][2]
    assert opened.faults == []


def test_labels_alike_are_found_in_other_scripts_of_their_model(
    opened: Opened, whole: Path, parted: Path
) -> None:
    page, found = opened.page, []
    for site in (whole, parted):
        kinds = "&".join(f"kind={kind}" for kind in ("weights", *CONTROLS))
        page.goto(address(site, f"search.html?q=prompts+image&{kinds}"))
        ready(page)
        first = page.locator("#results li").first
        n = int(first.locator(".like").inner_text().split()[0])
        first.locator(".like").click()
        # Itself is the first.
        expect(page.locator("#results li")).to_have_count(n + 1)
        found.append(page.locator("#results a").all_inner_texts())
        kept = page.url
        assert "like=" in kept
        page.goto("about:blank")
        page.goto(kept)
        ready(page)
        assert page.locator("#results a").all_inner_texts() == found[-1]
    assert found[0] == found[1]


def facets_of(run: RunView, item: DirectionView, pole: Pole) -> dict[str, Any]:
    """A row as facets see it."""
    view = item.poles[pole]
    f1 = view.score.score.f1 if view.score else None
    return {
        "model": run.name, "pole": pole, "layer": item.row.hookpoint.layer,
        "writer": None if item.is_control else item.row.hookpoint.writer,
        "kind": item.control or "weights", "labelled": bool(view.text),
        "score": None if f1 is None else float(f"{f1:.2f}"),
    }  # fmt: skip


def test_each_facet_counts_what_the_others_leave(
    opened: Opened, whole: Path, runs: list[RunView]
) -> None:
    page = opened.page
    chosen = "model=pico-chat&model=pico-lora&pole=max&writer=o_proj&kind=weights&kind=random"
    page.goto(address(whole, f"search.html?{chosen}&low=1&high=2&least=0.10&most=.95"))
    ready(page)
    passes: dict[str, Callable[[dict[str, Any]], bool]] = {
        "model": lambda row: True,
        "pole": lambda row: row["pole"] == "max",
        "writer": lambda row: row["writer"] in {None, "o_proj"},
        "layer": lambda row: 1 <= row["layer"] <= 2,
        "kind": lambda row: row["kind"] in {"weights", "random"},
        "score": lambda row: row["score"] is not None and 0.1 <= row["score"] <= 0.95,
        "labelled": lambda row: row["labelled"],
    }
    rows = [facets_of(run, item, pole) for run in runs for item in run.directions for pole in POLES]

    def left(name: str) -> list[dict[str, Any]]:
        others = [test for other, test in passes.items() if other != name]
        return [row for row in rows if all(test(row) for test in others)]

    found = sum(all(test(row) for test in passes.values()) for row in rows)
    assert 0 < found < len(rows)
    assert page.locator("#status").inner_text().startswith(f"{found} pole")
    for name in ("model", "pole", "writer", "kind"):
        some = 0
        for field in page.locator(f"#facets input[name={name}]").all():
            n = sum(row[name] == field.get_attribute("value") for row in left(name))
            assert field.locator("xpath=..").locator(".count").inner_text() == str(n), name
            some += n
        assert some > 0
    labelled = page.locator("#facets label", has_text="labelled only").locator(".count")
    assert labelled.inner_text() == str(sum(row["labelled"] for row in left("labelled")))
    scored = sum(row["score"] is not None for row in left("score"))
    assert page.locator("#scored").inner_text() == str(scored)
    assert scored > found


def test_all_that_is_asked_for_stands_in_the_address_and_comes_back(
    opened: Opened, whole: Path
) -> None:
    page = opened.page
    page.goto(address(whole, "search.html"))
    ready(page)
    assert page.url == address(whole, "search.html")
    page.locator("#q").fill("café & 50% #1")
    page.locator("#q").fill("e")
    for name, value in (("low", "0"), ("high", "3"), ("least", "0.05"), ("most", "1")):
        page.locator(f"input[name={name}]").fill(value)
    page.locator("input[name=writer][value=down_proj]").uncheck()
    page.locator("input[name=kind][value=base]").check()
    page.locator("input[name=labelled]").uncheck()
    page.locator("input[name=sort][value=score]").check()
    expect(page).to_have_url(re.compile("sort=score"))
    expect(page).to_have_url(re.compile("labelled=0"))
    form = """[...document.querySelectorAll("input")].map((input) =>
        ["search", "number"].includes(input.type) ? input.value : input.checked)"""
    before, results, kept = page.evaluate(form), shown(page), page.url
    assert results
    page.goto("about:blank")
    page.goto(kept)
    ready(page)
    assert page.evaluate(form) == before
    assert shown(page) == results
    assert page.url == kept


@pytest.mark.parametrize("text", ["café & 50% #1?", "a+b=c", "\U0001f389 \u6708", "<b>", "%"])
def test_any_text_survives_the_address(opened: Opened, whole: Path, text: str) -> None:
    page = opened.page
    page.goto(address(whole, "search.html"))
    ready(page)
    page.locator("#q").fill(text)
    expect(page).to_have_url(re.compile("q="))
    kept = page.url
    page.goto("about:blank")
    page.goto(kept)
    ready(page)
    assert page.locator("#q").input_value() == text
    assert opened.faults == []


def test_only_scores_within_the_bounds_are_found(opened: Opened, whole: Path) -> None:
    page = opened.page
    page.goto(address(whole, "search.html"))
    ready(page)
    every = [re.search(r"F1 (\d\.\d\d)", text) for text in shown(page)]
    scores = sorted(float(match[1]) for match in every if match)
    low, high = scores[len(scores) // 4], scores[3 * len(scores) // 4]
    page.goto(address(whole, f"search.html?least={low}&most={high}&sort=score"))
    ready(page)
    found = [re.search(r"F1 (\d\.\d\d)", text) for text in shown(page)]
    values = [float(match[1]) for match in found if match]
    assert len(values) == len(found)
    assert values == sorted((score for score in scores if low <= score <= high), reverse=True)


@pytest.mark.parametrize(
    ("query", "marked"),
    [("winterbery", "winterberry"), ("WINTER", "winter"), ("page prompts", "prompts")],
)
def test_what_was_found_is_marked(opened: Opened, whole: Path, query: str, marked: str) -> None:
    page = opened.page
    page.goto(address(whole, f"search.html?q={query.split()[-1]}"))
    ready(page)
    texts = page.locator("#results .said mark").all_inner_texts()
    assert texts
    assert set(texts) == {marked}


@pytest.mark.parametrize("fault", ["missing", "cut off"])
def test_a_script_that_fails_is_named_and_the_others_are_searched(
    opened: Opened, parted: Path, tmp_path: Path, fault: str
) -> None:
    site = Path(shutil.copytree(parted, tmp_path / "site"))
    script = site / "data" / "search2-pico-chat.js"
    text = script.read_text(encoding="utf-8")
    if fault == "missing":
        script.unlink()
    else:
        script.write_text(text[: len(text) // 2], encoding="utf-8")
    page = opened.page
    page.goto(address(site, "search.html?labelled=0"))
    ready(page)
    status = page.locator("#status").inner_text()
    parts = len(list((parted / "data").glob("search*-pico-chat.js")))
    assert f"could not load: Pico Chat, part 2 of {parts}" in status
    data = json.loads(text[len('WA.add("pico-chat",') : -len(");\n")])
    lost, found = set(data["ids"].split("\n")), shown(page)
    held = [text for text in found if "Pico Chat" in text]
    assert held
    assert not [text for text in held if any(f"\n{name}\n" in text for name in lost)]


def test_results_come_before_all_is_loaded_and_say_so(opened: Opened, parted: Path) -> None:
    page = opened.page
    held: list[Route] = []
    page.route("**/search3-pico-lora.js", lambda route: held.append(route))
    page.goto(
        address(parted, "search.html?q=prompts&model=pico-lora&model=pico-chat"),
        wait_until="commit",
    )
    status = page.locator("#status")
    expect(status).to_contain_text("searching 1 of 2 models")
    assert page.locator("#results li").count() > 0
    held[0].continue_()
    expect(status).not_to_contain_text("searching")


def test_models_that_the_address_asks_for_are_loaded_first(opened: Opened, parted: Path) -> None:
    page = opened.page
    page.goto(address(parted, "search.html?model=pico-lora"))
    ready(page)
    scripts = [Path(request).name for request in opened.requests if "/data/" in request]
    names = [re.sub(r"^search\d*-|\.js$", "", name) for name in scripts]
    assert names == sorted(names, key="pico-lora".__ne__)
    assert len(set(names)) == 2


def test_poles_that_peak_on_the_word_are_counted_and_lead_to_the_token(
    opened: Opened, site: Path
) -> None:
    page = opened.page
    page.goto(address(site, "search.html?q=winte"))
    ready(page)
    link = page.locator("#tokens a")
    said = link.inner_text()
    (n,) = re.findall(r"^(\d+) poles? peaks? mostly on \u201cwinte\u201d", said) or ["0"]
    data = [json.loads(path.read_text("utf-8").partition(",")[2][: -len(");\n")])
            for path in (site / "data").glob("search-*.js")]  # fmt: skip
    assert int(n) == sum(one["peaks"].split("\n").count("winte") for one in data) > 0
    link.click()
    page.wait_for_url("**/tokens.html?q=winte")
    expect(page.locator("#found h2").first).to_have_text("winte")
    assert opened.faults == []
