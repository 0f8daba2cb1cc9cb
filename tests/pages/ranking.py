"""The site's own ranking in a page of its own, and rows for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playwright.sync_api import Browser, Page

from builder.assets import asset_dir

SCRIPTS = ("search-words.js", "search-part.js", "search-rank.js")
#: What rows may say; all else is the same for all.
TEXTS = ("label", "keywords", "tokens", "peaks", "alike")

Row = dict[str, Any]


def ranking_page(browser: Browser) -> Page:
    """A blank page with the scripts that rank."""
    page = browser.new_page()
    for name in SCRIPTS:
        page.add_script_tag(path=asset_dir() / "static" / name)
    return page


def columns(rows: Sequence[Row], first: int = 0) -> dict[str, Any]:
    """Rows as a script hands them over: each is the max pole of a direction, whose min is empty."""
    none = [code for row in rows for code in (int("label" not in row), 1)]
    return {
        "title": "t",
        "first": first,
        "ids": "\n".join(row["id"] for row in rows),
        "names": "\n".join(row["id"].lower() for row in rows),
        "layers": [0] * len(rows),
        "writers": ["o_proj"],
        "writers_of": [0] * len(rows),
        "kinds": ["weights"],
        "kinds_of": [0] * len(rows),
        "sigmas": [row.get("sigma") for row in rows],
        "labels": "\n".join(line for row in rows for line in (row.get("label", ""), "")),
        "states": ["", "none"],
        "states_of": none,
        "scores": [score for row in rows for score in (row.get("score"), None)],
        "intervals": "\n".join([""] * 2 * len(rows)),
        "doubts": [""],
        "doubts_of": [0] * 2 * len(rows),
        "peaking": [0] * 2 * len(rows),
        "examples": [0] * 2 * len(rows),
        **{
            name: "\n".join(line for row in rows for line in (row.get(name, ""), ""))
            for name in TEXTS[1:]
        },
    }


def rank(page: Page, parts: Sequence[Sequence[Row]], query: str, *, read: bool) -> list[str]:
    """Ids of the rows found, best first; ``read``: whether all words were read before."""
    starts = [sum(len(part) for part in parts[:at]) for at in range(len(parts))]
    data = [columns(part, first) for part, first in zip(parts, starts, strict=True)]
    found: list[str] = page.evaluate(
        """([parts, query, read]) => {
            const index = new WA.Index();
            for (const data of parts) index.add("run", data);
            while (read && index.readOne());
            const { scores } = index.find(query);
            return index.top(1e6, (row) => row % 2 === 0 && scores[row] > 0, scores,
                index.numbers("sigmas")).rows.map((row) => index.text("ids", row));
        }""",
        [data, query, read],
    )
    return found
