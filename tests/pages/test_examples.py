"""The file of a direction's page holds every example and random document, value by value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from builder.config import SiteSettings
from builder.pages.direction_view import DirectionPage, PageReader
from builder.pages.example_view import IN_PAGE, opening, role_runs
from builder.pages.peaks import pole_peaks
from builder.pages.spans import near_peak, plain
from builder.pages.views import DirectionView, RunView, read_run
from builder.records import ACTIVATION_SCALE, ANY_ROLE, POLES, ROLES, Example
from builder.store import RunStore
from tests.pages.conftest import SMALL, page_of
from tests.pages.packing import Packed, pieces_of, random_texts, script_of

#: Each built site with its runs and its settings.
SITES = pytest.mark.parametrize(
    ("which", "folders", "settings"),
    [
        ("site", "run_folders", SMALL),
        ("hostile_site", "hostile_folder", SiteSettings(examples=20)),
    ],
)


def pages_of(
    request: pytest.FixtureRequest, which: str, folders: str
) -> Iterator[tuple[Path, RunView, RunStore, DirectionView]]:
    """Every direction of every run of a site, with the run's database."""
    site, found = request.getfixturevalue(which), request.getfixturevalue(folders)
    for folder in found if isinstance(found, list) else [found]:
        with RunStore(folder / "run.duckdb") as store:
            run = read_run(folder, store)
            for item in run.directions:
                yield site, run, store, item


def listed(
    store: RunStore, direction: str, settings: SiteSettings
) -> dict[tuple[str, str, int], tuple[Example, int]]:
    """What is to be in the file, by pole, role and document: 1 in the joint list, 2 its role's."""
    found: dict[tuple[str, str, int], tuple[Example, int]] = {}
    ranked = [e for e in store.examples(direction) if e.place < settings.examples // 2]
    best = [
        e for e in store.examples(direction, role=ANY_ROLE) if e.place < settings.examples
    ]  # fmt: skip
    for lists, examples in ((2, ranked), (1, best)):
        for example in examples:
            key = (example.pole, example.role, example.window.doc_id)
            found[key] = (example, found.get(key, (example, 0))[1] | lists)
    return found


def assert_close(found: Packed, place: slice, example: Example) -> None:
    """That activations are those of the example's tokens, and the base's where it was scanned."""
    wanted = example.activations / ACTIVATION_SCALE
    assert np.abs(found.tuned[place] - wanted).max() <= found.half_a_step
    assert (found.base is None) == (example.base_activations is None)
    if found.base is not None and example.base_activations is not None:
        wanted = example.base_activations / ACTIVATION_SCALE
        assert np.abs(found.base[place] - wanted).max() <= found.half_a_step


@SITES
def test_every_example_is_in_the_file_of_its_page(
    request: pytest.FixtureRequest, which: str, folders: str, settings: SiteSettings
) -> None:
    bases = set()
    for site, _, store, item in pages_of(request, which, folders):
        script = script_of(site, item)
        wanted = listed(store, item.row.id, settings)
        extents = {extent.role: extent for extent in item.ranges}
        rows = script.header["examples"]
        assert len(rows) == len(wanted) == len(script.texts)
        ranks = [(pole, (-1) ** (pole == 0) * value) for pole, _, _, value, *_ in rows]
        assert ranks == sorted(ranks), "the most extreme first, at the max pole first"
        for row, pieces, at, place in zip(
            rows, script.texts, range(len(rows)), script.examples(), strict=True
        ):
            pole, role, lists, value, distance, source, doc, copies, repeats, start, peak, runs = (
                row
            )
            example, expected = wanted.pop((POLES[pole], ROLES[role], doc))
            context = settings.context if lists & 1 else opening(settings.context)
            kept = near_peak(example, context)
            extent = extents[example.role]
            assert lists == expected
            assert value == pytest.approx(example.value, abs=6e-5)
            assert distance == pytest.approx((example.value - extent.mean) / extent.std, abs=0.06)
            assert script.header["sources"][source] == plain(example.window.source)
            assert (copies, repeats) == (example.duplicates, example.repeats)
            assert (start, peak) == (kept.window.start, kept.peak)
            assert runs == role_runs(kept.roles.tolist())
            assert (pieces, script.counts(at)) == pieces_of(kept.window)
            assert_close(script, place, kept)
        assert wanted == {}
        bases.add(script.base is not None)
    assert bases == ({True, False} if which == "site" else {False})


@SITES
def test_random_documents_lie_in_one_file_for_all_pages_of_a_run(
    request: pytest.FixtureRequest, which: str, folders: str, settings: SiteSettings
) -> None:
    for site, run, store, item in pages_of(request, which, folders):
        script, shared = script_of(site, item), random_texts(site, run.name)
        windows = [*store.reservoir(), *store.held_out()]
        assert len(shared.texts) == len(shared.header["windows"]) == len(windows)
        for at, window in enumerate(windows):
            source, doc, start = shared.header["windows"][at]
            assert shared.header["sources"][source] == plain(window.source)
            assert (doc, start) == (window.doc_id, window.start)
            assert (shared.texts[at], shared.counts(at)) == pieces_of(window)
        examples = store.quantile_examples(item.row.id)
        nearest_first = sorted(examples, key=lambda e: (POLES.index(e.pole), -e.place))
        rows = script.header["between"]
        for row, place, example in zip(rows, script.between(), nearest_first, strict=True):
            pole, reach, value, at, copies, peak, role, first, tokens, runs = row
            n = sum(other.pole == example.pole for other in examples)
            assert (POLES[pole], ROLES[role]) == (example.pole, example.role)
            assert reach == pytest.approx((example.place + 0.5) / n, abs=6e-4)
            assert value == pytest.approx(example.value, abs=6e-5)
            assert (copies, peak) == (example.duplicates, example.peak)
            assert windows[at].text == example.window.text
            kept = near_peak(example, opening(settings.context))
            assert (first, tokens) == (
                kept.window.start - example.window.start, len(kept.activations),
            )  # fmt: skip
            roles = [of for of, n in runs or [(role, tokens)] for _ in range(n)]
            assert roles == kept.roles.tolist()
            assert_close(script, place, kept)
        ends = [part.stop for part in (*script.examples(), *script.between())]
        assert ends[-1] == len(script.tuned), "nothing is left over"


@SITES
def test_the_first_examples_of_the_joint_list_stand_in_the_page_itself(
    request: pytest.FixtureRequest, which: str, folders: str, settings: SiteSettings
) -> None:
    for site, _, store, item in pages_of(request, which, folders):
        page = page_of(site, item)
        counts = dict.fromkeys((ANY_ROLE, *ROLES), 0)
        for example, lists in listed(store, item.row.id, settings).values():
            counts[ANY_ROLE] += lists & 1
            counts[example.role] += lists > 1
        said = re.findall(r'<label for="role-\w+">(\w+) <small>(\d+)</small>', page)
        assert {name: int(n) for name, n in said} == {k: n for k, n in counts.items() if n}
        for pole in POLES:
            block = page[page.index(f'id="{pole}" aria-labelledby') :]
            found = re.findall(r"<article [^>]*id=(\S+) data-role=(\w+)>", block)
            best = store.examples(item.row.id, pole=pole, role=ANY_ROLE)[:IN_PAGE]
            wanted = [(f"{pole}-{e.role}-{e.window.doc_id}", e.role) for e in best]
            assert [pair for pair in found if pair[0].startswith(pole)] == wanted


def test_a_page_is_the_same_whichever_others_are_read_with_it(run_folders: list[Path]) -> None:
    def made(pages: Iterator[DirectionPage]) -> list[object]:
        return [
            (p.content, p.peaks, p.scale, p.scores, p.corpus, p.alike,
             [html for pole in POLES for _, html in p.examples.html[pole]])
            for p in pages
        ]  # fmt: skip

    with RunStore(run_folders[1] / "run.duckdb") as store:
        reader = PageReader(run := read_run(run_folders[1], store), store, SMALL)
        together = made(reader.pages(run.directions))
        alone = [made(reader.pages([item]))[0] for item in reversed(run.directions)]
    assert together == alone[::-1]


def test_lists_over_a_run_say_of_peaks_what_the_pages_say(run_folders: list[Path]) -> None:
    for folder in run_folders:
        with RunStore(folder / "run.duckdb") as store:
            run = read_run(folder, store)
            pages = PageReader(run, store, SMALL).pages(run.directions)
            of_pages = {
                (item.row.id, pole): peaks
                for item, page in zip(run.directions, pages, strict=True)
                for pole, peaks in page.peaks.items()
                if peaks
            }
            found = pole_peaks(store.peaks(SMALL.examples), run.document_shares())
            assert {key: peaks.stats for key, peaks in found.items()} == of_pages
        assert of_pages
