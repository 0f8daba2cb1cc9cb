"""The pages' script unpacks the same pieces and values as Python does, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from builder.pages.packed import Packer
from builder.records import Example, Window
from tests.pages.conftest import filled
from tests.pages.packing import packed
from tests.pages.windows import examples, windows

#: As a page's script has them: the header, pieces with their tokens, and all activations.
UNPACK = """async ([size, letters]) => {
    const {header, texts, tuned, base} = await WA.unpack(size, letters);
    return {header, tuned: [...tuned], base: base && [...base],
        texts: texts.map(({pieces, tokens}) => [pieces.map(
            ({text, first, tokens}) => [text, first, tokens]), tokens])};
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, site: Path) -> Iterator[Page]:
    """A page of a direction, whose script is used on other files."""
    opened = browser.new_page()
    opened.goto(next((site / "m" / "pico-chat").glob("l0*.html")).as_uri())
    filled(opened)
    yield opened
    opened.close()


def assert_same(page: Page, content: bytes) -> None:
    """That the script finds what Python finds in a file."""
    size, _, letters = content[content.index(b"(") + 1 : content.rindex(b'"')].partition(b',"')
    found: dict[str, Any] = page.evaluate(UNPACK, [int(size), letters.decode()])
    wanted = packed(content)
    assert found["header"] == wanted.header
    texts = []
    for at, pieces in enumerate(wanted.texts):
        counts = wanted.counts(at)
        firsts = np.cumsum([0, *counts]).tolist()
        rows = [list(row) for row in zip(pieces, firsts, counts, strict=False)]
        texts.append([rows, firsts[-1]])
    assert found["texts"] == texts
    assert np.allclose(found["tuned"], wanted.tuned, rtol=0, atol=1e-6)
    assert (found["base"] is None) == (wanted.base is None)
    if wanted.base is not None:
        assert np.allclose(found["base"], wanted.base, rtol=0, atol=1e-6)


@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_every_file_of_a_site(which: str, page: Page, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(which)
    scripts = [*sorted(folder.glob("m/*/d/*.js")), *folder.glob("m/*/texts.js")]
    assert len(scripts) == len(list(folder.glob("m/*/*.html")))
    for path in scripts:
        assert_same(page, path.read_bytes())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(windows(), max_size=3), st.lists(examples(with_base=True), max_size=2))
def test_any_texts_and_values(page: Page, held: list[Window], valued: list[Example]) -> None:
    packer = Packer()
    texts = [packer.text(window) for window in (*held, *(item.window for item in valued))]
    for item in valued:
        packer.values(item.activations, item.base_activations)
    assert_same(page, packer.file("page", {"texts": texts, "said": "<\u2028'\"\\é🎉"}))


def test_the_page_itself_holds_what_its_file_does(page: Page, site: Path) -> None:
    name = page.url.rsplit("/", 1)[1].removesuffix(".html")
    wanted = packed((site / "m" / "pico-chat" / "d" / f"{name}.js").read_bytes())
    assert page.evaluate("WA.state.page.header") == wanted.header
    drawn = page.evaluate("WA.state.drawn.map((item) => [...item.tuned])")
    assert len(drawn) == len(wanted.header["examples"])
    for values, place in zip(drawn, wanted.examples(), strict=True):
        assert np.allclose(values, wanted.tuned[place], atol=1e-6)
