"""Every token of a direction's texts has its value, by pointer and by keyboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from builder.pages.views import RunView, read_run
from builder.store import RunStore
from tests.pages.conftest import Opened, address, filled
from tests.pages.drawn import Drawn, examples_of, random_of
from tests.pages.packing import Packed, random_texts, script_of, seen

ALONE, BASED = "m/pico-chat/l02.o_proj.u00.html", "m/pico-lora/l01.o_proj.u00.html"

#: What the tooltip says at every token of a text, whether it is coloured or not.
HOVERED = """(text) => [...text.querySelectorAll("i")].map((token) => {
    token.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
    const tip = document.querySelector(".tip");
    return tip.hidden ? null : {
        token: token.textContent, coloured: /[pn][1-7]/.test(token.className),
        head: tip.querySelector("p").textContent,
        rows: [...tip.querySelectorAll("p")].slice(1).map((row) => row.innerText),
        at: tip.querySelector("svg .at")?.getAttribute("transform") ?? null,
    };
})"""


@pytest.fixture(scope="module")
def runs(run_folders: list[Path]) -> dict[str, RunView]:
    """The runs of the site by name."""
    found = {}
    for folder in run_folders:
        with RunStore(folder / "run.duckdb") as store:
            run = read_run(folder, store)
            found[run.name] = run
    return found


def script_at(site: Path, runs: dict[str, RunView], name: str) -> Packed:
    run = runs[name.split("/")[1]]
    return script_of(site, next(item for item in run.directions if item.page == name))


def assert_told(found: list[dict[str, Any] | None], text: Drawn, script: Packed) -> set[bool]:
    """That every token has the values it is to have; whether coloured and plain ones were met."""
    low, high = script.header["span"]
    digits = 3 if high - low < 0.5 else 2
    met = set()
    assert len(found) == len(text.shown())
    for told, (piece, first, n) in zip(found, text.shown(), strict=True):
        assert told is not None, piece
        met.add(told["coloured"])
        shows = ("tuned", "base", "difference") if text.base is not None else ("tuned",)
        names = shows if len(shows) > 1 else ("activation",)
        assert len(told["rows"]) == len(shows)
        for name, show, row in zip(names, shows, told["rows"], strict=True):
            said = row.removeprefix(name).strip().split(", ")
            values = text.of(show)[first : first + n]
            assert len(said) == n
            for number, value in zip(said, values, strict=True):
                written = float(number.replace("\N{MINUS SIGN}", "-"))
                assert written == pytest.approx(value, abs=0.51 * 10**-digits + 1e-6)
                assert re.fullmatch(rf"[+\N{{MINUS SIGN}}]?0\.\d{{{digits}}}", number)
        shown = re.sub("^ | $", "␣", seen(piece).replace("\n", "↵"))
        assert told["head"].startswith(shown)
        if text.anchor:
            assert told["head"] == shown + text.roles[first]
    return met


@pytest.mark.parametrize("name", [ALONE, BASED])
def test_every_token_tells_its_value_whether_coloured_or_not(
    opened: Opened, site: Path, runs: dict[str, RunView], name: str
) -> None:
    page, script = opened.page, script_at(site, runs, name)
    page.goto(address(site, name))
    filled(page)
    met: set[bool] = set()
    examples = examples_of(script)
    for example in examples:
        found = page.locator(f"#{example.anchor} .t").evaluate(HOVERED)
        met |= assert_told(found, example, script)
    assert met == {True, False}
    page.locator("[data-between] summary").click()
    texts = page.locator("[data-between] .t")
    wanted = random_of(script, random_texts(site, name.split("/")[1]))
    expect(texts).to_have_count(len(wanted))
    for at, text in enumerate(wanted):
        assert_told(texts.nth(at).evaluate(HOVERED), text, script)
    assert opened.faults == []


def test_the_values_of_a_text_stay_whatever_it_is_coloured_by(
    opened: Opened, site: Path, runs: dict[str, RunView]
) -> None:
    page, script = opened.page, script_at(site, runs, BASED)
    page.goto(address(site, f"{BASED}?show=base"))
    filled(page)
    example = examples_of(script)[0]
    met = assert_told(page.locator(f"#{example.anchor} .t").evaluate(HOVERED), example, script)
    assert met <= {True, False}
    assert opened.faults == []


def test_a_value_shows_on_hover_and_marks_the_histogram(opened: Opened, site: Path) -> None:
    page = opened.page
    page.goto(address(site, ALONE))
    filled(page)
    example = page.locator("#max .example.any").first
    peak, value = example.locator("i.k"), example.locator(".value").inner_text()
    peak.hover()
    tip = page.locator(".tip")
    expect(tip).to_be_visible()
    # Values come in 255 steps over the page's activations.
    low, high = page.evaluate("WA.state.page.header.span")
    number = re.search(r"activation\s+([+\N{MINUS SIGN}]0\.\d+)", tip.inner_text())
    assert number is not None
    told = float(number[1].replace("\N{MINUS SIGN}", "-"))
    stated = float(value.replace("\N{MINUS SIGN}", "-"))
    assert told == pytest.approx(stated, abs=(high - low) / 510 + 0.0051)
    assert peak.inner_text().strip() in tip.inner_text()
    role = example.get_attribute("data-role") or "?"
    assert role in tip.inner_text()
    chart = page.locator(f'.chart[data-of="{role}"] svg')
    moved = re.fullmatch(
        r"translate\((\S+) 0\)", chart.locator(".at").get_attribute("transform") or ""
    )
    assert moved is not None
    ends = [float(chart.get_attribute(f"data-{end}") or "nan") for end in ("low", "high")]
    place = 560 * (stated - ends[0]) / (ends[1] - ends[0])
    assert float(moved[1]) - 9 == pytest.approx(min(560, max(0, place)), abs=6)
    page.mouse.move(2, 2)
    expect(tip).to_be_hidden()
    assert chart.locator(".at").get_attribute("transform") is None
    assert opened.faults == []


def focus_text(page: Page, site: Path) -> str:
    """Goes by keyboard to the first text; gives what the tooltip says."""
    page.goto(address(site, ALONE))
    filled(page)
    text = page.locator("#max .example.any .t").first
    page.locator("#max .example.any .value").first.focus()
    page.keyboard.press("Tab")
    expect(text).to_be_focused()
    expect(page.locator(".tip")).to_be_visible()
    return page.locator(".tip").inner_text()


def test_values_can_be_read_with_the_keyboard(opened: Opened, site: Path) -> None:
    page = opened.page
    first = focus_text(page, site)
    tip, here = page.locator(".tip"), page.locator("#max .example.any i.here").first
    assert "k" in (here.get_attribute("class") or "").split(), "it begins at the peak"
    page.keyboard.press("ArrowRight")
    second = tip.inner_text()
    assert second != first
    page.keyboard.press("ArrowLeft")
    assert tip.inner_text() == first
    # Token after token, to the end and no farther.
    tokens = page.locator("#max .example.any .t").first.locator("i")
    for _ in range(tokens.count()):
        page.keyboard.press("ArrowRight")
    assert "here" in (tokens.last.get_attribute("class") or "").split()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    assert page.url.endswith(ALONE)
    assert opened.faults == []
