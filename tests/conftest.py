"""What all tests share: the browser, the real data beside the checkout, and strictness on skips.

Settings from the environment:

- ``WEIGHTATLAS_CHROMIUM``: path of the browser; else the first one on the PATH.
- ``WEIGHTATLAS_REQUIRE_BROWSER=1``: a missing browser is an error, not a skip.
- ``WEIGHTATLAS_SHARED``: folder of real data and models; else ``../shared`` beside the checkout.
- ``WEIGHTATLAS_GOLDEN=write``: the pages that tests keep are written anew (tests/pages/golden).
- ``WEIGHTATLAS_STRICT=1``: a skipped test fails the session, unless it is marked ``shared``.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Tests use no network. Set before any test module imports a hub client, which reads them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# Tokenizers warn when a process forks after they ran in threads; tests need no threads there.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent

BROWSERS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)

#: Fixture name to marker: whoever asks for the fixture is of that kind.
_MARKED_BY_FIXTURE = {"browser_path": "browser", "shared_dir": "shared"}
_MAY_SKIP = "weightatlas_may_skip"
_skipped = pytest.StashKey[list[str]]()


def _asked_for(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Path of a Chromium or Chrome; skips without one, or fails where one is required."""
    named = os.environ.get("WEIGHTATLAS_CHROMIUM", "")
    candidates = (named,) if named else BROWSERS
    path = next(filter(None, map(shutil.which, candidates)), None)
    if path is None:
        reason = f"no browser: {' or '.join(candidates)} not found; set WEIGHTATLAS_CHROMIUM"
        if _asked_for("WEIGHTATLAS_REQUIRE_BROWSER"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def browser(browser_path: str) -> Iterator[Browser]:
    """One Chromium for all tests of a process, which can hold no second driver."""
    # Imported here: the tests of skipping run this file where Playwright need not be.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray on this machine, to which this process is connected; it takes seconds to start."""
    with warnings.catch_warnings():
        # It leaves files of its own open that it starts processes with.
        warnings.simplefilter("ignore", ResourceWarning)
        import ray

        ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with the real ``data/`` and ``models/``; skips without it."""
    folder = Path(os.environ.get("WEIGHTATLAS_SHARED", "") or ROOT.parent / "shared").resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder / 'data'} is not a folder; set WEIGHTATLAS_SHARED")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_skipped] = []


# First, so that ``-m browser`` and ``-m shared`` already see the markers added here.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in _MARKED_BY_FIXTURE:
                item.add_marker(_MARKED_BY_FIXTURE[fixture])
        if item.get_closest_marker("shared"):
            # Markers do not travel from a worker process to the one that reports; this does.
            item.user_properties.append((_MAY_SKIP, "shared"))
    # A process takes a file at a time: a long one that came last would be waited for.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


class _SkipCollector:
    """Remembers what was skipped, in the process that reports (never in a worker)."""

    def __init__(self, config: pytest.Config) -> None:
        self.skipped = config.stash[_skipped]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        expected_failure = hasattr(report, "wasxfail")
        if report.skipped and not expected_failure:
            if any(key == _MAY_SKIP for key, _ in report.user_properties):
                return
            self._remember(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._remember(report.nodeid, report.longrepr)

    def _remember(self, nodeid: str, longrepr: object) -> None:
        reason = str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)
        entry = f"{nodeid}: {reason.removeprefix('Skipped: ')}"
        # Every worker reports a module that was skipped while it was collected.
        if entry not in self.skipped:
            self.skipped.append(entry)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    is_worker = hasattr(session.config, "workerinput")
    if _asked_for("WEIGHTATLAS_STRICT") and not is_worker:
        session.config.pluginmanager.register(_SkipCollector(session.config))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    # Before the terminal reporter prints, so that the exit status it shows is the final one.
    if session.config.stash[_skipped] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    yield


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    skipped = config.stash[_skipped]
    if skipped:
        terminalreporter.section("skipped, which WEIGHTATLAS_STRICT forbids", red=True)
        for entry in skipped:
            terminalreporter.line(entry, red=True)
