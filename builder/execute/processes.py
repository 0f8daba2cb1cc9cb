"""How are units done by several processes of this machine? Each holds the model, lost ones go on.

A process is started anew (never forked: a library's threads do not survive that), loads what it
needs once, and does one unit at a time. It talks to this one over a pipe of its own, so that one
that is killed, even in the middle of an answer, is noticed by the end of its pipe and costs its own
unit only. (The pool of the standard library breaks as a whole, and waits for ever for the rest of
half an answer.) The same pipe's end tells a process that this one is gone: it ends at once,
whatever it was doing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from builder.errors import ScanError
from builder.execute.units import Files, Job, Losses, OnBatch, Tally, Unit

#: Seconds between two reports of a unit's progress.
_TELL_EVERY = 0.2
#: Seconds that a process is given to be gone after it was killed.
_GONE = 10


class Processes:
    """Does units in several processes, which this one prepares, feeds and watches."""

    name = "local"

    def __init__(
        self, workers: int, devices: Sequence[str], threads: int | None, retries: int
    ) -> None:
        """Worker i has device i of ``devices``, counted round; ``threads`` None: an equal share."""
        self.workers = workers
        self._devices = tuple(devices)
        self._threads = threads or max(1, usable_cores() // workers)
        self._retries = retries

    def results(
        self,
        units: Sequence[Unit],
        job: Job,
        task_of: Callable[[Unit], Any],
        on_batch: OnBatch,
    ) -> Generator[tuple[Unit, Files]]:
        """Each unit with its files; see :class:`builder.execute.units.Executor`.

        At most one prepared unit a worker waits, beyond those that are being worked on.
        """
        losses = Losses(self._retries)
        size = min(self.workers, len(units))
        starts = [
            _Start("compute", pickle.dumps(job), self._devices[n % len(self._devices)], threads)
            for n, threads in enumerate([self._threads] * size)
        ]
        waiting, ready, left = deque(units), deque[tuple[Unit, bytes]](), len(units)
        with (
            # Preparing is far quicker than computing.
            contextlib.closing(Pool(1 + size // 8, preparing(job), losses)) as preparers,
            contextlib.closing(Pool(size, starts, losses, on_batch)) as workers,
        ):
            done: list[tuple[Unit, Files]] = []
            while left or done:
                while waiting and preparers.free and len(ready) + preparers.busy < size:
                    unit = waiting.popleft()
                    preparers.give(unit, pickle.dumps(task_of(unit)))
                while ready and workers.free:
                    workers.give(*ready.popleft())
                # Only now that all have work again is what was done handed out, to be written.
                left -= len(done)
                yield from done
                done = []
                if left:
                    talking = set(wait([*preparers.pipes, *workers.pipes]))
                    ready += preparers.read(talking)
                    done = workers.read(talking)


def usable_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Start:
    """What a process is started with; ``role`` is ``prepare`` or ``compute``, ``job`` pickled."""

    role: str
    job: bytes
    device: str = ""
    threads: int | None = None


def preparing(job: Job) -> Sequence[_Start]:
    """How processes that prepare are started: all alike."""
    return [_Start("prepare", pickle.dumps(job))]


@dataclass(slots=True, eq=False)
class _Slot:
    """A place for a process: the process itself, our end of its pipe, and the unit it has."""

    process: Any
    pipe: Connection
    start: _Start
    unit: Unit | None = None
    data: bytes = b""


class Pool:
    """Processes of one role, each doing one unit at a time; they are started when needed."""

    def __init__(
        self,
        size: int,
        starts: Sequence[_Start],
        losses: Losses,
        on_batch: OnBatch = lambda _unit, _documents, _tokens: None,
    ) -> None:
        """Process i is started as ``starts[i]`` says, counted round."""
        self._size = size
        self._starts = starts
        self._losses = losses
        self._on_batch = on_batch
        self._slots: list[_Slot] = []

    @property
    def busy(self) -> int:
        """Processes that have a unit."""
        return sum(slot.unit is not None for slot in self._slots)

    @property
    def free(self) -> int:
        """Units that can be given now."""
        return self._size - self.busy

    @property
    def pipes(self) -> list[Connection]:
        """The pipes of the processes that have a unit, to wait for."""
        return [slot.pipe for slot in self._slots if slot.unit is not None]

    def give(self, unit: Unit, data: bytes) -> None:
        """Gives a unit to a free process, of which there must be one."""
        slot = next((slot for slot in self._slots if slot.unit is None), None)
        if slot is None:
            start = self._starts[len(self._slots) % len(self._starts)]
            slot = _Slot(*_started(start), start)
            self._slots.append(slot)
        slot.unit, slot.data = unit, data
        _send(slot)

    def wait(self) -> list[tuple[Unit, Any]]:
        """The units that are done next, one at least."""
        done: list[tuple[Unit, Any]] = []
        while not done:
            done = self.read(set(wait(self.pipes)))
        return done

    def read(self, talking: set[Any]) -> list[tuple[Unit, Any]]:
        """Reads one message from each pipe of ours among these; the units that are done by that.

        A lost process is started again with its unit. Raises what a process raised.
        """
        done: list[tuple[Unit, Any]] = []
        for slot in self._slots:
            if slot.pipe not in talking or slot.unit is None:
                continue
            try:
                kind, value = slot.pipe.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                self._replace(slot)
                continue
            if kind == "error":
                raise value
            if kind == "batch":
                self._on_batch(slot.unit, *value)
            else:
                done.append((slot.unit, value))
                slot.unit, slot.data = None, b""
        return done

    def close(self) -> None:
        """Ends all processes, whatever they are doing."""
        for slot in self._slots:
            _end(slot)
        self._slots.clear()

    def _replace(self, slot: _Slot) -> None:
        slot.process.join(_GONE)
        self._losses.add(slot.unit, _how_it_ended(slot.process.exitcode))
        _end(slot)
        slot.process, slot.pipe = _started(slot.start)
        _send(slot)


def _started(start: _Start) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, start), daemon=True)
    with _main_hidden() if b"__main__" not in start.job else contextlib.nullcontext():
        process.start()
    # Theirs must be held by them alone, so that it ends when they do.
    theirs.close()
    return process, ours


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Keeps a process that is started meanwhile from running the caller's script again.

    It would do so to know the script's own classes, of which a job of ours has none; and a script
    without ``if __name__ == "__main__"`` would then begin another scan in there.
    """
    main = vars(sys.modules["__main__"])
    held: dict[str, Any] = {name: main.pop(name) for name in {"__file__", "__spec__"} & main.keys()}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(held)


def _send(slot: _Slot) -> None:
    # One that is gone already is noticed when its answer is read.
    with contextlib.suppress(OSError):
        slot.pipe.send_bytes(slot.data)


def _end(slot: _Slot) -> None:
    slot.pipe.close()
    slot.process.kill()
    slot.process.join(_GONE)
    if slot.process.exitcode is not None:
        slot.process.close()


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "it closed its pipe"
    if code < 0:
        known = {item.value: item.name for item in signal.Signals}
        return f"it was killed by {known.get(-code, f'signal {-code}')}"
    return f"it ended with exit code {code}"


def _serve(pipe: Connection, start: _Start) -> None:
    """A process's whole life: loads, then answers units until its pipe ends."""
    # Ctrl-C goes to all processes of a terminal; the one that started us ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if start.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(start.threads)
    inbox = queue.SimpleQueue[bytes]()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    try:
        try:
            answer = _loaded(pipe, start)
            while True:
                pipe.send(("done", answer(inbox.get())))
        # Whatever it is, it has to be known where the work is watched.
        except Exception as error:  # noqa: BLE001
            pipe.send(("error", _portable(error)))
    except OSError:  # nobody listens any more
        return


def _listen(pipe: Connection, inbox: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            inbox.put(pipe.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def _loaded(pipe: Connection, start: _Start) -> Callable[[bytes], Any]:
    """From a unit's bytes to the answer; imports what the job needs."""
    job: Job = pickle.loads(start.job)  # noqa: S301 - made by the process that started us
    if start.role == "prepare":
        prepare = job.preparer()
        return lambda data: pickle.dumps(prepare(pickle.loads(data)))  # noqa: S301 - as above
    tally: Tally
    told = 0.0

    def tell(documents: int, tokens: int) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_EVERY:
            told = time.monotonic()
            pipe.send(("batch", (documents, tokens)))

    def compute(data: bytes) -> Files:
        nonlocal tally
        tally = Tally(tell)
        return work(pickle.loads(data))  # noqa: S301 - made by a process that prepares

    work = job.worker(start.device, start.threads, lambda n, tokens: tally.add(n, tokens))
    return compute


def _portable(error: Exception) -> Exception:
    """The error itself if it can be sent, with where it was raised; else one that says the same."""
    where = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own error
    except Exception:  # noqa: BLE001 - any failure means that it cannot be sent
        return ScanError(f"a worker failed: {type(error).__name__}: {error}\n{where}")
    error.add_note(f"raised in a worker process:\n{where}")
    return error
