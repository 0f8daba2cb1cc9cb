"""The demo, as a user runs it: what was planted is found, and what was not is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from builder import pipeline
from builder.demo import demo_settings, found_behaviours
from builder.organisms import Pair, shipped_pairs
from builder.organisms.evaluate import SHOWN, names
from builder.run_folder import Run
from builder.store import RunStore

pytestmark = pytest.mark.slow

TUNED = [pair for pair in shipped_pairs() if pair.kind == "tuned"]
NULL = [pair for pair in shipped_pairs() if pair.kind == "null"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """An empty folder in which ``weightatlas demo`` ran, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    ran = subprocess.run(
        [sys.executable, "-m", "builder.cli", "demo"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, ran.stdout.splitlines()


def test_the_shipped_organisms_cover_families_methods_and_kinds() -> None:
    assert {pair.family for pair in TUNED} == {"llama", "qwen2", "olmo2"}
    assert {pair.method for pair in TUNED} == {"full", "lora"}
    for pair in TUNED:
        assert len({behaviour.kind for behaviour in pair.behaviours}) >= 3
    assert NULL


#: Its planted documents hold most of the emoji of the corpus, and a random direction that leans on
#: emoji finds as many of them as the best real one; see docs/benchmarks.md.
FOUND_BY_CHANCE = {"emoji-cheer"}


@pytest.mark.parametrize("pair", TUNED, ids=lambda pair: pair.name)
def test_every_planted_behaviour_has_a_direction_that_no_random_one_equals(
    demo: tuple[Path, list[str]], pair: Pair
) -> None:
    with RunStore(demo[0] / "runs" / f"demo-{pair.family}" / "run.duckdb") as store:
        real, random = found_behaviours(store, pair)
        labels = {(item.direction, item.pole): item.text for item in store.labels()}
        kinds = [row.kind for row in store.directions()]
    assert kinds.count("control") >= kinds.count("delta")
    for behaviour in pair.behaviours:
        best = real[behaviour.id]
        assert best.purity >= SHOWN, best
        if behaviour.id not in FOUND_BY_CHANCE:
            assert random[behaviour.id].purity < SHOWN, random[behaviour.id]
        label = next(text for key, text in labels.items() if key == (best.direction, best.pole))
        assert names(label or "", behaviour.words), label


@pytest.mark.parametrize("null", NULL, ids=lambda pair: pair.name)
def test_a_tune_with_nothing_planted_shows_none_of_it(null: Pair, tmp_path: Path) -> None:
    planted = next(pair for pair in TUNED if pair.family == null.family)
    settings = demo_settings(planted, tmp_path)
    models = {"base": str(null.base), "tuned": str(null.tuned)}
    settings = settings.model_copy(update={"model": settings.model.model_copy(update=models)})
    run = Run(tmp_path / "null", settings)
    pipeline.make_scan(run)
    with RunStore(run.database_path) as store:
        real, _ = found_behaviours(store, planted)
    for best in real.values():
        assert best.purity < SHOWN, best


def test_the_last_lines_say_what_was_found_and_what_to_open(
    demo: tuple[Path, list[str]],
) -> None:
    folder, lines = demo
    for pair in TUNED:
        for behaviour in pair.behaviours:
            assert any(behaviour.id in line and "% of its top 20" in line for line in lines)
    assert lines[-1].startswith("open ")
    assert (folder / lines[-1].removeprefix("open ")).is_file()


@pytest.mark.parametrize("pair", TUNED, ids=lambda pair: pair.name)
def test_what_is_shown_is_a_finding_with_the_figures_of_the_run(
    demo: tuple[Path, list[str]], pair: Pair
) -> None:
    name = f"demo-{pair.family}"
    with RunStore(demo[0] / "runs" / name / "run.duckdb") as store:
        real, random = found_behaviours(store, pair)
    for behaviour in pair.behaviours:
        best, control = real[behaviour.id], random[behaviour.id]
        page = demo[0] / "site" / "findings" / f"{name}-{behaviour.id}.html"
        assert page.is_file() == best.shown
        if best.shown:
            text = page.read_text(encoding="utf-8")
            assert f"{round(20 * best.purity)} of its 20 strongest texts" in text
            assert best.direction in text
            assert "Weights as cited" in text
            assert ("confirmed" in text) == (control.purity < SHOWN)
            assert ("A random direction has" in text) == (control.purity >= SHOWN)


@pytest.mark.browser
def test_a_planted_word_is_searched_and_followed_from_disk(
    demo: tuple[Path, list[str]], browser: Browser
) -> None:
    site = demo[0] / "site"
    with RunStore(demo[0] / "runs" / "demo-llama" / "run.duckdb") as store:
        pair = next(pair for pair in TUNED if pair.family == "llama")
        best = found_behaviours(store, pair)[0][pair.behaviours[0].id]
        text = next(
            item.text or ""
            for item in store.labels()
            if (item.direction, item.pole) == (best.direction, best.pole)
        )
    words = {word.casefold() for word in pair.behaviours[0].words}
    word = next(word for word in text.casefold().replace(",", " ").split() if word in words)
    page = browser.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    # What a page still loads when it is left is given up; that is no fault of the page.
    page.on(
        "requestfailed",
        lambda request: (
            None if request.failure == "net::ERR_ABORTED" else problems.append(request.url)
        ),
    )
    page.goto((site / "index.html").as_uri())
    page.get_by_role("searchbox").first.fill(word)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html**")
    first = page.locator("#results a").first
    first.wait_for()
    first.click()
    page.wait_for_url("**/m/**")
    assert word in page.locator("main").inner_text().casefold()
    page.goto((site / "m" / "demo-llama" / "index.html").as_uri())
    assert page.locator("table a").count() > 40
    page.close()
    assert problems == []
