"""How are units done by this process alone? One after the other, prepared ahead by another.

Where there are only a few units, they are prepared here too: a new process takes seconds to load
what preparing needs.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
from collections.abc import Callable, Generator, Sequence
from typing import Any

from builder.execute.processes import Pool, preparing
from builder.execute.units import Files, Job, Losses, OnBatch, Tally, Unit

#: As many units are prepared by this process itself.
_FEW = 4


class InProcess:
    """Does units in this process; a second one prepares each while the one before is computed."""

    name = "local"
    workers = 1

    def __init__(self, device: str, threads: int | None, retries: int) -> None:
        """``threads`` None: as many as the library takes."""
        self._device = device
        self._threads = threads
        self._retries = retries
        self._loaded: tuple[Job, Callable[[Any], Files]] | None = None
        self._tally = Tally(lambda _documents, _tokens: None)

    def load(self, job: Job) -> Callable[[Any], Files]:
        """The job's worker, loaded now; units are done by it without loading it again."""
        if self._loaded is None or self._loaded[0] is not job:
            worker = job.worker(
                self._device,
                self._threads,
                lambda documents, tokens: self._tally.add(documents, tokens),
            )
            self._loaded = (job, worker)
        return self._loaded[1]

    def results(
        self,
        units: Sequence[Unit],
        job: Job,
        task_of: Callable[[Unit], Any],
        on_batch: OnBatch,
    ) -> Generator[tuple[Unit, Files]]:
        """Each unit with its files, in order; see :class:`builder.execute.units.Executor`."""
        ahead = _prepared_here if len(units) <= _FEW else self._prepared_ahead
        # First, so that the other process gets ready while the model is loaded.
        with contextlib.closing(ahead(units, job, task_of)) as prepared:
            compute = self.load(job)
            for unit, item in prepared:
                self._tally = Tally(functools.partial(on_batch, unit))
                yield unit, compute(item)

    def _prepared_ahead(
        self, units: Sequence[Unit], job: Job, task_of: Callable[[Unit], Any]
    ) -> Generator[tuple[Unit, Any]]:
        pool = Pool(1, preparing(job), Losses(self._retries))
        with contextlib.closing(pool):
            for number in range(len(units) + 1):
                done = pool.wait() if number else []
                if number < len(units):
                    pool.give(units[number], pickle.dumps(task_of(units[number])))
                for unit, prepared in done:
                    yield unit, pickle.loads(prepared)  # noqa: S301 - made by our own process


def _prepared_here(
    units: Sequence[Unit], job: Job, task_of: Callable[[Unit], Any]
) -> Generator[tuple[Unit, Any]]:
    prepare = job.preparer()
    for unit in units:
        yield unit, prepare(task_of(unit))
