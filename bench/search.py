"""How fast is the search of a site, and does it find what one looks for? From disk, in Chromium.

    WEIGHTATLAS_CHROMIUM=/usr/bin/chromium python bench/search.py FOLDER [--directions 5000 100000]

Makes models up (bench/made_up_labels.py; both poles of every direction labelled), writes their
search page as a build does, and prints for every size and seed:

- ready: milliseconds from the start of the navigation to `search.html?q=...` until its results
  stand and no model is missing, in a new browser profile each time;
- keystroke: milliseconds from the end of the pause that is waited for after a key to the results in
  the page and laid out, over every prefix of many queries, mistyped ones among them;
- mean reciprocal rank of a label by two of its words, and by two of which one is mistyped, for the
  site's search and for MiniSearch (prefix, fuzzy 0.2, all words), with the same weights of fields
  and without. MiniSearch is installed by npm into FOLDER; it is no part of a site.

`--rows 100000` and the like are half as many directions. `--no-minisearch`: without npm and node.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.made_up_labels import made_up_peaks, made_up_run, made_up_words  # noqa: E402
from builder.config import SiteSettings  # noqa: E402
from builder.pages.render import Renderer  # noqa: E402
from builder.pages.search_data import search_page, search_scripts  # noqa: E402

MINISEARCH = "minisearch@7.2.0"
PER_MODEL = 12_500
#: Times the page is opened, and queries typed in Chromium.
OPENED, TYPED = 7, 40
#: Waits for results of a query over all models and keeps when they stood; times what a pause runs.
WATCH = """
window.readyAt = 0; window.times = [];
const wait = window.setTimeout;
window.setTimeout = (task, delay, ...more) => wait((...given) => {
    const from = performance.now();
    task(...given);
    document.body.getBoundingClientRect();
    if (delay === DELAY) window.times.push(performance.now() - from);
}, delay, ...more);
new MutationObserver(() => {
    const said = document.getElementById("status")?.textContent ?? "";
    if (!window.readyAt && said.includes("found") && !said.includes("searching")) {
        document.body.getBoundingClientRect();
        window.readyAt = performance.now();
    }
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


def write_site(folder: Path, directions: int, seed: int) -> tuple[float, int]:
    """The search page over so many directions; megabytes of its scripts, and how many they are."""
    rng = np.random.default_rng(seed)
    words = made_up_words(rng)
    sizes = [min(PER_MODEL, directions - at) for at in range(0, directions, PER_MODEL)]
    runs = [made_up_run(f"m{at}", size, rng, words) for at, size in enumerate(sizes)]
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    shutil.copytree(ROOT / "static", folder / "static")
    scripts = []
    for run in runs:
        alike = [[]] * (2 * len(run.directions))  # type: list[list[int]]
        for path, content in search_scripts(run, alike, made_up_peaks(run, rng, words)):
            (folder / path).write_bytes(content)
            scripts.append(len(content))
    page = Renderer(SiteSettings(title="bench")).page(
        "search.html", "search.html", **search_page(runs)
    )
    (folder / "search.html").write_bytes(page)
    return sum(scripts) / 1e6, len(scripts)


def queries(folder: Path, seed: int, n: int) -> list[dict[str, Any]]:
    """Labels drawn at random, each with two of its words, and with one of the two mistyped."""
    rng = np.random.default_rng(seed)
    labels = []
    for path in sorted((folder / "data").iterdir()):
        text = path.read_text(encoding="utf-8")
        run, _, data = text[len("WA.add(") : -len(");\n")].partition(",")
        held = json.loads(data)
        for at, label in enumerate(held["labels"].split("\n")):
            labels.append((f"{json.loads(run)} {2 * held['first'] + at}", label))
    found: list[dict[str, Any]] = []
    while len(found) < n:
        key, label = labels[int(rng.integers(len(labels)))]
        words = sorted(set(label.split()))
        long = [word for word in words if len(word) >= 4]
        if len(words) < 2 or not long:
            continue
        wrong = str(rng.choice(long))
        other = str(rng.choice([word for word in words if word != wrong]))
        both = [str(word) for word in rng.choice(words, 2, replace=False)]
        mistyped = rng.permutation([mistype(wrong, rng), other]).tolist()
        found.append({"key": key, "words": " ".join(both), "typo": " ".join(mistyped)})
    return found


def mistype(word: str, rng: np.random.Generator) -> str:
    """One letter more, less, or another, or two neighbours swapped; never the word itself."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    while True:
        at, letter = int(rng.integers(len(word))), str(rng.choice(list(letters)))
        made = (
            word[:at] + letter + word[at:],
            word[:at] + word[at + 1 :],
            word[:at] + letter + word[at + 1 :],
            word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
        )[int(rng.integers(4))]
        if made != word:
            return made


def open_pages(browser: Browser, folder: Path, asked: list[dict[str, Any]]) -> list[float]:
    """Milliseconds until the page is ready, each time as if for the first time."""
    found = []
    for query in asked[:OPENED]:
        context = browser.new_context()
        page = context.new_page()
        page.add_init_script(WATCH.replace("DELAY", "80"))
        page.goto(f"{(folder / 'search.html').as_uri()}?q={query['words'].replace(' ', '+')}")
        page.wait_for_function("window.readyAt > 0", timeout=60_000)
        found.append(float(page.evaluate("window.readyAt")))
        context.close()
    return found


def type_queries(browser: Browser, folder: Path, asked: list[dict[str, Any]]) -> list[float]:
    """Milliseconds from the end of the pause after a key to the results of what is typed so far."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(WATCH.replace("DELAY", "80"))
    page.goto(f"{(folder / 'search.html').as_uri()}?q=a")
    page.wait_for_function("window.readyAt > 0", timeout=60_000)
    typed = [
        text[:end]
        for at, query in enumerate(asked[:TYPED])
        for text in [query["typo"] if at % 2 else query["words"]]
        for end in range(1, len(text) + 1)
    ]
    page.evaluate("window.times.length = 0")
    page.evaluate(
        """async (typed) => {
            const box = document.getElementById("q");
            for (const text of typed) {
                const before = window.times.length;
                box.value = text;
                box.dispatchEvent(new Event("input", { bubbles: true }));
                while (window.times.length === before) await new Promise(requestAnimationFrame);
            }
        }""",
        typed,
    )
    found: list[float] = page.evaluate("window.times")
    heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
    print(f"| JavaScript heap, MB | {heap:.0f} |")
    context.close()
    return found


def ranks(folder: Path, asked: list[dict[str, Any]], modules: Path) -> dict[str, Any]:
    """Mean reciprocal ranks by both searches, as bench/search.mjs finds them."""
    given = folder / "queries.json"
    given.write_text(json.dumps(asked), encoding="utf-8")
    command = ["node", "--max-old-space-size=8192", str(ROOT / "bench" / "search.mjs")]
    done = subprocess.run(
        [*command, str(folder), str(given), str(modules / "node_modules" / "minisearch")],
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--directions", type=int, nargs="+", default=[5_000, 50_000, 100_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--no-minisearch", action="store_true")
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.no_minisearch:
        install = ["npm", "install", "--silent", "--prefix", str(options.folder), MINISEARCH]
        subprocess.run(install, check=True, stdout=sys.stderr)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("WEIGHTATLAS_CHROMIUM"), args=["--no-sandbox"]
        )
        for directions in options.directions:
            for seed in options.seeds:
                folder = options.folder / "site"
                size, scripts = write_site(folder, directions, seed)
                asked = queries(folder, seed + 1000, options.queries)
                print(f"\n{directions:,} directions, {2 * directions:,} poles, seed {seed}\n")
                print("| | |\n|---|---:|")
                print(f"| scripts, MB | {scripts}, {size:.1f} |")
                if not options.no_browser:
                    opened = open_pages(browser, folder, asked)
                    shown = f"{np.median(opened):.0f}, {max(opened):.0f}"
                    print(f"| ready, ms: median, largest of {OPENED} | {shown} |")
                    times = type_queries(browser, folder, asked)
                    shown = ", ".join(f"{np.percentile(times, p):.1f}" for p in (50, 95, 100))
                    print(f"| keystroke, ms: median, 95%, largest of {len(times)} | {shown} |")
                if not options.no_minisearch:
                    for name, value in ranks(folder, asked, options.folder).items():
                        print(f"| {name} | {value} |")
                sys.stdout.flush()
        browser.close()


if __name__ == "__main__":
    main()
