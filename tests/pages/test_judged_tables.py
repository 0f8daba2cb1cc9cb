"""The table of judged texts as the page's script writes it, beside what its file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from builder.pages.score_view import STRATUM_NAMES
from builder.pages.views import DirectionView, RunView
from builder.records import POLES
from tests.pages.conftest import Opened, address, filled
from tests.pages.packing import Packed, random_texts, script_of, seen

#: What the script writes of a verdict.
SAID = ("no", "yes", "no ✗", "yes ✗")

ROWS = """(fold) => [...fold.querySelectorAll("tbody")].map((part) => [...part.rows].map((row) => ({
    cells: [...row.cells].map((cell) => cell.textContent),
    marks: [...row.querySelectorAll("mark")].map((mark) => mark.textContent),
    link: row.querySelector("a")?.getAttribute("href") ?? null,
    tag: row.cells[0].tagName,
})))"""


def judged(run: RunView) -> list[DirectionView]:
    """Directions with judged texts at some pole."""
    return [item for item in run.own if any(side.score for side in item.poles.values())]


def unfolded(page: Page, site: Path, item: DirectionView, pole: str) -> list[list[dict[str, Any]]]:
    page.goto(address(site, item.page))
    filled(page)
    fold = page.locator(f"[data-judged={pole}]")
    fold.locator("summary").click()
    expect(fold.locator("table")).to_be_visible()
    found: list[list[dict[str, Any]]] = fold.evaluate(ROWS)
    return found


def one_line(text: str) -> str:
    return text.replace("\n", " ↵ ")


def assert_quoted(row: dict[str, Any], given: list[Any], script: Packed, random: Packed) -> bool:
    """That a row quotes the part of its text that was judged, and marks what was marked."""
    place, marked, part, *_ = given
    quote = row["cells"][0]
    if isinstance(place, list):
        assert quote == (place[1] or f"document {place[0]}")
        return False
    texts, at = (random, ~place) if place < 0 else (script, place)
    counts = texts.counts(at)
    pieces, token = [], 0
    for text, n in zip(texts.texts[at], counts, strict=True):
        pieces.append((one_line(seen(text)), token, n))
        token += n
    first, n = part or (0, token)
    judged_part = [(text, at, n) for text, at, n in pieces if first <= at < first + part[1]] if (
        part) else pieces  # fmt: skip
    inner = quote.removeprefix("… ").removesuffix(" …")
    assert inner in "".join(text for text, _, _ in judged_part)
    # A line, even where a token alone is longer than that.
    longest = max((len(text) for text, _, _ in judged_part), default=0)
    assert len(inner) <= 84 + 2 * longest
    lit = [text for text, at, n in judged_part if set(range(at, at + n)) & set(marked or [])]
    assert row["marks"] == lit[: len(row["marks"])]
    assert bool(row["marks"]) == bool(lit), "the first marked token is always in the line"
    if place >= 0:
        pole, role, _, _, _, _, doc, *_ = script.header["examples"][place]
        roles = ("user", "assistant", "system", "tool", "text", "template")
        assert row["link"] == f"#{POLES[pole]}-{roles[role]}-{doc}"
    return bool(lit)


@pytest.mark.parametrize("pole", POLES)
def test_the_table_quotes_every_text_with_what_each_scorer_said(
    opened: Opened, site: Path, run: RunView, pole: str
) -> None:
    random = random_texts(site, run.name)
    marked = rests = 0
    for item in judged(run)[::3]:
        script = script_of(site, item)
        given = script.header["judged"].get(pole)
        if not given:
            continue
        parts = unfolded(opened.page, site, item, pole)
        heads = opened.page.locator(f"[data-judged={pole}] thead th").all_inner_texts()
        assert heads == ["text", *given["scorers"]]
        assert len(parts) == len(given["parts"])
        for part, (stratum, rows, rest) in zip(parts, given["parts"], strict=True):
            title = STRATUM_NAMES[stratum]
            right = "yes" if stratum == "pole" else "no"
            head, *body = part
            assert head["cells"] == [f"{title[0].upper()}{title[1:]}: {right} is right"]
            if rest:
                *body, named = body
                found = re.fullmatch(r"and (\d+) more .* documents? ([\d, ]+)", named["cells"][0])
                assert found is not None
                assert int(found[1]) == len(rest)
                assert found[2] == ", ".join(map(str, rest))
                rests += 1
            assert len(body) == len(rows)
            for row, held in zip(body, rows, strict=True):
                marked += assert_quoted(row, held, script, random)
                said = [
                    "–" if verdict is None
                    else SAID[verdict] if isinstance(verdict, int)
                    else f"{verdict[0]}{' ✗' if verdict[1] else ''}"
                    for verdict in held[3:]
                ]  # fmt: skip
                assert row["cells"][1:] == said
    assert marked > 10
    assert rests > 0
    assert opened.faults == []


def test_a_quote_of_an_example_leads_to_it(opened: Opened, site: Path, run: RunView) -> None:
    page = opened.page
    item = judged(run)[0]
    pole = next(iter(script_of(site, item).header["judged"]))
    unfolded(page, site, item, pole)
    links = page.locator(f"[data-judged={pole}] td a")
    addresses = links.evaluate_all("(all) => all.map((it) => it.getAttribute('href'))")
    assert addresses
    for name in addresses:
        assert page.locator(f".example{name}").count() == 1
    links.first.click()
    expect(page.locator(addresses[0])).to_be_in_viewport()
    assert page.url.endswith(addresses[0])
    assert opened.faults == []


def test_a_table_is_there_only_once_it_is_asked_for(
    opened: Opened, site: Path, run: RunView
) -> None:
    page = opened.page
    item = judged(run)[0]
    page.goto(address(site, item.page))
    filled(page)
    assert page.locator("table.judged").count() == 0
    fold = page.locator("[data-judged]").first
    n = int(re.sub(r"\D", "", fold.locator("summary").inner_text()))
    for _ in range(3):  # opened, closed, opened again
        fold.locator("summary").click()
    expect(fold.locator("table.judged")).to_have_count(1)
    script = script_of(site, item).header["judged"]
    parts = next(iter(script.values()))["parts"]
    assert n == sum(len(rows) + len(rest) for _, rows, rest in parts)
    assert opened.faults == []
