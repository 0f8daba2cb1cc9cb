"""Who does the work units of a stage, and how is a finished one known? Markers, locks, resuming.

A finished unit is a folder that was written beside its place and then renamed, so it is whole or
not there. Its name carries the fingerprint of everything it depends on: a unit made with other
settings is never taken for this one. This module knows nothing of what the units compute.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from builder.errors import DiskFullError, StoreError, is_disk_full

_PART = ".part"


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work: its place in the order, its fingerprint, and how many items it holds."""

    number: int
    fingerprint: str
    size: int

    @property
    def name(self) -> str:
        """Folder name of the finished unit."""
        return f"{self.number:06d}-{self.fingerprint}"


def run_units(
    units: Sequence[Unit],
    folder: Path,
    work: Callable[[Unit, Path], None],
    on_done: Callable[[Unit, bool], None] = lambda _unit, _reused: None,
) -> list[Path]:
    """The finished folders of all units, in order; units found finished are not done again.

    ``work(unit, place)`` writes into the empty folder ``place``. ``on_done(unit, reused)`` is told
    of each unit. Leftovers of units that are not among these are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {unit.name for unit in units}
    for leftover in folder.iterdir():
        if leftover.name not in wanted:
            _remove(leftover)
    finished: list[Path] = []
    for unit in units:
        place = folder / unit.name
        reused = place.is_dir()
        if not reused:
            part = folder / (unit.name + _PART)
            _remove(part)
            try:
                with disk_errors(folder):
                    part.mkdir()
                    work(unit, part)
                    for item in part.iterdir():
                        _sync(item)
                    part.rename(place)
                    _sync(folder)
            except BaseException:
                _remove(part)
                raise
        finished.append(place)
        on_done(unit, reused)
    return finished


def write_atomically(path: Path, text: str) -> None:
    """Puts ``text`` at ``path``, whole or not at all."""
    part = path.with_name(path.name + _PART)
    with disk_errors(path.parent):
        try:
            part.write_text(text, encoding="utf-8")
            _sync(part)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Puts ``value`` at ``path`` as JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value at ``path``, None when there is no such file; raises StoreError if damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete it and run again") from error


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds a run folder; raises StoreError when another process holds it.

    The lock is the kernel's and goes with the process, so a killed run leaves none behind.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        with disk_errors(folder):
            lock.acquire()
    except filelock.Timeout as error:
        raise StoreError(f"{folder}: another weightatlas process is working here") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turns a full disk and other failures to write into one clear StoreError."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"{where}: no space left ({error.strerror}); free some and run the same command "
                "again, finished work is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(f"{where}: cannot be written: {error.strerror}") from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
