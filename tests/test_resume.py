"""A build that was killed anywhere ends, when run again, as if it never had been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import micro
from tests.test_build import write_recipe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
POINTS = 12


def test_a_build_killed_at_any_change_to_its_files_finishes_equal(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, name="killed", documents=micro.documents(60))
    driver = subprocess.run(
        [sys.executable, "-m", "tests.kill_driver", str(recipe), str(tmp_path / "k"), str(POINTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    reports = [json.loads(line) for line in driver.stdout.splitlines()]
    assert len(reports) == POINTS, driver.stderr[-4000:]
    for report in reports:
        assert report["killed"], report
        assert report["finished"], driver.stderr[-4000:]
        assert report["same_tables"], report
        assert report["same_files"], report
        assert not report["leftovers"], report
