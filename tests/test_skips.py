"""Skips are honest: strict sessions refuse them, and a browser can be required."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parent / "conftest.py"

STRICT_SUITE = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="for no good reason")
def test_skipped():
    pass

@pytest.mark.shared
def test_reads_shared():
    pytest.skip("no real data")

def test_wants_the_shared_folder(shared_dir):
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_known_failure():
    assert False
"""


def run_suite(
    folder: Path, suite: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_bytes(CONFTEST.read_bytes())
    (folder / "test_suite.py").write_text(suite, encoding="utf-8")
    (folder / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    browser: b\n    shared: s\n", encoding="utf-8"
    )
    inherited = {key: os.environ[key] for key in os.environ if not key.startswith("WEIGHTATLAS_")}
    # Started inside a pytest worker, the inner session must not take itself for one.
    inherited.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments],
        cwd=folder,
        env={**inherited, "WEIGHTATLAS_SHARED": str(folder / "missing"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_strict_session_fails_for_a_skip_and_lists_it(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    done = run_suite(tmp_path, STRICT_SUITE, *workers, WEIGHTATLAS_STRICT="1")
    listed = re.findall(r"^test_suite\.py::(\w+): (.*)$", done.stdout, re.MULTILINE)

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert listed == [("test_skipped", "for no good reason")]
    assert re.search(r"1 passed, 3 skipped, 1 xfailed", done.stdout)


def test_skips_pass_without_strictness(tmp_path: Path) -> None:
    assert run_suite(tmp_path, STRICT_SUITE).returncode == pytest.ExitCode.OK


def test_strict_session_passes_when_only_permitted_tests_are_skipped(tmp_path: Path) -> None:
    suite = STRICT_SUITE.replace('@pytest.mark.skip(reason="for no good reason")', "")

    done = run_suite(tmp_path, suite, WEIGHTATLAS_STRICT="1")

    assert done.returncode == pytest.ExitCode.OK, done.stdout


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_strict_session_fails_for_a_module_skipped_as_a_whole(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    suite = (
        "import pytest\n"
        "pytest.skip('not today', allow_module_level=True)\n"
        "def test_never_seen(): pass\n"
    )
    (tmp_path / "test_other.py").write_text("def test_passes(): pass\n", encoding="utf-8")

    done = run_suite(tmp_path, suite, *workers, WEIGHTATLAS_STRICT="1")

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert done.stdout.count("not today") >= 1


def test_a_missing_browser_is_an_error_only_where_one_is_required(tmp_path: Path) -> None:
    suite = "def test_browses(browser_path): assert browser_path"
    missing = {"WEIGHTATLAS_CHROMIUM": str(tmp_path / "missing")}

    skipped = run_suite(tmp_path, suite, **missing)
    required = run_suite(tmp_path, suite, **missing, WEIGHTATLAS_REQUIRE_BROWSER="1")

    assert "1 skipped" in skipped.stdout
    assert skipped.returncode == pytest.ExitCode.OK
    assert required.returncode == pytest.ExitCode.TESTS_FAILED
    assert "WEIGHTATLAS_CHROMIUM" in required.stdout


def test_tests_that_ask_for_the_browser_are_marked_so(tmp_path: Path) -> None:
    suite = "def test_browses(browser_path): pass\ndef test_other(): pass"

    done = run_suite(tmp_path, suite, "-m", "browser", "--collect-only")

    assert "test_browses" in done.stdout
    assert "test_other" not in done.stdout
