"""Nothing of a hostile corpus takes effect or hides on its pages, whatever one opens on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from builder.pages.spans import LONGEST_TOKEN
from builder.pages.views import DirectionView, read_run
from builder.store import RunStore
from tests.pages.conftest import Opened, address, filled, ready, unfold
from tests.pages.drawn import examples_of, random_of
from tests.pages.packing import random_texts, script_of, seen
from tests.pages.texts import HIDDEN, LONG_WORD

#: Boxes of a text, each with its title.
BOXES = """(texts) => texts.map((text) => [...text.querySelectorAll(".cc")]
    .map((box) => [box.textContent, box.title]))"""


@pytest.fixture(scope="module")
def directions(hostile_folder: Path) -> tuple[DirectionView, ...]:
    """The directions of the hostile run."""
    with RunStore(hostile_folder / "run.duckdb") as store:
        return read_run(hostile_folder, store).directions


@pytest.fixture
def harmless(opened: Opened, hostile_site: Path) -> Iterator[Page]:
    """A page on which nothing of the corpus may take effect, whatever is done on it."""
    yield opened.page
    assert opened.page.evaluate("window.owned") is None
    assert opened.faults == []
    assert all(request.startswith(hostile_site.as_uri()) for request in opened.requests)


def expand(page: Page) -> None:
    """Shows all there is on a direction's page: folds, roles, and every window whole."""
    unfold(page)
    page.evaluate(
        """() => {
            const all = new CSSStyleSheet();
            all.replaceSync(".example { display: block !important; }");
            document.adoptedStyleSheets = [all];
            for (const more of document.querySelectorAll(".more")) more.click();
        }"""
    )


def test_nothing_of_a_hostile_corpus_is_executed(
    harmless: Page, opened: Opened, hostile_site: Path
) -> None:
    model = hostile_site / "m" / "hostile"
    paths = [*hostile_site.glob("*.html"), model / "index.html"]
    for path in (*paths, *sorted(model.glob("l0*.html"))[::2]):
        harmless.goto(path.as_uri())
        harmless.wait_for_load_state("networkidle")
        if path.parent == model and path.name != "index.html":
            expand(harmless)
        for link in harmless.locator("a[href^='javascript:']").all():
            pytest.fail(f"{path.name}: {link.inner_text()}")
        for choice in harmless.locator(".tools .switch label:visible").all():
            choice.click()
        assert harmless.evaluate("window.owned") is None, path.name
        assert opened.faults == [], path.name
    harmless.goto(address(hostile_site, "search.html?q=script"))
    ready(harmless)
    assert "<script>" in harmless.locator("#results").inner_text()


def test_what_the_script_writes_is_text_marks_and_boxes(
    harmless: Page, hostile_site: Path, directions: tuple[DirectionView, ...]
) -> None:
    for item in directions[::3]:
        harmless.goto(address(hostile_site, item.page))
        expand(harmless)
        names: set[str] = set(
            harmless.evaluate(
                """[...document.querySelectorAll(':is(.t, .judged, .source, .random) *')]
                   .flatMap((it) => [it.tagName.toLowerCase(),
                       ...[...it.attributes].map(({name, value}) => name === "href" ?
                           `href ${value[0]}` : `@${name}`)])"""
            )
        )
        assert names <= {
            "i", "b", "span", "bdi", "mark", "a", "href #", "table", "caption", "thead", "tbody",
            "tr", "th", "td", "header", "p", "@class", "@title", "@scope", "@colspan",
            "@data-r", "@dir", "@role", "@tabindex", "@aria-label",
        }, item.page  # fmt: skip


def test_hidden_characters_are_boxes_in_all_that_the_script_writes(
    harmless: Page, hostile_site: Path, directions: tuple[DirectionView, ...]
) -> None:
    texts = random_texts(hostile_site, "hostile")
    met: set[str] = set()
    for item in directions[::3]:
        script = script_of(hostile_site, item)
        harmless.goto(address(hostile_site, item.page))
        expand(harmless)
        for place, wanted, is_open in (
            (".example .t", examples_of(script), True),
            ("[data-between] .t", random_of(script, texts), False),
        ):
            found = harmless.locator(place).evaluate_all("(all) => all.map((t) => t.textContent)")
            boxes = harmless.locator(place).evaluate_all(BOXES)
            for text, drawn, held in zip(found, wanted, boxes, strict=True):
                assert text == drawn.text(is_open=is_open)
                assert not set(text) & (HIDDEN.keys() - {"\u200d"})
                # What is between two U+0000 is a box, whose title is the character's name.
                pieces = drawn.pieces if is_open else drawn.shown()
                named = [part for piece, _, _ in pieces for part in piece.split("\0")[1::2]]
                assert [name for name, _ in held] == [seen(f"\0{part}\0") for part in named]
                assert [f"{name} {title}".strip() for name, title in held] == named
                met |= {name for name, _ in held}
    assert met >= set(HIDDEN.values())


def test_each_hidden_character_can_be_seen(
    harmless: Page, hostile_site: Path, directions: tuple[DirectionView, ...]
) -> None:
    met: set[str] = set()
    for item in directions:
        harmless.goto(address(hostile_site, item.page))
        filled(harmless)
        met.update(
            harmless.locator(".t .cc").evaluate_all(
                "(all) => all.filter((box) => box.checkVisibility()).map((box) => box.textContent)"
            )
        )
        if met >= set(HIDDEN.values()):
            break
    assert met >= set(HIDDEN.values())


def test_a_very_long_token_is_shortened_and_says_by_how_much(
    harmless: Page, hostile_site: Path, directions: tuple[DirectionView, ...]
) -> None:
    whole, kept = f" {LONG_WORD}", LONGEST_TOKEN // 4
    said = f"{len(whole) - 2 * kept} more characters"
    met = 0
    for item in directions[::3]:
        harmless.goto(address(hostile_site, item.page))
        expand(harmless)
        for box in harmless.locator(".t .cc", has_text=said).all():
            token = box.evaluate("(box) => box.closest('i').textContent")
            assert token == whole[:kept] + said + whole[-kept:]
            met += 1
    assert met


def test_hovering_over_hostile_tokens_stays_text(harmless: Page, hostile_site: Path) -> None:
    harmless.goto(address(hostile_site, "m/hostile/l01.o_proj.u01.html"))
    filled(harmless)
    tip = harmless.locator(".tip")
    for token in harmless.locator("#min .example.any i.k").all()[:6]:
        token.hover()
        expect(tip).to_be_visible()
        assert token.inner_text().strip() in tip.inner_text()
    kept = harmless.evaluate(
        """() => [...document.querySelectorAll(".t i")].map((token) => {
            token.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
            return [...document.querySelector(".tip").querySelectorAll("*")]
                .map((it) => it.tagName.toLowerCase());
        }).flat()"""
    )
    assert set(kept) <= {"p", "b", "code", "svg", "path", "rect", "text"}
