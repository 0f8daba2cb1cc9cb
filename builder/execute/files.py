"""How does a file get into a run folder whole, and who holds the folder?

A file is written beside its place, synced and then renamed, so it is whole or not there. A folder
is held by a lock of the kernel's, which goes with the process that took it. What the system says of
a full or closed disk becomes one clear error.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from builder.errors import DiskFullError, StoreError, is_disk_full

#: Ends the name of what is not finished yet.
PART = ".part"
#: Seconds that a process waits for a run folder: whoever looks whether it is held, holds it for a
#: moment.
_PATIENCE = 0.5


def write_atomically(path: Path, content: str | bytes) -> None:
    """Puts ``content`` at ``path``, whole or not at all; a text as UTF-8."""
    part = path.with_name(path.name + PART)
    with disk_errors(path.parent):
        try:
            part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
            sync(part)
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
    lock = filelock.FileLock(folder / ".lock", timeout=_PATIENCE)
    try:
        with disk_errors(folder):
            lock.acquire()
    except filelock.Timeout as error:
        raise StoreError(
            f"{folder}: another weightatlas process is working here; wait for it, or use another "
            "run name"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a process holds the run folder now; writes nothing."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:  # nobody ever held it, or it is closed to us
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


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
            raise StoreError(
                f"{where}: cannot be written: {error.strerror}; run the same command again when "
                "it can be, finished work is kept"
            ) from error
        raise


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Takes away a file or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
