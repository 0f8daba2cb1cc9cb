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

from builder.config import ScanSettings
from builder.pages import build_site
from builder.pages.packed import Packer
from builder.pages.spans import Scale
from builder.records import ROLES, Example, Window
from builder.store import write_database
from tests.pages.conftest import SMALL, Opened, address, filled
from tests.pages.directed import fixture_directions
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


def test_the_scripts_colours_and_roles_are_those_of_python(page: Page) -> None:
    assert page.evaluate("WA.ROLES") == list(ROLES)
    rng = np.random.default_rng(2)
    for low, centre, high in ((-0.5, 0.0, 0.5), (-0.1, 0.3, 0.5), (0.2, 0.2, 0.2), (-1, 0.9, 0.9)):
        scale = Scale(low, centre, high)
        values = np.concatenate([rng.uniform(-1, 1, 500), [low, centre, high]])
        steps, middles = page.evaluate(
            """([ends, values]) => {
                const scale = new WA.Scale(...ends), steps = [-7, -4, -1, 0, 1, 4, 7];
                return [values.map((value) => scale.step(value) || 0),
                        steps.map((step) => scale.valueAt(step))];
            }""",
            [[low, centre, high], values.tolist()],
        )
        assert steps == scale.steps(values).tolist()
        assert middles == pytest.approx([scale.value_at(at) for at in (-7, -4, -1, 0, 1, 4, 7)])


def test_a_page_without_examples_is_whole(opened: Opened, tmp_path: Path) -> None:
    directions = fixture_directions(np.random.default_rng(0), "bare", 1, 1)
    folder = tmp_path / "bare"
    folder.mkdir()
    write_database(folder / "run.duckdb", directions, [], settings=ScanSettings(), meta={})
    site = tmp_path / "site"
    build_site([folder], site, SMALL)
    opened.page.goto(address(site, "m/bare/l00.o_proj.u00.html?role=user&show=base#max-user-3"))
    filled(opened.page)
    assert opened.page.locator(".poles").inner_text().count("No examples at this pole.") == 2
    assert opened.page.locator("[data-between], [data-judged], .switch").count() == 0
    assert opened.faults == []


def test_the_page_itself_holds_what_its_file_does(page: Page, site: Path) -> None:
    name = page.url.rsplit("/", 1)[1].removesuffix(".html")
    wanted = packed((site / "m" / "pico-chat" / "d" / f"{name}.js").read_bytes())
    assert page.evaluate("WA.state.page.header") == wanted.header
    drawn = page.evaluate("WA.state.drawn.map((item) => [...item.tuned])")
    assert len(drawn) == len(wanted.header["examples"])
    for values, place in zip(drawn, wanted.examples(), strict=True):
        assert np.allclose(values, wanted.tuned[place], atol=1e-6)
