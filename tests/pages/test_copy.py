"""What a direction's page copies: Markdown, BibTeX, JSON, whatever stands in labels and texts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Page, expect

from builder.pages.spans import HIDDEN
from builder.pages.views import RunView
from builder.records import ANY_ROLE, POLES
from builder.store import RunStore
from tests.pages.conftest import SMALL, Opened

_COMMONMARK = MarkdownIt("gfm-like", {"html": True, "linkify": False})


def copied(page: Page, address: str, form: str) -> str:
    """What the button of a form of a direction's page copies."""
    page.goto(address)
    expect(page.locator("html.filled")).to_have_count(1)
    page.evaluate(
        """() => Object.defineProperty(navigator, "clipboard", { value: {
            writeText: async (text) => { window.copied = text; } } })"""
    )
    page.get_by_role("button", name=f"Copy {form}").click()
    expect(page.locator(".copied")).to_have_text(f"{form} copied")
    text: str = page.evaluate("window.copied")
    return text


def _fields(entry: str) -> dict[str, str]:
    """The fields of a BibTeX entry, by counting braces as BibTeX does: escaped ones, too."""
    depth, found, name, value = 0, {}, "", ""
    for character in entry[entry.index(",") + 1 :]:
        if character == "{":
            depth += 1
            value = "" if depth == 1 else value + character
        elif character == "}":
            depth -= 1
            if depth == 0:
                found[name.strip(" =,\n")] = value
                name = ""
            value += character
        elif depth:
            value += character
        else:
            name += character
    assert depth == -1  # that of the entry itself
    return found


class _Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str | None] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def _hostile(site: Path) -> list[str]:
    pages = sorted((site / "m" / "hostile").glob("l0*.html"))
    return [path.as_uri() for path in pages[:6]]


def test_bibtex_is_one_entry_whatever_the_label(opened: Opened, hostile_site: Path) -> None:
    for address in _hostile(hostile_site):
        entry = copied(opened.page, address, "BibTeX")
        assert set(_fields(entry)) == {"title", "howpublished", "note", "urldate"}
        assert not HIDDEN.search(entry.replace("\n", ""))
        assert re.match(r"@misc\{[a-z0-9-]*,\n", entry)
    assert opened.faults == []


def test_bibtex_says_what_is_cited_and_where(opened: Opened, served: str, run: RunView) -> None:
    item = run.own[1]
    entry = copied(opened.page, served + item.page, "BibTeX")
    found = _fields(entry)
    assert item.row.content_hash in found["note"]
    assert found["url"] == served + item.page
    assert item.row.id.replace("_", r"\_") in found["title"]


def test_markdown_holds_no_markup_of_the_corpus(opened: Opened, hostile_site: Path) -> None:
    for address in _hostile(hostile_site):
        text = copied(opened.page, address, "Markdown")
        found = _Text(_COMMONMARK.render(text))
        assert found.tags <= {"h3", "p", "ul", "li", "strong", "a"}
        assert found.links == []
        assert "@" not in text
        assert not HIDDEN.search(text.replace("\n", ""))
    assert opened.faults == []


def test_markdown_and_json_say_what_the_page_says(
    opened: Opened, served: str, run: RunView, run_folders: list[Path]
) -> None:
    item = next(
        one
        for one in run.own
        if any(side.text and side.score and side.score.score.f1 for side in one.poles.values())
    )
    with RunStore(run_folders[0] / "run.duckdb") as store:
        examples = store.examples(item.row.id, role=ANY_ROLE)
    read = _Text(_COMMONMARK.render(copied(opened.page, served + item.page, "Markdown")))
    text = read.text
    assert read.links == [served + item.page]
    found = json.loads(copied(opened.page, served + item.page, "JSON"))
    assert found["id"] == item.row.id
    assert found["content_hash"] == item.row.content_hash
    for pole in POLES:
        assert item.poles[pole].said in text
        view, copy = item.poles[pole], found["labels"][pole]
        assert copy.get("text" if view.text else "said") == view.said
        f1 = view.score.score.f1 if view.text and view.score else None
        assert copy.get("f1") == (None if f1 is None else pytest.approx(f1, abs=0.0051))
        own = [e for e in examples if e.pole == pole and e.place < SMALL.examples]
        listed = [example for example in found["examples"] if example["pole"] == pole]
        assert [one["document"] for one in listed] == [e.window.doc_id for e in own]
        for one, example in zip(listed, own, strict=True):
            assert one["before"] + one["peak"] + one["after"] in example.window.text
            assert f"#{example.window.doc_id}" in text or one not in listed[:3]


def test_where_nothing_can_be_copied_the_text_is_shown(opened: Opened, site: Path) -> None:
    page = opened.page
    page.goto((site / "m/pico-chat/l00.o_proj.u00.html").as_uri())
    expect(page.locator("html.filled")).to_have_count(1)
    page.evaluate(
        """() => Object.defineProperty(navigator, "clipboard", { value: {
            writeText: async () => { throw new Error("refused"); } } })"""
    )
    page.get_by_role("button", name="Copy BibTeX").click()
    assert page.locator(".by-hand textarea").input_value().startswith("@misc{")
    page.keyboard.press("Escape")
    expect(page.locator(".by-hand")).to_have_count(0)
