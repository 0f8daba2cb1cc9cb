"""Finished units are whole, known by fingerprint and digest, and never done twice."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ScanError, StoreError
from builder.execute import Unit, check_units
from builder.execute.local import InProcess
from tests.execute.fake_job import UNITS, FakeJob, contents, expected, finish, times

ROOT = Path(__file__).parent.parent.parent


class Inside(InProcess):
    """Does everything in this process."""

    def __init__(self) -> None:
        super().__init__("cpu", None, 2)

    def _prepared_ahead(self, units: Any, job: Any, task_of: Any) -> Generator[tuple[Unit, Any]]:
        prepare = job.preparer()
        yield from ((unit, prepare(task_of(unit))) for unit in units)


def test_units_are_done_in_order_and_only_once(tmp_path: Path) -> None:
    job = FakeJob(tmp_path / "log")
    done: list[Unit] = []
    finish(tmp_path / "out", Inside(), job, on_done=done.append)
    finish(tmp_path / "out", Inside(), job, on_done=done.append)
    assert done == UNITS
    assert times(job.log, "computed") == dict.fromkeys(range(len(UNITS)), 1)
    for unit in UNITS:
        found = contents(tmp_path / "out" / unit.name)
        assert json.loads(found.pop("digests.json")).keys() == found.keys()
        assert found == expected(unit.number)


def test_a_unit_that_failed_leaves_nothing_and_is_done_again(tmp_path: Path) -> None:
    failing = FakeJob(tmp_path / "log", raises=((2, "computing"),))
    with pytest.raises(ScanError, match="unit 2 fails while computing"):
        finish(tmp_path / "out", Inside(), failing)
    names = sorted(item.name for item in (tmp_path / "out").iterdir())
    assert names == [UNITS[0].name, UNITS[1].name]
    again = FakeJob(tmp_path / "again")
    finish(tmp_path / "out", Inside(), again)
    assert sorted(times(again.log, "computed")) == [2, 3, 4, 5, 6]


def test_units_made_with_other_settings_are_not_taken(tmp_path: Path) -> None:
    job = FakeJob(tmp_path / "log")
    finish(tmp_path / "out", Inside(), job)
    other = [Unit(unit.number, "else", unit.size) for unit in UNITS]
    finish(tmp_path / "out", Inside(), job, other)
    assert times(job.log, "computed") == dict.fromkeys(range(len(UNITS)), 2)
    assert {item.name for item in (tmp_path / "out").iterdir()} == {unit.name for unit in other}


def damage_byte(place: Path) -> None:
    data = bytearray((place / "a.bin").read_bytes())
    data[500] ^= 1
    (place / "a.bin").write_bytes(data)


def damage_list(place: Path) -> None:
    (place / "digests.json").write_text("[")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_byte, "a.bin is not as it was written"),
        (lambda place: (place / "a.bin").write_bytes(b""), "a.bin is not as it was written"),
        (lambda place: (place / "b.bin").unlink(), "not those that digests.json lists"),
        (lambda place: (place / "more").touch(), "not those that digests.json lists"),
        (lambda place: (place / "digests.json").unlink(), "digests.json is missing"),
        (lambda place: (place / "digests.json").write_text("[]"), "not those that digests.json"),
        (damage_list, "cannot be read"),
    ],
)
def test_a_damaged_unit_is_found_named_and_done_again(
    tmp_path: Path, damage: Any, said: str
) -> None:
    finish(tmp_path / "out", Inside(), FakeJob(tmp_path / "log"))
    whole = contents(tmp_path / "out")
    damage(tmp_path / "out" / UNITS[4].name)
    checked = check_units(UNITS, tmp_path / "out")
    assert checked.missing == (UNITS[4],)
    assert [UNITS[4].name in line and said in line for line in checked.damaged] == [True]
    again = FakeJob(tmp_path / "again")
    finish(tmp_path / "out", Inside(), again)
    assert times(again.log, "computed") == {4: 1}
    assert contents(tmp_path / "out") == whole


def test_a_full_disk_ends_the_work_clearly_and_keeps_what_is_finished(tmp_path: Path) -> None:
    # A limit to the size of files is a full disk to whoever writes one.
    def drive(**options: Any) -> subprocess.CompletedProcess[str]:
        arguments = (tmp_path / "out", tmp_path / "log", json.dumps(options))
        return subprocess.run(
            [sys.executable, "-m", "tests.execute.driver", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    small = FakeJob(tmp_path / "small", size=100_000)
    finish(tmp_path / "out", Inside(), small, UNITS[:3])
    kept = contents(tmp_path / "out")
    full = drive(executor="inside", size=100_000, limit=50_000)
    assert full.returncode == 1
    assert full.stderr.startswith("DiskFullError: ")
    assert "no space left" in full.stderr
    assert "finished work is kept" in full.stderr
    assert contents(tmp_path / "out") == kept
    assert drive(executor="inside", size=100_000).returncode == 0
    finish(tmp_path / "whole", Inside(), small)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("call", ["mkdir", "rename", "write_bytes"])
def test_a_folder_that_became_read_only_ends_the_work_clearly(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Unit] = []

    def read_only(path: Path, *_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    def remount(unit: Unit) -> None:
        done.append(unit)
        if len(done) == 3:
            monkeypatch.setattr(Path, call, read_only)

    with pytest.raises(StoreError, match=r"Read-only file system.*finished work is kept"):
        finish(tmp_path / "out", Inside(), FakeJob(tmp_path / "log"), on_done=remount)
    monkeypatch.undo()
    assert check_units(UNITS, tmp_path / "out").finished == tuple(done)
