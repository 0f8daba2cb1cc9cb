"""How are units done on a Ray cluster? By actors that hold the model each, one unit at a time.

The only module that uses Ray. A unit's task, what is prepared of it, and its files travel through
Ray's object store: the nodes need this package and the model at the same path (or on the hub), but
no disk in common with this process, which alone writes. Preparing is done by actors of its own (as
tasks, every process that Ray happens to give one to would load what preparing needs), and what it
gives goes on to a worker by reference. A worker that dies costs its unit only: a new one is started
and has it again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from builder.errors import ConfigError
from builder.execute.processes import usable_cores
from builder.execute.units import Files, Job, Losses, OnBatch, Unit

#: Seconds without any worker after which it is said what they wait for.
_SAY_AFTER = 60
#: What this process's Ray is told by its environment: no reports about us, no hints to us.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Cluster:
    """Does units on a Ray cluster, or on a Ray that is started on this machine and ended again."""

    name = "ray"

    def __init__(
        self, workers: int, address: str, device: str, threads: int | None, retries: int
    ) -> None:
        """Raises ConfigError where Ray is not installed.

        ``address`` empty: Ray is started here, unless this process is connected to one already.
        ``threads`` None: on a Ray started here an equal share of the cores, else one.
        """
        self._ray = import_ray()
        self.workers = workers
        self._address = address
        self._device = device
        self._threads = threads
        self._retries = retries

    def results(
        self,
        units: Sequence[Unit],
        job: Job,
        task_of: Callable[[Unit], Any],
        on_batch: OnBatch,
    ) -> Generator[tuple[Unit, Files]]:
        """Each unit with its files; see :class:`builder.execute.units.Executor`."""
        with self._connected() as threads:
            work = _Work(self._ray, job, self._device, threads, self._retries)
            try:
                yield from work.results(units, task_of, min(self.workers, len(units)))
            finally:
                work.end()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[int]:
        """A connection to Ray; how many threads a worker has."""
        ray = self._ray
        if ray.is_initialized():  # by whoever called us, whose it stays
            yield self._threads or 1
            return
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        common = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address:
            threads = self._threads or 1
            try:
                ray.init(address=self._address, **common)
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                raise ConfigError(
                    f"compute.address: no Ray cluster can be reached at {self._address!r}: {error}"
                ) from error
        else:
            threads = self._threads or max(1, usable_cores() // self.workers)
            ray.init(
                # "local": whatever the environment says of other clusters.
                address="local",
                # All workers are to run, even where there are more than cores.
                num_cpus=max(usable_cores(), self.workers * threads),
                include_dashboard=False,
                **common,
            )
        try:
            yield threads
        finally:
            ray.shutdown()


def import_ray() -> Any:
    """The library; raises ConfigError that says how to get it."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "compute.executor: 'ray' needs the library of that name; install it by "
            "pip install 'weightatlas[cluster]'"
        ) from error
    return ray


@dataclass(slots=True, eq=False)
class _Slot:
    """A place for an actor: the actor, what it is at, and the unit that it has."""

    actor: Any
    result: Any
    unit: Unit | None = None
    prepared: Any = None
    ready: bool = False


class _Work:
    """One job on a cluster that this process is connected to."""

    def __init__(self, ray: Any, job: Job, device: str, threads: int, retries: int) -> None:
        self._ray = ray
        self._job = ray.put(job)
        self._losses = Losses(retries)
        gpus = device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        self._asked = {"num_cpus": threads, "num_gpus": 1 if gpus else 0}
        # Preparing must not wait for a core that the workers keep.
        self._preparer = ray.remote(_Preparer).options(
            num_cpus=0, max_restarts=retries, max_task_retries=retries
        )
        self._actor = ray.remote(_Actor).options(**self._asked, max_restarts=0, max_task_retries=0)
        self._start = (device, threads)
        self._slots: list[_Slot] = []
        self._preparers: list[Any] = []

    def results(
        self, units: Sequence[Unit], task_of: Callable[[Unit], Any], size: int
    ) -> Generator[tuple[Unit, Files]]:
        """Each unit with its files; at most one prepared unit a worker waits."""
        waiting, ahead, left = deque(units), deque[tuple[Unit, Any]](), len(units)
        self._slots = [_Slot(*self._started()) for _ in range(size)]
        self._preparers = [self._preparer.remote([self._job]) for _ in range(1 + size // 8)]
        while left:
            while waiting and len(ahead) < size:
                unit = waiting.popleft()
                task = self._ray.put(task_of(unit))
                self._preparers.append(preparer := self._preparers.pop(0))
                ahead.append((unit, preparer.prepare.remote(task)))
            for slot in self._slots:
                if slot.ready and slot.unit is None and ahead:
                    slot.unit, slot.prepared = ahead.popleft()
                    slot.result = slot.actor.compute.remote(slot.prepared)
            for unit, files in self._finished():
                left -= 1
                yield unit, files

    def _finished(self) -> list[tuple[Unit, Files]]:
        """Waits until an actor has something to tell; the units that are done by that."""
        at_work = {slot.result: slot for slot in self._slots if slot.result is not None}
        told: list[Any] = []
        while not told:
            told, _ = self._ray.wait(list(at_work), timeout=_SAY_AFTER)
            if not told and not any(slot.ready for slot in self._slots):
                tqdm.write(
                    f"no worker could start yet; each asks for {self._asked}, the cluster has "
                    f"{self._ray.cluster_resources()}",
                    file=sys.stderr,
                )
        done: list[tuple[Unit, Files]] = []
        for result in told:
            slot = at_work[result]
            found = self._taken(slot)
            if found is not None and slot.unit is not None:
                done.append((slot.unit, found))
                slot.unit = slot.prepared = None
        return done

    def _taken(self, slot: _Slot) -> Files | None:
        """What an actor has done: files, or None if it got ready or was lost and replaced."""
        errors = self._ray.exceptions
        try:
            found: Files | None = self._ray.get(slot.result)
        except errors.RayTaskError as error:
            cause = _cause(error)
            if not isinstance(cause, errors.RayError):
                raise cause from None
            self._replace(slot, cause)
            return None
        except errors.RayError as error:
            self._replace(slot, error)
            return None
        slot.ready, slot.result = True, None
        return found

    def _replace(self, slot: _Slot, error: Exception) -> None:
        self._losses.add(slot.unit, f"Ray said: {error}")
        self._ray.kill(slot.actor)
        slot.actor, slot.result = self._started()
        slot.ready = False
        # Its unit is done by the new actor, which does what it is told in order.
        if slot.unit is not None:
            slot.result = slot.actor.compute.remote(slot.prepared)

    def _started(self) -> tuple[Any, Any]:
        actor = self._actor.remote([self._job], *self._start)
        return actor, actor.load.remote()

    def end(self) -> None:
        """Ends all actors."""
        for actor in (*(slot.actor for slot in self._slots), *self._preparers):
            self._ray.kill(actor)
        self._slots.clear()
        self._preparers.clear()


class _Actor:
    """Holds a job's worker; what it raises while it loads comes out of :meth:`load`."""

    def __init__(self, job: list[Any], device: str, threads: int) -> None:
        self._job, self._device, self._threads = job, device, threads
        self._work: Callable[[Any], Files] | None = None

    def load(self) -> None:
        if self._work is None:
            job: Job = import_ray().get(self._job[0])
            self._work = job.worker(self._device, self._threads, lambda _documents, _tokens: None)

    def compute(self, prepared: bytes) -> Files:
        self.load()
        assert self._work is not None
        return self._work(pickle.loads(prepared))  # noqa: S301 - made by a preparer


class _Preparer:
    """Holds what preparing needs."""

    def __init__(self, job: list[Any]) -> None:
        self._job = job
        self._prepare: Callable[[Any], Any] | None = None

    def prepare(self, task: Any) -> bytes:
        """What is prepared of a task, as bytes: arrays that Ray hands on cannot be written to."""
        if self._prepare is None:
            job: Job = import_ray().get(self._job[0])
            self._prepare = job.preparer()
        return pickle.dumps(self._prepare(task))


def _cause(error: Any) -> Exception:
    """What was raised in the beginning, where Ray wraps one task's error in the next one's."""
    while getattr(error, "cause", None) is not None:
        error = error.cause
    found: Exception = error
    return found
