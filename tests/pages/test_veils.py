"""Texts of sources that readers are warned of stand behind a click, with and without scripts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from builder.config import SiteSettings
from builder.pages import build_site
from builder.pages.veils import veiled_by
from tests.pages.conftest import SMALL, Opened


@pytest.fixture(scope="module")
def veiled_site(tmp_path_factory: pytest.TempPathFactory, tiny_folders: list[Path]) -> Path:
    folder = tmp_path_factory.mktemp("veiled")
    shutil.copytree(tiny_folders[0], folder / "run")
    settings = {**SMALL.model_dump(), "blur": ["every*"], "warning": "Rude <b>words</b>."}
    build_site([folder / "run"], folder / "site", SiteSettings.model_validate(settings))
    return folder / "site"


def test_names_and_patterns_are_whole_names() -> None:
    veiled = veiled_by(["chats", "Wild*"])
    assert [veiled(name) for name in ("chats", "chats-2", "WildChat", "wildchat")] == [
        True, False, True, False,
    ]  # fmt: skip


def test_a_warning_stands_on_the_first_page_and_each_models(veiled_site: Path) -> None:
    for name in ("index.html", "m/pico-chat/index.html"):
        assert "Rude &lt;b&gt;words&lt;/b&gt;." in (veiled_site / name).read_text("utf-8")


def direction(site: Path) -> Path:
    """A page with examples of a veiled source and of another."""
    for page in sorted((site / "m" / "pico-chat").glob("l00.*.html")):
        text = page.read_text("utf-8")
        sources = set(re.findall(r"class=\"?source\"?><bdi>([^<]*)<", text))
        if "everyday-chat" in sources and len(sources) > 1:
            return page
    raise AssertionError("the fixture has no such page")


def test_without_scripts_texts_are_behind_a_click(veiled_site: Path) -> None:
    articles = re.findall(
        r"<article class=\"example.*?</article>",
        direction(veiled_site).read_text("utf-8"),
        re.DOTALL,
    )
    assert articles
    for article in articles:
        assert ('<details class="veil">' in article) == ("<bdi>everyday-chat" in article)


@pytest.mark.browser
def test_with_scripts_too_and_a_click_shows_them(veiled_site: Path, opened: Opened) -> None:
    page = opened.page
    page.goto(direction(veiled_site).as_uri())
    page.wait_for_selector("html.filled")
    articles = page.locator(".example.any")
    seen = set()
    for at in range(articles.count()):
        article = articles.nth(at)
        is_veiled = "everyday-chat" in article.locator(".source").inner_text()
        seen.add(is_veiled)
        # What is far from the screen is not laid out, and so not visible whatever it is behind.
        article.scroll_into_view_if_needed()
        expect(article.locator(".t")).to_be_visible(visible=not is_veiled)
        if is_veiled:
            article.locator("summary").focus()
            page.keyboard.press("Enter")
            expect(article.locator(".t")).to_be_visible()
    assert seen == {True, False}
    assert opened.faults == []
