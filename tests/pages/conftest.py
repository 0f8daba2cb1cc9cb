"""Sites of the fixture runs, built once, and a browser to open them in."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, expect

from builder.comparison import compare_runs
from builder.config import SiteSettings
from builder.pages import build_site
from builder.pages.views import DirectionView, RunView, read_run
from builder.store import RunStore
from tests.pages.fixture import make_run
from tests.pages.page_types import address_of, every_page

#: As the settings of a small atlas: what a test looks at does not grow with the examples.
SMALL = SiteSettings(examples=6, context=16)


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two ordinary runs: a full fine-tune and an adapter."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(
            folder / "one", name="pico-chat", title="Pico Chat", seed=1, ranks=3, documents=75,
        ),
        make_run(
            folder / "two", name="pico-lora", title="Pico LoRA", seed=2, adapter=True,
            ranks=3, documents=40, with_base=True,
        ),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one layer, for tests that build many sites."""
    folder = tmp_path_factory.mktemp("tiny")
    return [
        make_run(folder / name, name=name, title=name, seed=5, layers=1, ranks=1, documents=12)
        for name in ("pico-chat", "pico-lora")
    ]


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every text is an attack or a character that hides."""
    return make_run(
        tmp_path_factory.mktemp("runs") / "hostile",
        name="hostile", title="<script>window.owned=0</script>\u202e{{ 7*7 }}",
        seed=3, hostile=True, layers=2, ranks=2, documents=66,
    )  # fmt: skip


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, run_folders: list[Path]) -> Path:
    """The built site of the ordinary runs."""
    out = tmp_path_factory.mktemp("sites") / "site"
    found = compare_runs(run_folders)
    assert found.faults == ()
    build_site(run_folders, out, SMALL, found.near, found.groups)
    return out


@pytest.fixture(scope="session")
def hostile_site(tmp_path_factory: pytest.TempPathFactory, hostile_folder: Path) -> Path:
    """The built site of the hostile run."""
    out = tmp_path_factory.mktemp("sites") / "hostile"
    build_site(
        [hostile_folder],
        out,
        SiteSettings(title="</title><script>window.owned=1</script>", examples=20),
    )
    return out


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory, run_folders: list[Path]) -> Path:
    """A site with a page of every type."""
    return every_page(tmp_path_factory.mktemp("atlas"), run_folders)


@pytest.fixture(scope="session")
def run(run_folders: list[Path]) -> RunView:
    """The first of the ordinary runs, as its pages see it."""
    with RunStore(run_folders[0] / "run.duckdb") as store:
        return read_run(run_folders[0], store)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def page_of(site: Path, item: DirectionView) -> str:
    """The page of a direction."""
    return (site / item.page).read_text(encoding="utf-8")


def address(folder: Path, page: str = "") -> str:
    """Where a page of a built site opens from disk."""
    return f"{folder.as_uri()}/{page}"


def ready(page: Page) -> None:
    """Waits until search has all its models."""
    expect(page.locator("#status")).to_contain_text("pole")
    expect(page.locator("#status")).not_to_contain_text("searching")


#: Waits, a frame at a time, until nothing that a selector finds is left; sooner than `expect` does.
_UNTIL_NONE = """async (selector) => {
    for (let frame = 0; frame < 200 && document.querySelector(selector); frame++)
        await new Promise((done) => requestAnimationFrame(done));
}"""


def filled(page: Page) -> None:
    """Waits until a direction's page has all that its script puts in."""
    page.evaluate(_UNTIL_NONE, "html:not(.filled)")
    expect(page.locator("html")).to_have_class(re.compile("filled"))


def unfold(page: Page) -> None:
    """Opens all that is folded on a page, what the script puts in among it."""
    if page.locator("#max.pole").count():
        filled(page)
    page.evaluate(
        "() => { for (const it of document.querySelectorAll('details')) it.open = true; }"
    )
    page.evaluate(
        _UNTIL_NONE, "details:is([data-between], [data-judged]):not(:has(article, table, .warn))"
    )
    for fold in page.locator("details:is([data-between], [data-judged])").all():
        expect(fold.locator("article, table").first).to_be_attached()


def go_to(page: Page, site: Path, kind: str) -> None:
    """Opens the page of a type and waits until it has all that its script puts in."""
    page.goto(address_of(site, kind))
    page.wait_for_load_state("networkidle")
    if kind in ("direction", "control"):
        filled(page)
    elif kind.startswith("search"):
        ready(page)
    elif kind == "tokens":
        expect(page.locator("#found h2").first).to_be_visible()
    elif kind == "triage":
        expect(page.locator("#min-examples li").first).to_be_visible()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="session")
def served(site: Path) -> Iterator[str]:
    """Address of the site under a sub-path of a local server."""
    # The folder above is served, so that the site lies under a path, as on a project's host.
    handler = functools.partial(_Quiet, directory=str(site.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{site.name}/"
        server.shutdown()
        thread.join()


@dataclass
class Opened:
    """A page under watch: what went wrong on it, and what it asked for."""

    page: Page
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Notes errors, dialogs, failed and all other requests from now on."""
        self.page.on("console", lambda m: self.faults.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("requestfailed", self._failed)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "response",
            lambda r: self.faults.append(f"{r.status} {r.url}") if r.status >= 400 else None,
        )

    def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _failed(self, request: Request) -> None:
        # What is under way when a page is left is given up; that is no fault.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.faults.append(f"failed: {request.url}")


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """A new page at desktop width with everything watched."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(10_000)
    found = Opened(context.new_page())
    found.watch()
    yield found
    context.close()
