"""The index by token: the scripts say what the database holds, and the page shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from builder.pages import search_data
from builder.pages.peaks_view import PolePeaks, folded, peaking
from builder.pages.spans import brief, plain
from builder.pages.token_data import AT_LEAST, LISTED, commonest_tokens, token_scripts
from builder.pages.views import RunView
from builder.records import ANY_ROLE, POLES, Pole
from builder.store import RunStore
from tests.pages.conftest import SMALL, Opened, address

Peaks = dict[tuple[str, Pole], PolePeaks]


@pytest.fixture(scope="module")
def peaks(run_folders: list[Path]) -> Peaks:
    with RunStore(run_folders[0] / "run.duckdb") as store:
        return peaking(store.peaks(SMALL.examples))


def read(content: bytes) -> dict[str, Any]:
    """The data that a script hands over."""
    found: dict[str, Any] = json.loads(content.decode().partition(",")[2][: -len(");\n")])
    return found


def entries(table: list[list[int]], at: int) -> list[tuple[int, ...]]:
    """The entries of a token in one of the tables."""
    starts, *columns = table
    return list(zip(*(column[starts[at] : starts[at + 1]] for column in columns), strict=True))


@pytest.mark.parametrize(
    ("token", "key"),
    [(" Tide", "tide"), ("STRASSE", "strasse"), ("Straße", "strasse"), ("\n\n", "↵↵"), (" ", "␣"),
     ("\t", "⇥"), ("", ""), ("É", "é")],
)  # fmt: skip
def test_tokens_are_compared_without_case_and_surrounding_space(token: str, key: str) -> None:
    assert folded(token) == key


def test_peaks_are_counted_by_pole(run: RunView, peaks: Peaks) -> None:
    with RunStore(run.folder / "run.duckdb") as store:
        for item in run.directions[::5]:
            for pole in POLES:
                held = store.examples(item.row.id, pole=pole, role=ANY_ROLE)[: SMALL.examples]
                found = peaks[item.row.id, pole]
                assert found.n == len(held) == sum(one.n for one in found.tokens)
                extreme = max if pole == "max" else min
                assert extreme(one.value for one in found.tokens) == held[0].value
                assert [one.n for one in found.tokens] == sorted(
                    (one.n for one in found.tokens), reverse=True
                )


@pytest.mark.parametrize("size", [4, 1000])
def test_scripts_hold_every_peak_and_every_token_of_the_lens_once(
    run: RunView, peaks: Peaks, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_data, "PER_SCRIPT", size)
    held: dict[str, dict[str, set[tuple[int, ...]]]] = {"peaks": {}, "lens": {}}
    scripts = dict(token_scripts(run, peaks))
    assert len(scripts) == -(-len(run.directions) // size)
    for content in scripts.values():
        data = read(content)
        for name in held:
            for at, token in enumerate(data["tokens"].split("\n")):
                for row, *numbers in entries(data[name], at):
                    found = held[name].setdefault(token, set())
                    entry = (2 * data["first"] + row, *numbers)
                    assert entry not in found
                    found.add(entry)
    wanted: dict[str, dict[str, set[tuple[int, ...]]]] = {"peaks": {}, "lens": {}}
    for at, item in enumerate(run.directions):
        for row, pole in enumerate(POLES, 2 * at):
            for one in peaks[item.row.id, pole].tokens:
                entry = (row, one.n, round(1000 * one.value))
                wanted["peaks"].setdefault(shown(one.token), set()).add(entry)
            lens = item.row.promoted if pole == "max" else item.row.suppressed
            best = {folded(text): logit for text, logit in reversed(lens)}
            for token, logit in best.items():
                wanted["lens"].setdefault(shown(token), set()).add((row, round(100 * logit)))
    assert held == wanted


def shown(token: str) -> str:
    """A token as a line of a script."""
    return " ".join(plain(brief(token)).split())


def test_scripts_of_a_hostile_corpus_stay_data(hostile_site: Path) -> None:
    (path,) = (hostile_site / "data").glob("tokens*.js")
    text = path.read_text(encoding="utf-8")
    assert "<" not in text
    data = read(path.read_bytes())
    n = len(data["tokens"].split("\n"))
    assert len(data["peaks"][0]) == len(data["lens"][0]) == n + 1
    assert max(map(len, data["tokens"].split("\n"))) < 2000


def test_the_commonest_tokens_are_those_that_most_poles_peak_on(run: RunView, peaks: Peaks) -> None:
    found = commonest_tokens(run, peaks)
    counts: dict[str, int] = {}
    for item in run.own:
        for pole in POLES:
            for one in peaks[item.row.id, pole].tokens:
                if one.n >= AT_LEAST:
                    counts[one.token] = counts.get(one.token, 0) + 1
    assert {row.token: row.n for row in found}.items() <= counts.items()
    assert [row.n for row in found] == sorted(counts.values(), reverse=True)[:LISTED]
    for row in found:
        shares = [one.token.n / one.of for one in row.poles]
        assert shares == sorted(shares, reverse=True)


def open_tokens(page: Page, site: Path, query: str = "") -> None:
    """Opens the page of tokens and waits until all is loaded."""
    page.goto(address(site, f"tokens.html{query}"))
    page.wait_for_load_state("networkidle")
    expect(page.locator("#status")).not_to_contain_text("searching")


@pytest.mark.browser
def test_a_token_leads_to_the_poles_that_peak_on_it(
    opened: Opened, site: Path, run: RunView, peaks: Peaks
) -> None:
    page = opened.page
    token = "winte"
    open_tokens(page, site, "?q=WINTE")
    first = page.locator("#found > section").first
    expect(first.locator("h2")).to_have_text(token)
    wanted = set()
    for item in run.directions:
        for pole in POLES:
            wanted |= {
                (item.page, pole) for one in peaks[item.row.id, pole].tokens if one.token == token
            }
    assert wanted
    buttons = first.locator("button")
    while buttons.count():
        buttons.first.click()
    peaking_block = first.locator("div", has=page.locator("h3", has_text="peak")).first
    links = {
        str(link.get_attribute("href"))
        for link in peaking_block.locator("a").all()
        if "Pico Chat" in link.inner_text()
    }
    assert links == {f"{path}#{pole}" for path, pole in wanted}
    link = peaking_block.locator("a").first
    share = re.search(r"(\d+) of (\d+) examples", link.inner_text())
    assert share
    link.click()
    page.wait_for_url("**/m/**")
    assert opened.faults == []


@pytest.mark.browser
def test_tokens_are_found_by_how_they_begin_and_kept_in_the_address(
    opened: Opened, site: Path
) -> None:
    page = opened.page
    open_tokens(page, site)
    expect(page.locator("#commonest")).to_be_visible()
    page.locator("#q").fill("ren")
    expect(page.locator("#found h2").first).to_be_visible()
    assert all(text.startswith("ren") for text in page.locator("#found h2").all_inner_texts())
    assert page.url.endswith("tokens.html?q=ren")
    expect(page.locator("#commonest")).to_be_hidden()
    page.locator("#q").fill("no such token")
    expect(page.locator("#status")).to_contain_text("no pole peaks on a token that begins with")
    page.locator("#q").fill("")
    expect(page.locator("#commonest")).to_be_visible()
    assert page.url.endswith("tokens.html")
    assert opened.faults == []


@pytest.mark.browser
def test_hostile_tokens_stay_text(opened: Opened, hostile_site: Path) -> None:
    page = opened.page
    for query in ("<", "%3Cscript", "u", "w", "'", "{{"):
        open_tokens(page, hostile_site, f"?q={query}")
    assert page.evaluate("window.owned") is None
    assert opened.faults == []


@pytest.mark.browser
def test_the_commonest_tokens_read_without_script(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address(site, "tokens.html"))
    row = page.locator("#commonest tbody tr").first
    expect(row).to_be_visible()
    assert int(row.locator("td").first.inner_text()) > 0
    row.locator("a").first.click()
    page.wait_for_url("**/m/**")
    context.close()
