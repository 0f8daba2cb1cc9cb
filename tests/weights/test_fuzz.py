"""Damaged and hostile model folders end in a message of ours: no traceback, no hang, no flood."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.config import DirectionSettings, ModelSettings
from builder.errors import CheckpointError
from builder.weights.open_source import open_source
from tests.weights import fuzz_cases, fuzz_driver, pico

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="every case runs in a fork")
def test_damaged_folders_end_in_a_message_without_much_memory(tmp_path: Path) -> None:
    fuzz_driver.prepare(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.weights.fuzz_driver", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(lines) == len(list(fuzz_cases.cases())) > 200
    refused = ("CheckpointError: ", "LayoutError: ", "ConfigError: ")
    wrong = [
        line for line in lines if line["ended"] != "ok" and not line["ended"].startswith(refused)
    ]
    assert wrong == []
    assert sum(line["ended"] != "ok" for line in lines) > len(lines) / 2
    assert max(line["bytes"] for line in lines) < 10**9


def test_matrix_that_memory_cannot_hold_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = pico.pair(tmp_path)
    sizes = {"SC_PHYS_PAGES": 2, "SC_PAGE_SIZE": 2048}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    with pytest.raises(
        CheckpointError, match=r"L00\.down_proj is \[32, 48\], 6,144 bytes as float32"
    ):
        open_source(ModelSettings(base=str(base), tuned=str(tuned)), DirectionSettings())
