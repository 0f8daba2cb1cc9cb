"""No page of any type has a fault that axe-core finds, in light and in dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.pages.conftest import go_to, unfold
from tests.pages.page_types import PAGE_TYPES, published

pytestmark = pytest.mark.slow

#: What colours decide; everything else is the same in the dark.
OF_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, as the Python package brings it."""
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["light", "dark"])
def context(
    request: pytest.FixtureRequest, browser: Browser, atlas: Path
) -> Iterator[tuple[BrowserContext, dict[str, Any]]]:
    """A browser's context in light or dark, and what axe-core is to look at in it.

    The pages' policy, which lets no script be put in, is off.
    """
    context = browser.new_context(
        bypass_csp=True, color_scheme=request.param, viewport={"width": 1280, "height": 900}
    )
    published(context, atlas)
    yield context, {} if request.param == "light" else OF_COLOURS
    context.close()


def violations(page: Page, axe: str, options: dict[str, Any]) -> list[str]:
    """What axe-core finds wrong on a page: rule, element, and what it says of it."""
    # What is off screen is not laid out until it is reached; all of it is looked at.
    page.evaluate(
        """() => { const all = new CSSStyleSheet();
            all.replaceSync(".example { content-visibility: visible !important }");
            document.adoptedStyleSheets = [all]; }"""
    )
    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate(
        "async (options) => (await axe.run(document, options)).violations",
        {"resultTypes": ["violations"], **options},
    )
    return [
        f"{rule['id']}: {node['html'][:160]}: {' '.join(node['failureSummary'].split())}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("kind", PAGE_TYPES)
def test_axe_finds_nothing_wrong(
    context: tuple[BrowserContext, dict[str, Any]], atlas: Path, axe: str, kind: str
) -> None:
    browser, options = context
    page = browser.new_page()
    try:
        go_to(page, atlas, kind)
        unfold(page)
        assert violations(page, axe, options) == []
    finally:
        page.close()


def test_axe_finds_what_is_wrong(
    context: tuple[BrowserContext, dict[str, Any]], atlas: Path, axe: str
) -> None:
    browser, options = context
    page = browser.new_page()
    go_to(page, atlas, "methods")
    page.evaluate(
        """() => {
            const faint = document.querySelector("h1");
            faint.style.color = "color-mix(in srgb, canvas, canvastext 20%)";
            faint.parentElement.append(document.createElement("img"));
        }"""
    )
    rules = {said.partition(":")[0] for said in violations(page, axe, options)}
    page.close()
    assert rules == ({"color-contrast"} if options else {"color-contrast", "image-alt"})


def test_every_page_of_a_site_is_of_a_type_that_is_looked_at(atlas: Path) -> None:
    # The class of a page's body says which template it is of.
    looked_at = {_kind(page) for path in PAGE_TYPES.values() for page in atlas.glob(_path(path))}
    there = {_kind(page) for page in atlas.rglob("*.html")}
    assert there == looked_at
    assert len(there) > 10


def _path(address: str) -> str:
    return address.partition("?")[0]


def _kind(page: Path) -> str:
    found = re.search(r'<body class="([^"]*)">', page.read_text(encoding="utf-8"))
    return found[1] if found else ""
