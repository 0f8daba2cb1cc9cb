"""Whatever is killed, and whenever, the units end as if nothing had been, and nothing lives on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from builder.execute import Unit
from builder.execute.local import InProcess
from builder.execute.processes import Processes
from tests.execute.fake_job import UNITS, FakeJob, contents, finish, said, times

ROOT = Path(__file__).parent.parent.parent
#: Longer than anything here takes; reached only by a fault.
PATIENCE = 60.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the units leave behind when nothing is killed."""
    folder = tmp_path_factory.mktemp("whole")
    finish(folder / "out", InProcess("cpu", None, 2), FakeJob(folder / "log"))
    return contents(folder / "out")


def wait_for(what: object) -> None:
    """Waits until a condition, a function, holds."""
    assert callable(what)
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and that nobody asked for yet does not."""
    status = Path(f"/proc/{pid}/stat")
    if status.parent.parent.joinpath("self").exists():
        with contextlib.suppress(OSError):
            return status.read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def start(folder: Path, executor: str, **options: object) -> subprocess.Popen[bytes]:
    """A process that does the units."""
    arguments = (folder / "out", folder / "log", json.dumps({"executor": executor, **options}))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.execute.driver", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("moment", range(10))
def test_a_driver_killed_at_any_moment_leaves_no_process_and_finishes_equal(
    tmp_path: Path, whole: dict[str, bytes], moment: int
) -> None:
    rng = random.Random(moment)
    executor = rng.choice(("inside", "processes"))
    # Five lines a unit: from the first that is prepared to the last that is computed.
    after, then = rng.randrange(1, 4 * len(UNITS)), rng.random() * 0.03
    driver = start(tmp_path, executor, seconds=0.03)
    wait_for(lambda: len(said(tmp_path / "log")) >= after or driver.poll() is not None)
    time.sleep(then)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    pids = {pid for _, _, pid in said(tmp_path / "log")}
    assert pids
    wait_for(lambda: not any(alive(pid) for pid in pids))
    before = times(tmp_path / "log", "started").total()
    finish(tmp_path / "out", InProcess("cpu", None, 2), FakeJob(tmp_path / "log"))
    assert contents(tmp_path / "out") == whole
    # Twice done is only what was under way: of two workers one unit each, and one each that was
    # answered and not yet on the disk, since workers get their next before an answer is written.
    assert times(tmp_path / "log", "started").total() <= len(UNITS) + 4
    assert before <= len(UNITS)


def test_workers_killed_at_ten_moments_cost_their_own_units_only(tmp_path: Path) -> None:
    units = [Unit(number, "print", 10) for number in range(24)]
    job, rng, killed = FakeJob(tmp_path / "log", seconds=0.1, size=100_000), random.Random(0), []

    def kill() -> None:
        for moment in range(10):
            wait_for(lambda: times(job.log, "started").total() > 2 * moment)  # noqa: B023
            time.sleep(rng.random() * 0.1)
            victims = [pid for what, _, pid in said(job.log) if what == "started" and alive(pid)]
            if victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(victims[-3:]), signal.SIGKILL)
                    killed.append(moment)

    killer = threading.Thread(target=kill)
    killer.start()
    finish(tmp_path / "out", Processes(3, ("cpu",), 1, 10), job, units)
    killer.join()
    finish(
        tmp_path / "whole", InProcess("cpu", None, 2), FakeJob(tmp_path / "l", size=100_000), units
    )
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(killed) >= 8
    assert times(job.log, "started").total() <= len(units) + len(killed)


def test_ray_started_here_ends_with_a_driver_that_is_killed(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    driver = start(tmp_path, "ray", seconds=0.5)
    wait_for(lambda: times(tmp_path / "log", "started").total() >= 2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    pids = {pid for _, _, pid in said(tmp_path / "log")}
    wait_for(lambda: not any(alive(pid) for pid in pids))
    finish(tmp_path / "out", InProcess("cpu", None, 2), FakeJob(tmp_path / "again"))
    assert contents(tmp_path / "out") == whole
