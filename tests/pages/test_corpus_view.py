"""Pages say where tails come from, whether they still rise, and how far tuning moved the tokens."""

from __future__ import annotations

import html
import re
from pathlib import Path

from builder.pages import formats
from builder.pages.corpus_view import ENRICHED, RISING
from builder.pages.views import RunView, read_run
from builder.store import RunStore


def run_of(folder: Path) -> RunView:
    with RunStore(folder / "run.duckdb") as store:
        return read_run(folder, store)


def section(page: str, name: str) -> str:
    """From one heading to the next."""
    found = page.partition(f'<h2 id="{name}">')[2].partition("<h2 ")[0]
    assert found
    return html.unescape(found)


def test_sources_are_shown_with_both_shares_and_marked_where_enriched(
    site: Path, run_folders: list[Path]
) -> None:
    run = run_of(run_folders[0])
    marks = 0
    with RunStore(run_folders[0] / "run.duckdb") as store:
        for item in run.directions:
            text = section((site / item.page).read_text(encoding="utf-8"), "sources")
            rows = re.findall(r"<tr><th scope=row>(.*?)</tr>", text)
            held = store.sources(item.row.id)
            assert len(rows) == len(held)
            for row, share in zip(rows, held, strict=True):
                assert share.source in row
                assert ("enriched" in row) == (share.q_value < ENRICHED)
                part = share.n / share.tail
                assert f"<td class={formats.bar_class(part)}>{formats.share(part)}</td>" in row
                assert formats.share(share.documents / share.all_documents) in row
                marks += share.q_value < ENRICHED
    assert marks


def test_an_extreme_that_still_rises_is_said_to(site: Path, run_folders: list[Path]) -> None:
    run = run_of(run_folders[0])
    said: set[bool] = set()
    with RunStore(run_folders[0] / "run.duckdb") as store:
        for item in run.directions:
            text = section((site / item.page).read_text(encoding="utf-8"), "saturation")
            shown = [
                "still rising" in part for part in re.findall("<figcaption>.*?</figcaption>", text)
            ]
            gains = [held.gain for held in store.saturation(item.row.id)]
            assert shown == [gain is not None and gain > RISING for gain in gains]
            said |= set(shown)
    assert said == {True, False}


def test_random_documents_wait_for_the_script(site: Path, run_folders: list[Path]) -> None:
    with RunStore(run_folders[0] / "run.duckdb") as store:
        for item in run_of(run_folders[0]).directions:
            text = section((site / item.page).read_text(encoding="utf-8"), "between")
            n = len(store.quantile_examples(item.row.id))
            # What they say lies in the page's file: see test_examples.
            assert f"<summary>{n // 2} at each pole</summary></details>" in text


def test_the_base_stands_beside_the_tuned_model_where_it_was_scanned(
    site: Path, run_folders: list[Path]
) -> None:
    without, scanned = (run_of(folder) for folder in run_folders)
    for item in without.directions:
        assert not item.shifts
        assert "Against the base" not in (site / item.page).read_text(encoding="utf-8")
    for item in scanned.directions:
        page = html.unescape((site / item.page).read_text(encoding="utf-8"))
        text = page.partition("Against the base at")[2]
        rows = re.findall(r"<tr><th scope=row>(.*?)</tr>", text)[: len(item.shifts)]
        assert item.shifts
        for row, shift, extent in zip(rows, item.shifts, item.base_ranges, strict=True):
            assert row.startswith(shift.role)
            assert formats.signed(extent.minimum, 4) in row
            assert formats.share(shift.outside) in row
            assert formats.signed(shift.mean, 4) in row


def test_near_duplicates_are_counted_by_source(site: Path, run_folders: list[Path]) -> None:
    run = run_of(run_folders[0])
    page = (site / run.page).read_text(encoding="utf-8")
    page = page[page.index('id="coverage"') :]
    counted = {(count.what, count.name): count.n for count in run.counts}
    copies = 0
    for source in run.document_shares():
        row = re.search(rf'<th scope="row"><bdi>{source}</bdi></th>(.*?)</tr>', page)
        assert row is not None
        documents, further = re.findall(r'<td class="n">(.*?)</td>', row[1])[:2]
        assert documents == formats.whole(counted["documents", source])
        n = counted["documents", source] - counted["distinct", source]
        assert further == formats.whole(n)
        copies += n
    assert copies
