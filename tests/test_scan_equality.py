"""A scan ends the same whoever does it, however it is cut, and whatever was lost on the way."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from builder import pipeline
from builder.corpus_stage import freeze_corpus
from builder.execute import Executor, Files, InProcess, Unit, check_units
from builder.execute.cluster import Cluster
from builder.execute.processes import Processes
from builder.records import DirectionSet
from builder.run_folder import Run, claimed, read_run
from builder.scan_stage import ScanJob, plan_units, scan_job, scan_units
from builder.store import RunStore
from builder.store.schema import SCHEMA
from tests import micro
from tests.execute.fake_job import contents
from tests.test_build import write_recipe

pytestmark = pytest.mark.slow

DOCUMENTS = 84
#: More than this process would prepare by itself.
SHARDS = 7


@dataclass(frozen=True, slots=True, eq=False)
class Dying(ScanJob):
    """A scan whose process is killed in its fourth batch, the first time."""

    marker: Path = Path()

    def worker(
        self, device: str, threads: int | None, on_batch: Callable[[int, int], None]
    ) -> Callable[[Any], Files]:
        batches = 0

        def tell(documents: int, tokens: int) -> None:
            nonlocal batches
            batches += 1
            if batches == 4 and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            on_batch(documents, tokens)

        return ScanJob.worker(self, device, threads, tell)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for a micro pair and a corpus with equal and with long documents."""
    documents = micro.documents(DOCUMENTS - 4)
    folder = tmp_path_factory.mktemp("equality")
    return write_recipe(
        folder,
        documents=[*documents, *documents[3:7]],
        scan={
            "shard_documents": DOCUMENTS // SHARDS,
            "max_tokens": 64,
            "overlap": 8,
            "batch_tokens": 256,
            "with_base": True,
            "device": "cpu",
        },
    )


def scanned(
    recipe: Path, folder: Path, executor: Executor, make: Callable[[ScanJob], ScanJob] | None = None
) -> dict[str, bytes]:
    """The shards of a run of its own, as bytes."""
    run = read_run(recipe, (f"runs='{folder}'",))
    directions: DirectionSet = pipeline.make_directions(run)
    job = scan_job(run, directions)
    with claimed(run):
        frozen = freeze_corpus(run)
        units, digest = plan_units(run, directions, frozen)
        assert len(units) == SHARDS
        scan_units(run, make(job) if make else job, executor, units, digest, frozen)
    assert check_units(units, run.folder / "shards").finished == tuple(units)
    return contents(run.folder / "shards")


@pytest.fixture(scope="module")
def alone(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards as this process leaves them, which prepares one ahead in another."""
    return scanned(recipe, tmp_path_factory.mktemp("alone"), InProcess("cpu", 1, 0))


def dying(marker: Path) -> Callable[[ScanJob], ScanJob]:
    def made(job: ScanJob) -> ScanJob:
        values = {field.name: getattr(job, field.name) for field in fields(ScanJob)}
        return Dying(**values, marker=marker)

    return made


def test_two_processes_leave_the_same_bytes_after_a_stop_and_a_kill(
    recipe: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    executor = InProcess("cpu", 1, 0)
    results = executor.results

    def stopped(*arguments: Any) -> Generator[tuple[Unit, Files]]:
        yield from itertools.islice(results(*arguments), 2)
        raise KeyboardInterrupt

    executor.results = stopped  # type: ignore[assignment, method-assign]
    with pytest.raises(KeyboardInterrupt):
        scanned(recipe, tmp_path, executor)
    assert len(list((tmp_path / "micro" / "shards").iterdir())) == 2
    marker = tmp_path / "marker"
    assert scanned(recipe, tmp_path, Processes(2, ("cpu",), 1, 1), dying(marker)) == alone
    assert marker.exists()


def test_ray_leaves_the_same_bytes_even_if_an_actor_is_killed(
    recipe: Path, alone: dict[str, bytes], tmp_path: Path, ray_here: None
) -> None:
    marker = tmp_path / "marker"
    executor = Cluster(2, "", "cpu", 1, 1)
    assert scanned(recipe, tmp_path / "runs", executor, dying(marker)) == alone
    assert marker.exists()


def tables(run: Run) -> dict[str, list[tuple[Any, ...]]]:
    with RunStore(run.database_path) as store:
        return store.dump()


def quantized(table: str) -> set[int]:
    """Columns of a table that hold activations as small integers."""
    found = re.search(rf"CREATE TABLE {table} \((.*?)\);", SCHEMA, flags=re.DOTALL)
    assert found
    columns = re.sub(r"\([^()]*\)", "", found[1]).split(",")
    return {number for number, column in enumerate(columns) if "SMALLINT[]" in column}


def alike(one: Any, other: Any, steps: int) -> bool:
    """Whether two values of a table are: floats to rounding, integers exactly or to ``steps``."""
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, abs=2e-6, rel=2e-6, nan_ok=True)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(
            alike(*pair, steps) for pair in zip(one, other, strict=True)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key], steps) for key in one)
    if steps and isinstance(one, int) and isinstance(other, int):
        return abs(one - other) <= steps
    return bool(one == other)


def test_one_shard_and_seven_and_any_batches_make_the_same_database(
    recipe: Path, tmp_path: Path
) -> None:
    runs = []
    for size, tokens in ((DOCUMENTS // SHARDS, 256), (DOCUMENTS, 256), (DOCUMENTS // SHARDS, 1)):
        overrides = (
            f"runs='{tmp_path}/{size}-{tokens}'",
            f"scan.shard_documents={size}",
            f"scan.batch_tokens={tokens}",
        )
        run = read_run(recipe, overrides)
        pipeline.make_scan(run)
        runs.append(run)
    wanted = tables(runs[0])
    assert wanted["examples"]
    for run in runs[1:]:
        found = tables(run)
        assert found.keys() == wanted.keys()
        # What it was made with differs, as it should.
        for name in found.keys() - {"meta"}:
            small = quantized(name)
            pairs = [
                (*values, int(column in small))
                for rows in zip(found[name], wanted[name], strict=True)
                for column, values in enumerate(zip(*rows, strict=True))
            ]
            assert [pair for pair in pairs if not alike(*pair)] == [], name
