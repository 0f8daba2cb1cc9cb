"""What is a unit of work, and how is a finished one known? Folders, fingerprints, digests.

A finished unit is a folder that was written beside its place and then renamed, so it is whole or
not there. Its name carries the fingerprint of everything it depends on: a unit made with other
settings is never taken for this one. It holds the digests of its files, which are checked before
they are used again. This module knows nothing of what units compute, nor of who computes them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import xxhash

from builder.errors import ScanError
from builder.execute.files import PART, disk_errors, remove, sync

#: A unit's digests stand here: file name to XXH3 (128 bits, hexadecimal) of the file's bytes.
DIGESTS = "digests.json"

#: The name of a finished unit.
_FINISHED = re.compile(r"\d{6,}-[0-9a-f]+")

#: What a unit turns into: bytes by file name.
Files = dict[str, bytes]
#: Told of a unit's (documents, tokens) so far.
OnBatch = Callable[["Unit", int, int], None]


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work: its place in the order, its fingerprint, and how many items it holds.

    ``part`` is the part of the corpus that it belongs to.
    """

    number: int
    fingerprint: str
    size: int
    part: int = 0

    @property
    def name(self) -> str:
        """Folder name of the finished unit."""
        return f"{self.number:06d}-{self.fingerprint}"


class Job(Protocol):
    """What is done to each unit, in two steps; picklable, for it is sent to other processes."""

    def preparer(self) -> Callable[[Any], Any]:
        """From a unit's task to what the worker needs; loads what that takes, once per process."""
        ...

    def worker(
        self, device: str, threads: int | None, on_batch: Callable[[int, int], None]
    ) -> Callable[[Any], Files]:
        """From what was prepared to the unit's files; loads the model, once per process.

        ``threads`` None: as many as the library takes. ``on_batch(documents, tokens)`` is to be
        told of each batch that is through.
        """
        ...


class Executor(Protocol):
    """Who does units: this process, several, or a cluster."""

    name: str
    workers: int

    def results(
        self,
        units: Sequence[Unit],
        job: Job,
        task_of: Callable[[Unit], Any],
        on_batch: OnBatch,
    ) -> Generator[tuple[Unit, Files]]:
        """Each unit with its files, in whatever order they get done.

        ``task_of`` is called here, when a unit's turn comes. What a job raises comes out as
        itself; raises ScanError when a unit's worker was lost too often. Closing it ends all
        workers.
        """
        ...


@dataclass(frozen=True, slots=True)
class Checked:
    """Which units are finished, which are still to be done, and which were found damaged.

    ``damaged`` holds a line for each finished unit that had to be thrown away.
    """

    finished: tuple[Unit, ...]
    missing: tuple[Unit, ...]
    damaged: tuple[str, ...]


def count_finished(folder: Path) -> int:
    """How many finished units a folder holds, by their names alone."""
    return sum(bool(_FINISHED.fullmatch(place.name)) for place in folder.glob("*"))


def check_units(units: Sequence[Unit], folder: Path) -> Checked:
    """What is there of these units, after reading every byte of it.

    Damaged units are removed, and so is whatever does not belong to these units. Raises StoreError
    when the folder cannot be written.
    """
    finished: list[Unit] = []
    missing: list[Unit] = []
    damaged: list[str] = []
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {unit.name for unit in units}
        for leftover in folder.iterdir():
            if leftover.name not in wanted:
                remove(leftover)
        for unit in units:
            place = folder / unit.name
            fault = _fault(place) if place.is_dir() else None
            if fault:
                damaged.append(f"{place}: {fault}")
                remove(place)
            (finished if place.is_dir() else missing).append(unit)
    return Checked(tuple(finished), tuple(missing), tuple(damaged))


def run_units(
    units: Sequence[Unit],
    folder: Path,
    executor: Executor,
    job: Job,
    task_of: Callable[[Unit], Any],
    on_done: Callable[[Unit], None] = lambda _unit: None,
    on_batch: OnBatch = lambda _unit, _documents, _tokens: None,
) -> None:
    """Does units and puts each into ``folder``, whole or not at all, as soon as it is done.

    Nothing but this process touches the folder. ``on_done`` is told of each unit that is there.
    Whatever ends this early, an error or a signal, leaves the units that are done.
    """
    if not units:
        return
    with contextlib.closing(executor.results(units, job, task_of, on_batch)) as results:
        for unit, files in results:
            _write(folder, unit, files)
            on_done(unit)


class Tally:
    """Sums what a unit's batches tell, (documents, tokens), and tells the sums."""

    def __init__(self, on_sum: Callable[[int, int], None]) -> None:
        """``on_sum`` is called after each batch."""
        self._on_sum = on_sum
        self._documents = self._tokens = 0

    def add(self, documents: int, tokens: int) -> None:
        """Adds a batch."""
        self._documents += documents
        self._tokens += tokens
        self._on_sum(self._documents, self._tokens)


class Losses:
    """How often each unit lost its worker; more than ``retries`` times is an error."""

    def __init__(self, retries: int) -> None:
        """``retries`` may be 0: then the first loss ends the work."""
        self._retries = retries
        self._lost: dict[str, int] = {}

    def add(self, unit: Unit | None, how: str) -> None:
        """Counts a loss; raises ScanError if it was one too many.

        ``unit`` None: the worker was lost before it had one.
        """
        name = "" if unit is None else unit.name
        lost = self._lost[name] = self._lost.get(name, 0) + 1
        if lost > self._retries:
            what = f"shard {name}: its worker was" if name else "workers that load the model were"
            raise ScanError(
                f"{what} lost {lost} times, more than compute.retries allows; finished shards are "
                "kept. If memory ran out, lower compute.workers or scan.batch_tokens. "
                f"The last time {how}"
            )


def _write(folder: Path, unit: Unit, files: Files) -> None:
    part = folder / (unit.name + PART)
    remove(part)
    digests = {name: xxhash.xxh3_128_hexdigest(data) for name, data in files.items()}
    listed = json.dumps(digests, indent=1, sort_keys=True).encode() + b"\n"
    try:
        with disk_errors(folder):
            part.mkdir()
            for name, data in {**files, DIGESTS: listed}.items():
                (part / name).write_bytes(data)
                sync(part / name)
            sync(part)
            part.rename(folder / unit.name)
            sync(folder)
    except BaseException:
        remove(part)
        raise


def _fault(place: Path) -> str | None:
    """What is wrong with a finished unit; None if every byte is as it was written."""
    try:
        digests = json.loads((place / DIGESTS).read_bytes())
        names = {item.name for item in place.iterdir()} - {DIGESTS}
        if not isinstance(digests, dict) or names != digests.keys():
            return f"its files are not those that {DIGESTS} lists"
        for name, digest in digests.items():
            if _digest(place / name) != digest:
                return f"{name} is not as it was written"
    except FileNotFoundError:
        return f"{DIGESTS} is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    return None


def _digest(path: Path) -> str:
    state = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()
