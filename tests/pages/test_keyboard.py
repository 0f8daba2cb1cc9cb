"""Every page is used by keyboard alone: all of it is reached in order, is seen there, and works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.pages.conftest import Opened, go_to
from tests.pages.page_types import PAGE_TYPES, is_own, published

#: Notes in order what the Tab key is to reach: of radio buttons of one name the one that is chosen.
WANTED = """() => {
    const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary,"
        + "[tabindex='0']")];
    const isChosen = (it) => it.type !== "radio" || it.checked
        || !all.some((one) => one.name === it.name && one.checked);
    window.wanted = all.filter((it) => it.checkVisibility({ visibilityProperty: true })
        && !it.disabled && it.tabIndex >= 0 && isChosen(it));
    return window.wanted.length;
}"""
#: Puts the focus before everything, also where a page puts it into its search box.
TO_THE_TOP = """() => {
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute("tabindex");
}"""
#: Which of these has the focus, and what is wrong with how that is shown; a page scrolls there in
#: its next frames.
FOCUSED = """async () => {
    const it = document.activeElement, at = window.wanted.indexOf(it);
    if (at < 0) return [at, it.outerHTML.slice(0, 160)];
    const shown = it.matches(".switch input") ? it.nextElementSibling : it;
    const style = getComputedStyle(shown), faults = [];
    const width = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
    if (width < 2) faults.push("no outline");
    const top = document.querySelector(".top");
    const isSticky = top && getComputedStyle(top).position === "sticky" && !top.contains(shown)
        && !shown.matches(".skip");
    const isSeen = () => {
        const box = shown.getBoundingClientRect();
        const edge = isSticky ? top.getBoundingClientRect().bottom : 0;
        return box.bottom > edge && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
    };
    for (let frame = 0; frame < 60 && !isSeen(); frame++)
        await new Promise((done) => requestAnimationFrame(done));
    if (!isSeen()) faults.push("out of view");
    return [at, faults.map((fault) => `${fault}: ${it.outerHTML.slice(0, 160)}`).join("; ")];
}"""
#: One page of each template; their other states have the same things to reach.
KINDS = [
    kind
    for kind in PAGE_TYPES
    if kind not in ("model with its base", "control", "search for nothing", "tokens")
]


@pytest.fixture
def keyed(browser: Browser, atlas: Path) -> Iterator[Opened]:
    """A page under watch, of a site that its address leads to as well."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    published(context, atlas)
    found = Opened(context.new_page())
    yield found
    context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_tab_reaches_everything_in_order_and_shows_where_it_is(
    keyed: Opened, atlas: Path, kind: str
) -> None:
    page = keyed.page
    go_to(page, atlas, kind)
    keyed.watch()
    count = page.evaluate(WANTED)
    page.evaluate(TO_THE_TOP)
    assert count > 0 or kind == "no page, alone"
    reached: list[int] = []
    faults: list[str] = []
    for _ in range(count):
        page.keyboard.press("Tab")
        at, fault = page.evaluate(FOCUSED)
        reached.append(at)
        faults += [fault] if fault else []
    assert faults == []
    assert reached == list(range(count))
    # And back again from the end.
    for at in reversed(range(max(0, count - 5), count - 1)):
        page.keyboard.press("Shift+Tab")
        assert page.evaluate(FOCUSED)[0] == at
    assert keyed.faults == []
    assert all(is_own(request, atlas) for request in keyed.requests)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "no page, alone"])
def test_the_first_tab_leads_past_the_head_and_enter_follows_a_link(
    keyed: Opened, atlas: Path, kind: str
) -> None:
    page = keyed.page
    go_to(page, atlas, kind)
    page.evaluate(TO_THE_TOP)
    page.keyboard.press("Tab")
    skip = page.locator("a.skip")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport(ratio=1)
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        inside, leads = page.evaluate(
            """() => { const it = document.activeElement;
                const page = (address) => address.split("#")[0];
                const leads = it.matches("a[href]") && page(it.href) !== page(location.href);
                return [Boolean(it.closest("main, footer")), leads ? it.href : ""]; }"""
        )
        assert inside, "the skip link leads to the content, and what follows it is there"
        if leads:
            break
    assert leads, "there is a link to another page near its beginning"
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.split("#")[0] == leads.split("#")[0]


def test_folds_and_buttons_work_by_keys(keyed: Opened, atlas: Path) -> None:
    page = keyed.page
    go_to(page, atlas, "direction")
    fold = page.locator("details.fold[data-between]")
    for key, is_open in (("Enter", True), ("Space", False)):
        fold.locator("summary").first.focus()
        page.keyboard.press(key)
        assert fold.evaluate("(it) => it.open") is is_open
    button = page.locator("[data-theme-switch]")
    button.focus()
    page.keyboard.press("Space")
    expect(button).to_have_text("Theme: light")
    page.locator("#role-any").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#role-user")).to_be_checked()
    assert page.locator(".example.user:visible").count() > 0
    assert page.locator(".example:not(.user):visible").count() == 0


def test_the_help_of_triage_keeps_the_focus_and_gives_it_back(keyed: Opened, atlas: Path) -> None:
    page = keyed.page
    go_to(page, atlas, "triage")
    ask = page.locator("#ask")
    ask.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#help")).to_be_visible()
    for _ in range(3):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.matches('body, #help *')") is True
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    expect(ask).to_be_focused()
