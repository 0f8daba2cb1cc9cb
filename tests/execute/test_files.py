"""A file is written whole or not at all, a folder has one holder, and failures are clear."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from builder.errors import DiskFullError, StoreError
from builder.execute import disk_errors, is_held, read_json, run_lock, write_json


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


def test_a_look_at_a_folder_tells_whether_it_is_held_and_writes_nothing(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with run_lock(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_a_look_at_a_folder_keeps_nobody_from_holding_it(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        pass
    with (tmp_path / ".lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, (looking.fileno(), fcntl.LOCK_UN)).start()
        with run_lock(tmp_path):
            pass


def test_a_read_only_folder_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def read_only(path: object, flags: int, *rest: int, **options: int) -> int:
        if flags & os.O_ACCMODE and str(path).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", read_only)
    with (
        pytest.raises(StoreError, match=r"cannot be written: Read-only.*finished work is kept"),
        run_lock(tmp_path),
    ):
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

    monkeypatch.setattr(Path, "write_bytes", full)
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
