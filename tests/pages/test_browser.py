"""The pages in a real Chromium: they load, lead to each other, and fit on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.pages.conftest import Opened, address, ready, unfold

DIRECTION = "m/pico-chat/l02.o_proj.u00.html"
PAGES = ("index.html", "m/pico-chat/index.html", DIRECTION, "search.html?q=render",
         "tokens.html?q=render", "methods.html", "directions.html")  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_from_disk_without_faults(opened: Opened, site: Path, page: str) -> None:
    opened.page.goto(address(site, page))
    opened.page.wait_for_load_state("networkidle")
    unfold(opened.page)
    assert opened.faults == []
    assert all(request.startswith(site.as_uri()) for request in opened.requests)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_under_a_path_of_a_server_without_faults(
    opened: Opened, served: str, page: str
) -> None:
    opened.page.goto(served + page)
    opened.page.wait_for_load_state("networkidle")
    unfold(opened.page)
    assert opened.faults == []
    assert all(request.startswith(served) for request in opened.requests)


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
    settings = page.locator("details.fold", has_text="Settings (")
    settings.locator("summary").click()
    assert "scan.sink_factor" in settings.inner_text()
    cell.click()
    expect(page.locator("h1")).to_contain_text("L00.o_proj.u00")
    context.close()


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
    unfold(phone)
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
    unfold(phone)
    low: list[str] = phone.evaluate(
        """() => [...document.querySelectorAll('main a, main button, main summary, footer a')]
            .filter((it) => it.checkVisibility()
                && !it.closest('.note, .lead, .threes p, .prose, .unseen'))
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
        unfold(page)
        for button in page.locator(".example.any .more").all():
            button.click()
        # What is off screen is not laid out until it is reached; lay all of it out.
        page.evaluate(
            """() => { const all = new CSSStyleSheet();
                all.replaceSync(".example { content-visibility: visible !important }");
                document.adoptedStyleSheets = [all]; }"""
        )
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{path.name} is {wide} pixels wide"
    context.close()
