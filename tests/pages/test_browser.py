"""The pages in a real Chromium: they load, search, switch, and run nothing of the corpus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.pages.conftest import Opened, address, ready
from tests.pages.texts import HIDDEN

DIRECTION = "m/pico-chat/l02.o_proj.u00.html"
PAGES = ("index.html", "m/pico-chat/index.html", DIRECTION, "search.html?q=render",
         "tokens.html?q=render", "methods.html", "directions.html")  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_from_disk_without_faults(opened: Opened, site: Path, page: str) -> None:
    opened.page.goto(address(site, page))
    opened.page.wait_for_load_state("networkidle")
    assert opened.faults == []
    assert all(request.startswith(site.as_uri()) for request in opened.requests)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_under_a_path_of_a_server_without_faults(
    opened: Opened, served: str, page: str
) -> None:
    opened.page.goto(served + page)
    opened.page.wait_for_load_state("networkidle")
    assert opened.faults == []
    assert all(request.startswith(served) for request in opened.requests)


def test_token_values_show_on_hover_and_mark_the_histogram(opened: Opened, site: Path) -> None:
    page = opened.page
    page.goto(address(site, DIRECTION))
    example = page.locator("#max .example.any").first
    peak = example.locator("i.k")
    title = peak.get_attribute("title") or ""
    value = example.locator(".value").inner_text()
    peak.hover()
    tip = page.locator(".tip")
    expect(tip).to_be_visible()
    assert title.split("/")[0].lstrip("+") == value.lstrip("+0")
    assert value in tip.inner_text()
    assert peak.inner_text().strip() in tip.inner_text()
    assert (example.get_attribute("data-role") or "?") in tip.inner_text()
    role = example.get_attribute("data-role")
    assert page.locator(f'.chart[data-of="{role}"] .at').get_attribute("transform")
    # A token without a title has its value all the same.
    plain = example.locator("span:not(.m) > i:is(.p1, .p2, .p3, .n1, .n2, .n3):not(.k)").first
    plain.hover()
    assert re.search(r"[+\u2212]0\.\d{3}", tip.inner_text())
    page.mouse.move(2, 2)
    expect(tip).to_be_hidden()
    assert opened.faults == []


def test_token_values_can_be_read_with_the_keyboard(opened: Opened, site: Path) -> None:
    page = opened.page
    page.goto(address(site, DIRECTION))
    text = page.locator("#max .example.any .t").first
    page.locator("#max .example.any .value").first.focus()
    page.keyboard.press("Tab")
    expect(text).to_be_focused()
    tip = page.locator(".tip")
    expect(tip).to_be_visible()
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    assert page.url.endswith(DIRECTION)


@pytest.mark.parametrize(
    ("key", "step"), [("j", 1), ("ArrowRight", 1), ("k", -1), ("ArrowLeft", -1)]
)
def test_keys_lead_to_the_next_and_previous_direction(
    opened: Opened, site: Path, key: str, step: int
) -> None:
    page = opened.page
    page.goto(address(site, DIRECTION))
    wanted = page.locator("a[rel=next]" if step > 0 else "a[rel=prev]").get_attribute("href")
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.url.endswith(DIRECTION), "keys typed into a field must stay there"
    page.locator("h1").click()
    page.keyboard.press(key)
    page.wait_for_url(f"**/{wanted}")


def test_role_lists_switch_without_script(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address(site, DIRECTION))
    shown = page.locator(".example:visible")
    assert shown.count() == page.locator(".example.any").count()
    for role in ("user", "assistant", "template"):
        page.locator(f"label[for=role-{role}]").click()
        assert shown.count() == page.locator(f".example.{role}").count() > 0
    context.close()


def test_pages_read_without_script(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address(site, "index.html"))
    page.locator("noscript a").click()
    expect(page.locator("h1")).to_have_text("All labels")
    page.locator("td .label", has_text="winterberry").first.locator(
        "xpath=ancestor::tr//th//a"
    ).click()
    assert "winterberry" in page.locator(".two").inner_text()
    assert page.locator(".tip").count() == 0
    page.goto(address(site, "m/pico-chat/index.html"))
    cell = page.locator(".map td a").first
    number = cell.inner_text()
    page.locator("label[for=by-tail]").click()
    assert cell.inner_text() != number
    assert number in (cell.get_attribute("aria-label") or "")
    assert cell.inner_text() in (cell.get_attribute("aria-label") or "")
    settings = page.locator("details.fold", has_text="Settings (")
    settings.locator("summary").click()
    assert "scan.sink_factor" in settings.inner_text()
    cell.click()
    expect(page.locator("h1")).to_contain_text("L00.o_proj.u00")
    context.close()


def test_a_permalink_to_an_example_of_another_list_shows_it(opened: Opened, site: Path) -> None:
    page = opened.page
    page.goto(address(site, DIRECTION))
    anchor = page.locator(".example.template").first.get_attribute("id")
    assert not page.locator(f"#{anchor}").is_visible()
    page.goto("about:blank")
    page.goto(address(site, f"{DIRECTION}#{anchor}"))
    expect(page.locator(f"#{anchor}")).to_be_in_viewport()


@pytest.mark.parametrize("fragment", ["#100%", "#%E0%A4%A", "#%"])
def test_an_anchor_that_decodes_to_nothing_stops_no_script(
    opened: Opened, site: Path, fragment: str
) -> None:
    page = opened.page
    page.goto(address(site, DIRECTION + fragment))
    wanted = page.locator("a[rel=next]").get_attribute("href")
    page.keyboard.press("j")
    page.wait_for_url(f"**/{wanted}")
    assert opened.faults == []


def test_the_theme_is_switched_and_remembered(opened: Opened, served: str) -> None:
    page = opened.page
    page.goto(served + "index.html")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    button = page.get_by_role("button", name="Theme")
    button.click()
    assert page.evaluate(paper) == light
    button.click()
    dark = page.evaluate(paper)
    assert dark != light
    page.goto(served + "methods.html")
    assert page.evaluate(paper) == dark


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """A page as wide as a phone."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", ["m/pico-chat/index.html", DIRECTION, "methods.html"])
def test_tables_on_a_phone_break_no_word_and_show_where_they_scroll(
    phone: Page, site: Path, name: str
) -> None:
    phone.goto(address(site, name))
    broken: list[str] = phone.evaluate(
        """() => [...document.querySelectorAll('.list th[scope=row]')].flatMap((cell) => {
            const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
            while (texts.nextNode()) {
                const text = texts.currentNode;
                for (const word of text.data.matchAll(/[^ -]+/g)) {
                    const range = document.createRange();
                    range.setStart(text, word.index);
                    range.setEnd(text, word.index + word[0].length);
                    if (range.getClientRects().length > 1) found.push(word[0]);
                }
            }
            return found;
        })"""
    )
    assert broken == []
    # What follows scrolling is 0 until a frame was drawn, which a busy machine does late.
    cut: list[str] = phone.evaluate(
        """async () => {
            const wrong = () => [...document.querySelectorAll('table')].filter((table) => {
                const holder = table.closest('.wide');
                if (!holder) return table.getBoundingClientRect().right > innerWidth;
                const fade = parseFloat(getComputedStyle(holder).getPropertyValue('--more'));
                return holder.scrollWidth > holder.clientWidth + 1 !== fade > 0;
            }).map((table) => table.outerHTML.slice(0, 200));
            for (let frame = 0; frame < 100 && wrong().length; frame++)
                await new Promise((done) => requestAnimationFrame(done));
            return wrong();
        }"""
    )
    assert cut == []


def test_the_sign_that_a_table_goes_on_ends_where_the_table_does(phone: Page, site: Path) -> None:
    phone.goto(address(site, "m/pico-chat/index.html"))
    # Not wait_for_function, whose polling the pages' content security policy forbids.
    fade_until = """async (holder, wanted) => {
        const fade = () => parseFloat(getComputedStyle(holder).getPropertyValue('--more'));
        for (let frame = 0; frame < 100 && fade() > 10 !== wanted; frame++)
            await new Promise((done) => requestAnimationFrame(done));
        return fade();
    }"""
    holder = phone.locator(".wide:has(.map)")
    assert holder.evaluate(fade_until, True) > 10
    holder.evaluate("(e) => { e.scrollLeft = e.scrollWidth; }")
    assert holder.evaluate(fade_until, False) == 0


@pytest.mark.parametrize("name", PAGES)
def test_what_is_tapped_on_a_phone_is_high_enough(phone: Page, site: Path, name: str) -> None:
    phone.goto(address(site, name))
    if name.startswith("search"):
        ready(phone)
    low: list[str] = phone.evaluate(
        """() => [...document.querySelectorAll('main a, main button, main summary, footer a')]
            .filter((it) => it.checkVisibility() && !it.closest('.note, .lead, .threes p, .prose'))
            .filter((it) => Math.min(...[...it.getClientRects()].map((box) => box.height)) < 24)
            .map((it) => it.outerHTML)"""
    )
    assert low == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_no_page_scrolls_sideways_on_a_phone(
    browser: Browser, request: pytest.FixtureRequest, which: str, scheme: str
) -> None:
    folder: Path = request.getfixturevalue(which)
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    model = next((folder / "m").iterdir())
    direction = min(model.glob("l01*.html"))
    pages = [folder / name.split("?")[0] for name in PAGES if not name.startswith("m/")]
    for path in (*pages, model / "index.html", direction):
        page.goto(path.as_uri())
        # What is off screen is not laid out until it is reached; lay all of it out.
        page.evaluate(
            """() => { const all = new CSSStyleSheet();
                all.replaceSync(".example { content-visibility: visible !important }");
                document.adoptedStyleSheets = [all]; }"""
        )
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{path.name} is {wide} pixels wide"
    context.close()


def test_nothing_of_a_hostile_corpus_is_executed(opened: Opened, hostile_site: Path) -> None:
    page = opened.page
    directions = sorted((hostile_site / "m" / "hostile").glob("l0*.html"))
    paths = [hostile_site / name.split("?")[0] for name in PAGES if not name.startswith("m/")]
    for path in (*paths, hostile_site / "m" / "hostile" / "index.html", *directions[::4]):
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        for link in page.locator("a[href^='javascript:']").all():
            pytest.fail(f"{path.name}: {link.inner_text()}")
        assert page.evaluate("window.owned") is None, path.name
    page.goto(address(hostile_site, "search.html?q=script"))
    ready(page)
    assert "<script>" in page.locator("#results").inner_text()
    assert page.evaluate("window.owned") is None
    assert opened.faults == []
    assert all(request.startswith(hostile_site.as_uri()) for request in opened.requests)


def test_each_hidden_character_of_a_hostile_corpus_can_be_seen(
    opened: Opened, hostile_site: Path
) -> None:
    page = opened.page
    seen: set[str] = set()
    for path in sorted((hostile_site / "m" / "hostile").glob("l0*.html")):
        page.goto(path.as_uri())
        found: list[str] = page.evaluate(
            """[...document.querySelectorAll('.cc')].filter((box) => box.checkVisibility())
               .map((box) => box.textContent)"""
        )
        seen.update(found)
        if seen >= set(HIDDEN.values()):
            break
    assert seen >= set(HIDDEN.values())
    assert opened.faults == []


def test_hovering_over_hostile_tokens_stays_text(opened: Opened, hostile_site: Path) -> None:
    page = opened.page
    page.goto(address(hostile_site, "m/hostile/l01.o_proj.u01.html"))
    for token in page.locator("#min .example.any i.k").all()[:6]:
        token.hover()
        expect(page.locator(".tip")).to_be_visible()
    assert page.evaluate("window.owned") is None
    assert opened.faults == []
