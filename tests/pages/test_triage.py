"""Triage: in order, by keys, kept, undone, exported, imported; and nothing of it runs or leaves."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from builder.config import SiteSettings
from builder.findings.bundle import import_findings
from builder.pages import build_site
from builder.pages.lists_view import trigger_list
from builder.pages.overview import overview
from builder.pages.triage_data import triage_script
from builder.pages.views import read_run
from builder.records import POLES
from builder.store import RunStore
from tests.pages.conftest import SMALL, Opened
from tests.pages.texts import HIDDEN, MARKUP_ATTACKS


def data_of(script: str) -> dict[str, Any]:
    """What a script of triage hands over."""
    found = re.fullmatch(r'WA\.triage\("[a-z0-9._-]+",(.*)\);\n', script, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_data_are_in_the_order_of_search(run_folders: list[Path]) -> None:
    with RunStore(run_folders[0] / "run.duckdb") as store:
        run = read_run(run_folders[0], store)
        data = data_of(triage_script(run, overview(run, store, SMALL.examples).triggers))
    assert data["hashes"].split("\n") == [item.row.content_hash for item in run.directions]
    assert len(data["triggers"]) == 2 * len(run.directions)


def test_the_page_shows_the_first_examples_of_each_pole(
    opened: Opened, site: Path, run_folders: list[Path]
) -> None:
    with RunStore(run_folders[0] / "run.duckdb") as store:
        run = read_run(run_folders[0], store)
        item = run.own[3]
        own = store.examples(item.row.id, role="any")
    page = opened.page
    page.goto(f"{site.as_uri()}/triage.html#{run.name}/{item.name}")
    for pole in POLES:
        entries = page.locator(f"#{pole}-examples li")
        expect(entries).to_have_count(3)
        examples = [example for example in own if example.pole == pole][:3]
        for entry, example in zip(entries.all(), examples, strict=True):
            assert f"#{example.window.doc_id}" in entry.inner_text()
            flat = example.window.text.replace("\n", " ↵ ")
            text = entry.locator(".t").text_content() or ""
            assert text.strip("…") in flat
            assert entry.locator("mark").text_content()
    assert opened.faults == []


def test_trigger_like_orders_as_the_list_on_the_page_of_the_model(run_folders: list[Path]) -> None:
    with RunStore(run_folders[0] / "run.duckdb") as store:
        run = read_run(run_folders[0], store)
        view = overview(run, store, SMALL.examples)
        data = data_of(triage_script(run, view.triggers))
    own = {item.row.id for item in run.own}
    best = {
        item.row.id: max((value for value in pair if value is not None), default=0)
        for item, pair in zip(run.directions, _pairs(data["triggers"]), strict=True)
        if item.row.id in own
    }
    assert best[trigger_list(run, view).rows[0].item.row.id] == max(best.values())


def _pairs(values: list[Any]) -> list[list[Any]]:
    return [values[at : at + 2] for at in range(0, len(values), 2)]


def test_no_script_of_triage_holds_a_hidden_character_or_ends_its_element(
    hostile_site: Path,
) -> None:
    text = (hostile_site / "data" / "triage-hostile.js").read_text(encoding="utf-8")
    assert "<" not in text
    for character in HIDDEN:
        if character != "\u200d":
            assert character not in text


def start(page: Page, address: str) -> None:
    """Opens triage and waits for its first direction."""
    page.goto(f"{address}triage.html")
    expect(page.locator("#title")).not_to_be_empty()


def of(site: Path) -> str:
    return f"{site.as_uri()}/"


def title(page: Page) -> str:
    return page.locator("#title").inner_text()


def entries(page: Page) -> list[dict[str, Any]]:
    """What the browser keeps."""
    kept = page.evaluate("localStorage.getItem('wa-triage:weightatlas')")
    found: list[dict[str, Any]] = json.loads(kept)["entries"] if kept else []
    return found


@pytest.mark.browser
@pytest.mark.parametrize("where", ["disk", "server"])
def test_the_page_loads_without_faults_and_asks_for_nothing_else(
    opened: Opened, site: Path, served: str, where: str
) -> None:
    address = of(site) if where == "disk" else served
    start(opened.page, address)
    opened.page.keyboard.press("j")
    opened.page.get_by_label("Model").select_option(label="all 2 models")
    expect(opened.page.locator("#place")).to_contain_text(" of ")
    assert opened.faults == []
    assert all(request.startswith(address) for request in opened.requests)


@pytest.mark.browser
def test_directions_come_in_the_order_and_of_the_models_asked_for(
    opened: Opened, site: Path
) -> None:
    page = opened.page
    start(page, of(site))
    page.keyboard.press("j")
    page.locator("[name=order]").select_option("sigma")
    expect(page.locator("#place")).to_contain_text("1 of ")
    seen = [title(page)]
    count = int(page.locator("#place").inner_text().split(" of ")[1])
    sigmas = []
    for _ in range(count):
        sigmas.append(float(page.locator("#sigma").inner_text().removeprefix("singular value ")))
        assert page.locator(".pole .label:not(.none)").count() > 0
        page.keyboard.press("j")
        seen.append(title(page))
    assert sigmas == sorted(sigmas, reverse=True)
    expect(page.locator("#status")).to_have_text("That was the last direction")
    page.keyboard.press("k")
    assert title(page) == seen[-3]
    page.get_by_label("labelled only").uncheck()
    more = int(page.locator("#place").inner_text().split(" of ")[1])
    assert more > count
    page.get_by_label("Model").select_option("pico-lora")
    expect(page.locator("#model")).to_have_text("Pico LoRA")
    page.get_by_label("Model").select_option("")
    expect(page.locator("#place")).to_contain_text(f"of {more * 2}")
    page.locator("[name=order]").select_option("score")
    assert page.locator(".pole .by").first.inner_text().startswith("F1")
    assert opened.faults == []


@pytest.mark.browser
def test_keys_judge_and_go_on_and_are_counted_kept_and_undone(opened: Opened, site: Path) -> None:
    page = opened.page
    start(page, of(site))
    first = title(page)
    page.keyboard.press("y")
    page.keyboard.press("2")
    assert title(page) == first
    assert page.locator("[data-verdict=finding]").get_attribute("aria-pressed") == "true"
    assert page.locator("[data-severity=high]").get_attribute("aria-pressed") == "true"
    expect(page.locator("#status")).to_contain_text(f"{first}: Finding, severity high")
    page.keyboard.press("j")
    second = title(page)
    page.keyboard.press("n")
    third = title(page)
    assert third != second
    expect(page.locator("#status")).to_have_text(f"{second}: Nothing. Next: {third}")
    page.keyboard.press("u")
    expect(page.locator("#tally")).to_contain_text("3 of ")
    expect(page.locator("#tally")).to_contain_text("1 finding, 1 nothing, 1 unsure")
    assert page.locator("#progress").evaluate("e => e.value") == 3
    assert {(e["id"], e["verdict"]) for e in entries(page)} == {
        (first, "finding"), (second, "nothing"), (third, "unsure"),
    }  # fmt: skip
    page.keyboard.press("z")
    assert title(page) == third
    page.keyboard.press("z")
    assert title(page) == second
    expect(page.locator("#tally")).to_contain_text("1 of ")
    page.reload()
    expect(page.locator("#tally")).to_contain_text("1 finding, 0 nothing, 0 unsure")
    # What is reviewed comes last now, but the address still names what was in view.
    assert title(page) == second
    page.goto("about:blank")
    start(page, of(site))
    assert title(page) != first
    assert opened.faults == []


@pytest.mark.browser
def test_keys_do_nothing_while_one_types(opened: Opened, site: Path) -> None:
    page = opened.page
    start(page, of(site))
    here = title(page)
    page.keyboard.press("y")
    for field in ("#note", "#claim", "#reviewer"):
        page.locator(field).focus()
        page.keyboard.type("jknyuz1234e?o")
        assert title(page) == here
        assert page.locator(field).input_value() == "jknyuz1234e?o"
    for select in ("model", "order"):
        page.locator(f"select[name={select}]").focus()
        page.keyboard.type("n2")
    assert not page.locator("#help").evaluate("e => e.open")
    page.locator("#title").focus()
    (entry,) = entries(page)
    assert (entry["verdict"], entry["severity"]) == ("finding", "medium")
    assert (entry["note"], entry["claim"]) == ("jknyuz1234e?o", "jknyuz1234e?o")
    for held in ("Control", "Alt", "Meta"):
        page.keyboard.press(f"{held}+n")
    assert entries(page)[0]["verdict"] == "finding"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    assert entries(page)[0]["verdict"] == "finding"
    assert opened.faults == []


@pytest.mark.browser
def test_a_note_is_reached_left_kept_and_undone_by_keys_alone(opened: Opened, site: Path) -> None:
    page = opened.page
    start(page, of(site))
    page.keyboard.press("e")
    page.keyboard.type("worth a look")
    page.keyboard.press("Escape")
    assert entries(page)[0]["note"] == "worth a look"
    page.keyboard.press("j")
    assert page.locator("#note").input_value() == ""
    page.keyboard.press("k")
    assert page.locator("#note").input_value() == "worth a look"
    page.keyboard.press("z")
    assert page.locator("#note").input_value() == ""
    assert entries(page) == []


@pytest.mark.browser
def test_every_control_is_reached_by_tab_and_shows_that_it_has_the_focus(
    opened: Opened, site: Path
) -> None:
    page = opened.page
    start(page, of(site))
    page.keyboard.press("y")
    page.locator("body").evaluate("() => document.activeElement.blur()")
    wanted = page.locator("main :is(button, input, select, textarea, a[href]):visible:enabled")
    names = wanted.evaluate_all("all => all.map((e, at) => (e.dataset.probe = at))")
    assert len(names) > 25
    seen, unlit = set(), []
    for _ in range(len(names) + 25):
        page.keyboard.press("Tab")
        probe, outline = page.evaluate(
            "((e) => [e.dataset.probe, getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        if probe is not None:
            seen.add(int(probe))
            if outline == "none":
                unlit.append(probe)
    assert seen == set(range(len(names)))
    assert unlit == []


@pytest.mark.browser
@pytest.mark.parametrize("where", ["disk", "server"])
def test_exported_findings_are_imported_and_rendered(
    opened: Opened, site: Path, served: str, run_folders: list[Path], tmp_path: Path, where: str
) -> None:
    page = opened.page
    start(page, of(site) if where == "disk" else served)
    first = title(page)
    claim = 'It says "no": \\ # {a: b} \u202e\u2028 \U0001f389'
    script = "<script>window.owned=1</script>"
    note = f"---\n=== finding: x.md ===\n\\=== finding: y.md ===\n{script}\n\n*so*"
    page.keyboard.press("1")
    page.locator("#claim").fill(claim)
    page.locator("#note").fill(note)
    page.locator("#max-examples .pin").first.click()
    pinned = page.locator("#max-examples .pin").first.get_attribute("data-pin")
    page.keyboard.press("j")
    second = title(page)
    page.keyboard.press("y")
    page.keyboard.press("j")
    page.keyboard.press("n")
    export = page.locator("#export-findings")
    expect(export).to_have_text("Export 2 findings")
    export.click()
    assert page.evaluate("document.activeElement.id") == "reviewer"
    page.keyboard.type('A. "Quoted" Reader')
    with page.expect_download() as download:
        export.click()
    assert re.fullmatch(r"findings-\d{4}-\d\d-\d\d\.txt", download.value.suggested_filename)
    done = import_findings(Path(download.value.path()), tmp_path / "findings")
    assert len(done.written) == 2
    settings = SMALL.model_copy(update={"findings": str(tmp_path / "findings")})
    build_site(run_folders, tmp_path / "again", settings)
    text = done.written[0].read_text(encoding="utf-8")
    assert text.rstrip("\n").endswith(note)
    pages = tmp_path / "again" / "findings"
    built = (pages / f"{done.written[0].stem}.html").read_text(encoding="utf-8")
    assert 'It says "no": \\ # {a: b} ' in unescape(built)
    assert 'A. "Quoted" Reader' in unescape(built)
    assert "&lt;script&gt;window.owned=1&lt;/script&gt;" in built
    assert "<em>so</em>" in built
    assert 'id="example-1" data-role' in built
    assert pinned
    assert f"#{pinned.partition('/')[2]}</span>" in built
    assert "Weights as cited" in built
    assert first in built
    other = (pages / f"{done.written[1].stem}.html").read_text(encoding="utf-8")
    assert f"{second} of pico-chat needs a closer look" in other
    assert opened.faults == []


def _another(browser: Browser, site: Path) -> Page:
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    start(page, of(site))
    return page


def _import(page: Page, folder: Path, content: str) -> str:
    path = folder / "import.json"
    path.write_text(content, encoding="utf-8")
    page.locator("#status").evaluate("e => { e.textContent = ''; }")
    page.locator("#import").set_input_files(path)
    expect(page.locator("#status")).not_to_be_empty()
    return page.locator("#status").inner_text()


@pytest.mark.browser
def test_verdicts_travel_to_another_browser_and_the_later_one_stays(
    opened: Opened, browser: Browser, site: Path, tmp_path: Path
) -> None:
    page = opened.page
    start(page, of(site))
    page.keyboard.press("n")
    page.keyboard.press("u")
    with page.expect_download() as download:
        page.locator("#export-verdicts").click()
    content = Path(download.value.path()).read_text(encoding="utf-8")
    other = _another(browser, site)
    assert _import(other, tmp_path, content) == "2 verdicts added, 0 older or equal ones left out"
    assert entries(other) == entries(page)
    expect(other.locator("#tally")).to_contain_text("1 nothing, 1 unsure")
    found = json.loads(content)
    found["entries"][0].update(verdict="finding", at="2000-01-01T00:00:00.000Z")
    found["entries"][1].update(verdict="finding", at="2100-01-01T00:00:00.000Z")
    said = _import(other, tmp_path, json.dumps(found))
    assert said == "1 verdicts added, 1 older or equal ones left out"
    assert [entry["verdict"] for entry in entries(other)][1] == "finding"
    other.context.close()
    assert opened.faults == []


@pytest.mark.browser
def test_what_is_imported_is_checked_entry_by_entry(
    opened: Opened, site: Path, tmp_path: Path
) -> None:
    page = opened.page
    start(page, of(site))
    right = {
        "run": "pico-chat", "id": title(page), "hash": "0" * 16, "verdict": "finding",
        "severity": "low", "claim": MARKUP_ATTACKS[0], "note": "", "pins": ["max/1"],
        "at": "2026-11-21T00:00:00Z",
    }  # fmt: skip
    wrong: list[Any] = [
        None, 7, [], {}, {**right, "run": "../x"}, {**right, "hash": "zz"}, {**right, "at": "soon"},
        {**right, "verdict": "guilty"}, {**right, "severity": 3}, {**right, "note": 1},
        {**right, "pins": ["max/1'"]}, {**right, "note": "x" * 20_001}, {**right, "pins": "max/1"},
    ]  # fmt: skip
    for content, said in [
        ("{", "not taken"), ("null", "no verdicts of triage"), ("[]", "no verdicts of triage"),
        ('{"kind": "weightatlas triage", "version": 2, "entries": []}', "its version is 2, not 1"),
        (json.dumps({"kind": "weightatlas triage", "version": 1, "site": "x",
                     "entries": [right, *wrong, {**right, "extra": 1, "hash": "1" * 16}]}),
         f"2 verdicts added, 0 older or equal ones left out, {len(wrong)} could not be read"),
    ]:  # fmt: skip
        assert said in _import(page, tmp_path, content)
    assert [sorted(entry) for entry in entries(page)] == [sorted(right)] * 2
    assert page.evaluate("window.owned") is None
    assert opened.faults == []


@pytest.mark.browser
@pytest.mark.parametrize("method", ["setItem", "getItem"])
def test_a_browser_that_keeps_nothing_says_so_and_the_page_works(
    opened: Opened, site: Path, method: str
) -> None:
    page = opened.page
    page.add_init_script(f"Storage.prototype.{method} = () => {{ throw new Error('refused'); }};")
    start(page, of(site))
    page.keyboard.press("n")
    expect(page.locator("#tally")).to_contain_text("1 nothing")
    expect(page.get_by_role("alert")).to_contain_text("export before you leave")
    with page.expect_download() as download:
        page.locator("#export-verdicts").click()
    assert json.loads(Path(download.value.path()).read_text("utf-8"))["entries"]


@pytest.mark.browser
def test_damaged_storage_is_set_aside_and_said(opened: Opened, site: Path) -> None:
    page = opened.page
    start(page, of(site))
    page.evaluate("localStorage.setItem('wa-triage:weightatlas', '{half')")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("could not be read")
    page.keyboard.press("n")
    assert len(entries(page)) == 1
    assert page.evaluate("localStorage.getItem('wa-triage:weightatlas:damaged')") == "{half"


@pytest.mark.browser
def test_verdicts_belong_to_the_title_and_hash_and_outlast_a_new_rendering(
    opened: Opened, tiny_folders: list[Path], tmp_path: Path
) -> None:
    page = opened.page
    build_site(tiny_folders, tmp_path / "one", SMALL)
    build_site(tiny_folders[:1], tmp_path / "two", SMALL)
    build_site(tiny_folders[:1], tmp_path / "other", SiteSettings(title="Another", examples=2))
    start(page, of(tmp_path / "one"))
    first = title(page)
    page.keyboard.press("n")
    start(page, of(tmp_path / "two"))
    expect(page.locator("#tally")).to_contain_text("1 nothing")
    assert title(page) != first
    start(page, of(tmp_path / "other"))
    expect(page.locator("#tally")).to_contain_text("0 nothing")


@pytest.mark.browser
def test_another_tab_neither_loses_nor_hides_a_verdict(opened: Opened, site: Path) -> None:
    page, other = opened.page, opened.page.context.new_page()
    start(page, of(site))
    start(other, of(site))
    page.keyboard.press("n")
    expect(other.locator("#tally")).to_contain_text("1 nothing")
    other.keyboard.press("j")
    other.keyboard.press("u")
    expect(page.locator("#tally")).to_contain_text("1 nothing, 1 unsure")
    assert len(entries(page)) == 2


@pytest.mark.browser
def test_without_script_the_page_says_so_and_links_to_the_list(
    browser: Browser, site: Path
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{of(site)}triage.html")
    assert "Triage needs JavaScript" in page.locator("main").inner_text()
    page.get_by_role("link", name="All labels stand on one page").click()
    expect(page.locator("h1")).to_have_text("All labels")
    context.close()


@pytest.mark.browser
def test_hostile_texts_are_shown_and_do_not_run(opened: Opened, hostile_site: Path) -> None:
    page = opened.page
    start(page, of(hostile_site))
    page.get_by_label("labelled only").uncheck()
    page.set_viewport_size({"width": 360, "height": 700})
    count = int(page.locator("#place").inner_text().split(" of ")[1])
    for _ in range(count):
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.keyboard.press("j")
    assert page.evaluate("window.owned") is None
    assert opened.faults == []


@pytest.mark.browser
def test_an_address_names_a_direction_even_one_without_a_label(
    opened: Opened, site: Path, run_folders: list[Path]
) -> None:
    with RunStore(run_folders[1] / "run.duckdb") as store:
        item = read_run(run_folders[1], store).own[-1]
    page = opened.page
    page.goto(f"{of(site)}triage.html#pico-lora/{item.name}")
    expect(page.locator("#title")).to_have_text(item.row.id)
    expect(page.locator("#model")).to_have_text("Pico LoRA")
    page.keyboard.press("o")
    page.wait_for_url(f"**/{item.page}")
    page.go_back()
    expect(page.locator("#title")).to_have_text(item.row.id)
    page.goto("about:blank")
    page.goto(f"{of(site)}triage.html#nothing/of-this")
    expect(page.locator("#title")).not_to_be_empty()
    assert opened.faults == []
