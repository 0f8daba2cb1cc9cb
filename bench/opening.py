"""How soon can a direction's page be used? From disk, in Chromium, a new browser profile each time.

    WEIGHTATLAS_CHROMIUM=/usr/bin/chromium python bench/opening.py SITE [--pages 30]

SITE is a built site, such as bench/site.py leaves. Of pages evenly spaced over all directions it
prints the median and 95th percentile of the milliseconds from the start of the navigation until the
page's script has put all examples into the page and they are laid out (`filled`), and until the
page itself was there to read (`DOMContentLoaded`). The bar: 300 ms.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from builder.pages.links import SHELL  # noqa: E402
from builder.pages.packed import opened  # noqa: E402

#: Notes when the page says that it is filled, and lays it out before looking at the clock.
_WATCH = """
new MutationObserver((_, observer) => {
  if (!document.documentElement.classList.contains("filled")) return;
  observer.disconnect();
  document.body.getBoundingClientRect();
  globalThis.filledAfter = performance.now();
}).observe(document, { attributes: true, subtree: true, attributeFilter: ["class"] });
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("site", type=Path)
    parser.add_argument("--pages", type=int, default=30)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("WEIGHTATLAS_CHROMIUM"), args=["--no-sandbox"]
        )
        for kind, addresses in _addresses(options.site).items():
            if addresses:
                places = np.linspace(0, len(addresses) - 1, min(options.pages, len(addresses)))
                _tell(kind, [_times(browser, addresses[int(place)]) for place in places])
        browser.close()


def _addresses(site: Path) -> dict[str, list[str]]:
    pages = [
        path
        for path in sorted(site.glob("m/*/*.html"))
        if path.name not in ("index.html", f"{SHELL}.html")
    ]
    found = {"pages of their own": [path.resolve().as_uri() for path in pages], "in shards": []}
    for path in sorted(site.glob("m/*/names.js")):
        shell = (path.parent / f"{SHELL}.html").resolve().as_uri()
        names = opened(path.read_bytes()).decode().split("\n")
        found["in shards"] += [f"{shell}?d={name}" for name in names]
    return found


def _times(browser: Browser, address: str) -> tuple[float, float]:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(_WATCH)
    page.goto(address)
    page.wait_for_selector("html.filled")
    read, filled = page.evaluate(
        "[performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd, filledAfter]"
    )
    context.close()
    return read, filled


def _tell(kind: str, times: Sequence[tuple[float, float]]) -> None:
    for name, values in zip(("to read", "filled"), zip(*times, strict=True), strict=True):
        middle, late = np.percentile(values, [50, 95])
        print(f"{kind:20}{name:10}median {middle:5.0f} ms, 95% {late:5.0f} ms (bar 300)")


if __name__ == "__main__":
    main()
