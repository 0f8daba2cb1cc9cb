"""Builds a run again and again, killed at other points each time, and prints what became of it.

Run as ``python -m tests.kill_driver RECIPE FOLDER POINTS`` by test_resume.py. The process loads the
heavy libraries once and forks a child for each build. A child counts everything it is about to do
to files inside FOLDER and sends itself SIGKILL at one of them, so that no cleanup of any kind runs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Loaded before the forks; nothing has started a thread yet.
import torch
import transformers  # noqa: F401

from builder import pipeline
from builder.activations import model as _model  # noqa: F401
from builder.labels import explain as _explain  # noqa: F401
from builder.pages import site as _site  # noqa: F401
from builder.run_folder import read_run
from builder.store import RunStore

_CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


def child(work: Callable[[], None]) -> int:
    """The wait status of a forked process that does ``work``."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def build(recipe: Path, folder: Path, kill_at: int | None, counted: Path | None) -> None:
    """One build in ``folder``; killed at the ``kill_at``-th change, or the changes are counted."""
    changes = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in _CHANGES or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE):
            return
        changes += 1
        if changes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    overrides = (f"runs='{folder}'", f"site.out='{folder}/site'")
    pipeline.build(read_run(recipe, overrides))
    if counted is not None:
        counted.write_text(str(changes))


def outcome(folder: Path) -> dict[str, Any]:
    """Every table of the database, and every file of the site."""
    with RunStore(folder / "killed" / "run.duckdb") as store:
        tables = json.loads(json.dumps(store.dump()))
    site = folder / "site"
    files = {
        str(path.relative_to(site)): path.read_bytes().hex()
        for path in sorted(site.rglob("*"))
        if path.is_file()
    }
    return {"tables": tables, "files": files}


def main(recipe: Path, root: Path, points: int) -> None:
    """Prints one JSON line per kill point."""
    torch.set_num_threads(1)
    whole = root / "whole"
    counter = root / "changes"
    if child(lambda: build(recipe, whole, None, counter)) != 0:
        raise SystemExit("the uninterrupted build failed")
    changes = int(counter.read_text())
    wanted = outcome(whole)
    for number in range(points):
        # A few short of the last change: lock files make their number differ by one or two.
        at = 1 + number * (changes - 5) // (points - 1)
        folder = root / f"killed{at}"
        killed = child(partial(build, recipe, folder, at, None))
        finished = child(partial(build, recipe, folder, None, None))
        found = outcome(folder) if finished == 0 else {"tables": None, "files": None}
        report = {
            "at": at,
            "changes": changes,
            "killed": os.WIFSIGNALED(killed) and os.WTERMSIG(killed) == signal.SIGKILL,
            "finished": finished == 0,
            "same_tables": found["tables"] == wanted["tables"],
            "same_files": found["files"] == wanted["files"],
            "leftovers": [str(path) for path in folder.rglob("*.part")],
        }
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
