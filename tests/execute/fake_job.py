"""A job that costs next to nothing, says on disk what it does, and fails or dies when told to."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ScanError
from builder.execute import Executor, Files, Unit, check_units, run_units

UNITS = [Unit(number, f"print{number}", 10, part=number % 2) for number in range(7)]


class Unsendable(Exception):
    """An error that cannot be pickled back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Lethal:
    """Kills its process a moment after it was made ready to be sent."""

    def __reduce__(self) -> tuple[Any, ...]:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return (bytes, ())


@dataclass(frozen=True, slots=True)
class FakeJob:
    """Turns a unit's number into files; what happens is a line each in ``log``.

    ``dies`` names (number, when): the process is killed there, at the first attempt only unless
    ``always``; when is "loading", "preparing", "computing" or "answering". ``raises`` likewise.
    """

    log: Path
    seconds: float = 0.0
    size: int = 1000
    dies: tuple[tuple[int, str], ...] = ()
    raises: tuple[tuple[int, str], ...] = ()
    always: bool = False
    unsendable: bool = False

    def preparer(self) -> Callable[[Any], Any]:
        self._say("prepares", -1)

        def prepare(task: Any) -> Any:
            self._at("preparing", task)
            return {"number": task}

        return prepare

    def worker(
        self, device: str, threads: int | None, on_batch: Callable[[int, int], None]
    ) -> Callable[[Any], Files]:
        self._at("loading", -1)
        self._say(f"loaded-on-{device}-{threads}-{os.environ.get('OMP_NUM_THREADS')}", -1)

        def compute(prepared: Any) -> Files:
            number = prepared["number"]
            self._say("started", number)
            for _ in range(5):
                time.sleep(self.seconds / 5)
                on_batch(2, 20)
            self._at("computing", number)
            self._say("computed", number)
            if (number, "answering") in self.dies and self._first("answering", number):
                return {"large": bytes(64 << 20), "lethal": Lethal()}  # type: ignore[dict-item]
            return expected(number, self.size)

        return compute

    def _at(self, when: str, number: int) -> None:
        self._say(when, number)
        if (number, when) in self.dies and self._first(when, number):
            os.kill(os.getpid(), signal.SIGKILL)
        if (number, when) in self.raises:
            if self.unsendable:
                raise Unsendable(1, number)
            raise ScanError(f"unit {number} fails while {when}")

    def _first(self, when: str, number: int) -> bool:
        try:
            os.close(os.open(f"{self.log}.{when}{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return self.always
        return True

    def _say(self, what: str, number: int) -> None:
        with self.log.open("ab", buffering=0) as stream:
            stream.write(f"{what} {number} {os.getpid()}\n".encode())


def expected(number: int, size: int = 1000) -> Files:
    """A unit's files."""
    rng = random.Random(number)
    return {"a.bin": rng.randbytes(size), "b.bin": str(number).encode()}


def said(log: Path) -> list[tuple[str, int, int]]:
    """What a job said: (what, number, process)."""
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(what, int(number), int(pid)) for what, number, pid in lines]


def times(log: Path, what: str) -> Counter[int]:
    """How often a job said something, by number."""
    return Counter(number for found, number, _ in said(log) if found == what)


def finish(
    folder: Path, executor: Executor, job: FakeJob, units: Sequence[Unit] = UNITS, **options: Any
) -> None:
    """Does what is missing of units."""
    missing = check_units(units, folder).missing
    run_units(missing, folder, executor, job, lambda unit: unit.number, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
