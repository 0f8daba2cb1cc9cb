"""One page of every type that a site has, and a browser's way to each."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Route

from builder.comparison import compare_runs
from builder.config import SiteSettings
from builder.pages import build_site, label_pages
from builder.pages.render import Renderer
from builder.pages.views import read_run
from builder.store import RunStore
from tests.findings.writing import write_finding

#: Where the site says that it is; only its page for no page asks for anything there.
URL = "https://atlas.example/"

#: Page types by name: what comes after the site's address; of several that fit the first is meant.
PAGE_TYPES: dict[str, str] = {
    "home": "index.html",
    "model": "m/pico-chat/index.html",
    "model with its base": "m/pico-lora/index.html",
    "direction": "m/pico-lora/l02.o_proj.u00.html",
    "control": "m/pico-chat/l02.random.u00.html",
    "search": "search.html?q=render",
    "search for nothing": "search.html?q=qqqqqqqq",
    "tokens": "tokens.html?q=render",
    "commonest tokens": "tokens.html",
    "triage": "triage.html",
    "findings": "findings/index.html",
    "finding": "findings/tide.html",
    "compare": "compare/*.html",
    "directions": "directions.html",
    "directions, one page": "all-labels.html",
    "labels": "labels/pico-chat/2.html",
    "methods": "methods.html",
    "downloads": "downloads.html",
    "no page": "404.html",
    "no page, alone": "404-plain.html",
}

_BODY = """The pole [[pico-chat/L02.o_proj.u00#max]] shows it; see [the other](other.md).

# Why

| a | b |
|---|--:|
| 1 | 2 |

```
code
```

A [link](../tokens.html), *emphasis*, `code`, and

> words of somebody else.
"""


def every_page(folder: Path, runs: list[Path]) -> Path:
    """A site with a page of every type, made in a folder."""
    write_finding(folder / "findings", "tide.md", _BODY, tags="[backdoor, 'two words']")
    write_finding(folder / "findings", "other.md", severity="low", status="rejected",
                  date="2026-11-20", claim="Not so")  # fmt: skip
    found = compare_runs(runs)
    settings = SiteSettings(
        examples=6, context=16, url=URL, findings=str(folder / "findings"), authors=("A. Reader",),
        warning="Quotes may be rude.", blur=("code-help",),
    )  # fmt: skip
    out = folder / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_pages, "LARGEST", 6_000)
        build_site(runs, out, settings, found.near, found.groups)
    # What a site has instead where its labels fit on one page, and where it has no address.
    renderer = Renderer(SiteSettings())
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(RunStore(run / "run.duckdb")) for run in runs]
        views = [read_run(run, store) for run, store in zip(runs, stores, strict=True)]
        ((path, template, values),) = label_pages.label_pages(views)
        (out / "all-labels.html").write_bytes(renderer.page(template, path, **values))
    (out / "404-plain.html").write_bytes(renderer.page("404-plain.html", "404.html"))
    return out


def address_of(site: Path, kind: str) -> str:
    """Where the page of a type opens from disk; the page for no page, where the site says it is."""
    path, _, query = PAGE_TYPES[kind].partition("?")
    if path == "404.html":
        return f"{URL}gone/from/here.html"
    return f"{min(site.glob(path)).as_uri()}{'?' if query else ''}{query}"


def published(context: BrowserContext, site: Path) -> None:
    """Lets a browser find the site at its address, with the page for no page wherever none is."""

    def answer(route: Route) -> None:
        file = site / route.request.url.removeprefix(URL).partition("?")[0]
        route.fulfill(path=file if file.is_file() else site / "404.html")

    context.route(f"{URL}**", answer)


def is_own(request: str, site: Path) -> bool:
    """Whether an address is one of the site's own."""
    return request.startswith((f"{site.as_uri()}/", URL))
