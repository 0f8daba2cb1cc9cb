"""The home page: search first, then findings, then models, however many there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from builder.assets import asset_dir
from builder.config import SiteSettings
from builder.pages.home_view import MANY, home
from builder.pages.overview import Overview, overview
from builder.pages.render import Renderer
from builder.pages.views import RunView, read_run
from builder.store import RunStore
from tests.pages.conftest import SMALL


@pytest.fixture(scope="module")
def seen(run_folders: list[Path]) -> list[tuple[RunView, Overview]]:
    found = []
    for folder in run_folders:
        with RunStore(folder / "run.duckdb") as store:
            run = read_run(folder, store)
            found.append((run, overview(run, store, SMALL.examples)))
    return found


def page_of(runs: list[tuple[RunView, Overview]]) -> str:
    values = home([run for run, _ in runs], [view for _, view in runs])
    return (
        Renderer(SiteSettings(title="atlas"))
        .page("index.html", "index.html", home=values)
        .decode("utf-8")
    )


def many(seen: list[tuple[RunView, Overview]], n: int) -> list[tuple[RunView, Overview]]:
    """As many models, some with fewer directions."""
    return [
        (
            dataclasses.replace(
                run, name=f"run-{at:02d}", title=f"Run {at:02d}",
                directions=run.directions[at % 3 :],
            ),
            view,
        )
        for at, (run, view) in ((at, seen[at % len(seen)]) for at in range(n))
    ]  # fmt: skip


def test_search_comes_first_and_models_have_a_card_each(
    seen: list[tuple[RunView, Overview]],
) -> None:
    text = page_of(seen)
    assert text.index('type="search"') < text.index('id="models"')
    assert text.count('<article class="card') == len(seen)
    assert text.count('class="plot thumb"') == len(seen)
    assert "data-sortable" not in text
    for run, _ in seen:
        assert f'<h3><a href="{run.page}">' in text
    assert "1 model<" in page_of(seen[:1]).replace("</h2>", "<")


def test_a_card_says_first_what_its_page_says_first(
    seen: list[tuple[RunView, Overview]], site: Path
) -> None:
    home_text = (site / "index.html").read_text(encoding="utf-8")
    for run, view in seen:
        (card,) = home([run], [view]).cards
        assert card.taught.listed
        first = card.taught.listed[0]
        assert f"{first.item.page}#{first.pole.pole}" in home_text
        page = (site / run.page).read_text(encoding="utf-8")
        listed = page[page.index('class="evidence"') :]
        assert listed.index(first.item.row.id) < listed.index("</li>")


def test_many_models_have_small_cards_and_a_table(seen: list[tuple[RunView, Overview]]) -> None:
    text = page_of(many(seen, MANY))
    assert 'class="cards many"' in text
    assert 'class="plot thumb"' not in text
    table = text[text.index("data-sortable") :]
    assert table.count("<tr>") == MANY + 1
    few = page_of(many(seen, MANY - 1))
    assert "data-sortable" not in few


@pytest.mark.browser
def test_the_table_of_many_models_is_sorted_by_its_heads(
    browser: Browser, tmp_path: Path, seen: list[tuple[RunView, Overview]]
) -> None:
    (tmp_path / "static").symlink_to(asset_dir() / "static")
    (tmp_path / "index.html").write_text(page_of(many(seen, 31)), encoding="utf-8")
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.goto((tmp_path / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    names = page.locator(".sortable tbody th")
    given = names.all_inner_texts()
    head = page.locator(".sortable thead th", has_text="directions")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    cells = [int(text) for text in page.locator(".sortable td:nth-child(3)").all_inner_texts()]
    assert cells == sorted(cells, reverse=True)
    assert len(set(cells)) > 1
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    first = page.locator(".sortable thead th").first
    first.get_by_role("button").click()
    expect(first).to_have_attribute("aria-sort", "ascending")
    assert names.all_inner_texts() == sorted(given)
    assert page.locator("[aria-sort]").count() == 1
    assert faults == []
    context.close()
