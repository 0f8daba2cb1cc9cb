"""Every page reads without script, in print and on a phone, and asks nobody else for anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.pages.conftest import Opened, go_to, unfold
from tests.pages.page_types import PAGE_TYPES, address_of, is_own, published

#: An A4 page between usual margins, in pixels of CSS.
PAPER = {"width": 700, "height": 990}
#: What is left out of print: things to press, to fill in or to go elsewhere by.
NOT_PRINTED = (
    "form, nav, button, dialog, .tools .switch, .js-only:is(.copy, kbd, .legend-note *),"
    ".triaging :is(.verdict, .exchange, .chooser), .audit-order, [data-copy], .skip, .tip"
)
#: What each page is there for, which reads without script.
CONTENT = {
    "home": ".card.model h3 a", "model": ".map td a", "model with its base": ".map td a",
    "direction": ".example .t", "control": ".example .t", "search": "noscript a",
    "search for nothing": "noscript a", "tokens": "#commonest td .peak a",
    "commonest tokens": "#commonest td .peak a", "triage": "noscript a",
    "findings": ".of-severity a",
    "finding": ".told p", "compare": ".overlap td a", "directions": ".pages a",
    "directions, one page": "td .label", "labels": "td .label", "methods": ".prose p",
    "downloads": ".files a", "no page": "main a", "no page, alone": "main p",
}  # fmt: skip
#: Whatever is read: the smallest elements that hold text of their own and can be seen.
READ = """(left_out) => [...document.querySelectorAll("main *")].filter((it) =>
    !it.closest(left_out)
    && [...it.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
    && it.checkVisibility({ visibilityProperty: true, opacityProperty: true }))"""


@pytest.mark.parametrize("kind", PAGE_TYPES)
def test_a_page_says_what_it_has_without_script(browser: Browser, atlas: Path, kind: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    published(context, atlas)
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address_of(atlas, kind))
    said = page.locator("main").inner_text()
    assert len(said) > 100
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator(CONTENT[kind]).first).to_be_visible()
    assert "loading" not in said.lower()
    assert "searching" not in said.lower()
    # Nothing that only a script could fill or answer.
    for nothing in ("main .js-only", "form", "button", "main [role=status]", "progress"):
        assert page.locator(f"{nothing}:visible").count() == 0, nothing
    empty = page.evaluate(
        """() => [...document.querySelectorAll("main :is(section, article, ol, ul, table, dl)")]
            .filter((it) => it.checkVisibility() && !it.innerText.trim())
            .map((it) => it.outerHTML)"""
    )
    assert empty == []
    if kind in ("search", "triage"):
        page.locator("noscript a").first.click()
        expect(page.locator("h1")).to_have_text("All labels")
    assert all(is_own(request, atlas) for request in requests)
    context.close()


@pytest.fixture
def sheet(browser: Browser, atlas: Path) -> Iterator[Opened]:
    """A page as wide as paper, of a site that its address leads to as well."""
    context = browser.new_context(viewport={"width": PAPER["width"], "height": PAPER["height"]})
    published(context, atlas)
    found = Opened(context.new_page())
    found.watch()
    yield found
    assert found.faults == []
    assert all(is_own(request, atlas) for request in found.requests)
    context.close()


@pytest.mark.parametrize("kind", PAGE_TYPES)
def test_print_hides_and_cuts_nothing_that_is_read(sheet: Opened, atlas: Path, kind: str) -> None:
    page = sheet.page
    # The page for no page is not found, which the browser says.
    go_to(page, atlas, kind)
    sheet.faults = [fault for fault in sheet.faults if "404" not in fault or kind != "no page"]
    page.emulate_media(media="screen")
    page.evaluate(f"(left_out) => {{ window.read = ({READ})(left_out); }}", NOT_PRINTED)
    page.emulate_media(media="print")
    hidden: list[str] = page.evaluate(
        f"""(left_out) => {{
            const printed = new Set(({READ})(left_out));
            return window.read.filter((it) => !printed.has(it))
                .map((it) => it.outerHTML.slice(0, 200));
        }}""",
        NOT_PRINTED,
    )
    assert hidden == []
    assert _cut(page) == []


def _cut(page: Page) -> list[str]:
    """What of the content lies beyond the paper, or in a box that it is too large for."""
    found: list[str] = page.evaluate(
        """() => {
            const edge = document.documentElement.clientWidth + 1, cut = [];
            for (const it of document.querySelectorAll("main *")) {
                const isForEars = [it, it.parentElement]
                    .some((one) => getComputedStyle(one).clipPath === "inset(50%)");
                if (!it.checkVisibility() || isForEars || it.closest("svg *")) continue;
                const tell = (said) => cut.push(`${said}: ${it.outerHTML.slice(0, 160)}`);
                const style = getComputedStyle(it);
                const holds = (overflow, own, inner) => overflow !== "visible" && inner > own + 1;
                if (holds(style.overflowX, it.clientWidth, it.scrollWidth)
                    || holds(style.overflowY, it.clientHeight, it.scrollHeight)) tell("cut");
                if ([...it.getClientRects()].some((box) => box.right > edge || box.left < -1))
                    tell("beyond the edge");
                if (["fixed", "sticky"].includes(style.position)) tell("stays");
            }
            return cut;
        }"""
    )
    return found


@pytest.fixture
def phone(browser: Browser, atlas: Path) -> Iterator[Opened]:
    """A page as narrow as a small phone."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    published(context, atlas)
    found = Opened(context.new_page())
    found.watch()
    yield found
    assert all(is_own(request, atlas) for request in found.requests)
    context.close()


@pytest.mark.parametrize("kind", PAGE_TYPES)
def test_a_page_fits_a_phone(phone: Opened, atlas: Path, kind: str) -> None:
    page = phone.page
    go_to(page, atlas, kind)
    unfold(page)
    page.evaluate(
        """() => { const all = new CSSStyleSheet();
            all.replaceSync(".example { content-visibility: visible !important }");
            document.adoptedStyleSheets = [all]; }"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    beside = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((it) => it.checkVisibility()
            && !it.closest(".wide, .unseen, svg *, pre, .skip") && it.getClientRects().length
            && it.getBoundingClientRect().right > 361).map((it) => it.outerHTML.slice(0, 160))"""
    )
    assert beside == []
