"""Finished work is whole, known by its fingerprint, and never done twice."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import DiskFullError, StoreError
from builder.execute import Unit, disk_errors, read_json, run_lock, run_units, write_json

UNITS = [Unit(number, f"print{number}", 10) for number in range(4)]


def test_units_are_done_in_order_and_only_once(tmp_path: Path) -> None:
    done: list[int] = []

    def work(unit: Unit, place: Path) -> None:
        done.append(unit.number)
        (place / "result").write_text(str(unit.number))

    first = run_units(UNITS, tmp_path, work)
    second = run_units(UNITS, tmp_path, work)
    assert done == [0, 1, 2, 3]
    assert first == second
    assert [(place / "result").read_text() for place in first] == ["0", "1", "2", "3"]


def test_a_unit_that_failed_leaves_no_finished_folder_and_is_done_again(tmp_path: Path) -> None:
    def failing(unit: Unit, place: Path) -> None:
        (place / "half").write_text("half")
        if unit.number == 2:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run_units(UNITS, tmp_path, failing)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".part") == [
        UNITS[0].name,
        UNITS[1].name,
    ]
    again: list[int] = []
    run_units(UNITS, tmp_path, lambda unit, _place: again.append(unit.number))
    assert again == [2, 3]


def test_units_made_with_other_settings_are_not_taken(tmp_path: Path) -> None:
    run_units(UNITS, tmp_path, lambda _unit, _place: None)
    other = [Unit(unit.number, "else", unit.size) for unit in UNITS]
    done: list[int] = []
    run_units(other, tmp_path, lambda unit, _place: done.append(unit.number))
    assert done == [0, 1, 2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(unit.name for unit in other)


def test_a_second_process_is_refused_while_the_first_works(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from builder.execute import run_lock\n"
        "with run_lock(pathlib.Path(sys.argv[1])): pass"
    )
    with run_lock(tmp_path):
        second = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert "another weightatlas process is working here" in second.stderr
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_clear_message(tmp_path: Path, code: int) -> None:
    with pytest.raises(DiskFullError, match="no space left"), disk_errors(tmp_path):
        raise OSError(code, "nothing left")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def full(*_args: object, **_kwargs: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFullError):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{half")
    with pytest.raises(StoreError, match="delete it and run again"):
        read_json(path)
    assert read_json(tmp_path / "none.json") is None
