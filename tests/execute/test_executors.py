"""Whoever does the units, they end the same, errors come out as they are, and losses are borne."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.config import ComputeSettings
from builder.errors import ConfigError, ScanError
from builder.execute import Executor, check_units, make_executor
from builder.execute.cluster import Cluster
from builder.execute.local import InProcess
from builder.execute.processes import Processes
from tests.execute.fake_job import UNITS, FakeJob, contents, finish, said, times

KINDS = ("inside", "ahead", "processes", "ray")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of an executor; Ray is started where it is the one."""
    if request.param == "ray":
        request.getfixturevalue("ray_here")
    return str(request.param)


def executor_of(kind: str, retries: int = 2) -> Executor:
    """A new executor: with two workers, or this process."""
    if kind == "ray":
        return Cluster(2, "", "cpu", 1, retries)
    if kind == "processes":
        return Processes(2, ("cpu",), 1, retries)
    return InProcess("cpu", None, retries)


def units_of(kind: str) -> list[int]:
    """So few units that this process prepares them itself, or more."""
    return list(range(3 if kind == "inside" else len(UNITS)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What all units leave behind, done one at a time."""
    folder = tmp_path_factory.mktemp("whole")
    for last in range(1, len(UNITS) + 1):
        units = UNITS[last - 1 : last]
        finish(folder / str(last), executor_of("inside"), FakeJob(folder / "log"), units)
    return {name: data for last in folder.glob("?") for name, data in contents(last).items()}


def test_units_end_the_same_whoever_does_them_and_each_process_loads_once(
    tmp_path: Path, kind: str, whole: dict[str, bytes]
) -> None:
    job, numbers = FakeJob(tmp_path / "log", seconds=0.02), units_of(kind)
    finish(tmp_path / "out", executor_of(kind), job, UNITS[: len(numbers)])
    names = tuple(UNITS[number].name for number in numbers)
    assert contents(tmp_path / "out") == {
        name: data for name, data in whole.items() if name.startswith(names)
    }
    assert times(job.log, "computed") == dict.fromkeys(numbers, 1)
    assert times(job.log, "preparing") == dict.fromkeys(numbers, 1)
    loading = [pid for what, _, pid in said(job.log) if what == "loading"]
    assert len(loading) == len(set(loading)) <= 2
    assert {pid for what, _, pid in said(job.log) if what == "computing"} <= set(loading)


@pytest.mark.parametrize("when", ["preparing", "computing"])
def test_an_error_comes_out_as_itself_and_finished_units_are_kept(
    tmp_path: Path, kind: str, when: str
) -> None:
    job = FakeJob(tmp_path / "log", raises=((2, when),))
    units = UNITS[: len(units_of(kind))]
    with pytest.raises(ScanError) as raised:
        finish(tmp_path / "out", executor_of(kind), job, units)
    assert type(raised.value) is ScanError
    assert str(raised.value) == f"unit 2 fails while {when}"
    assert times(job.log, when)[2] == 1
    checked = check_units(units, tmp_path / "out")
    assert UNITS[2] in checked.missing
    again = FakeJob(tmp_path / "again")
    finish(tmp_path / "out", executor_of("inside"), again, units)
    assert set(times(again.log, "computed")) == {unit.number for unit in checked.missing}


def test_an_error_while_loading_ends_the_work_at_once(tmp_path: Path, kind: str) -> None:
    job = FakeJob(tmp_path / "log", raises=((-1, "loading"),))
    with pytest.raises(ScanError, match="unit -1 fails while loading"):
        finish(tmp_path / "out", executor_of(kind), job, UNITS[: len(units_of(kind))])
    assert times(job.log, "loading")[-1] <= 2


def test_an_error_that_cannot_be_sent_is_told_in_words(tmp_path: Path) -> None:
    job = FakeJob(tmp_path / "log", raises=((2, "computing"),), unsendable=True)
    with pytest.raises(ScanError, match=r"(?s)Unsendable: 1 and 2.*fake_job.py"):
        finish(tmp_path / "out", executor_of("processes"), job)


@pytest.mark.parametrize("kind", ["processes", "ray"], indirect=True)
def test_a_lost_worker_costs_its_own_unit_only(
    tmp_path: Path, kind: str, whole: dict[str, bytes]
) -> None:
    dies = ((1, "preparing"), (3, "computing"), (5, "answering"))
    job = FakeJob(tmp_path / "log", seconds=0.02, dies=dies)
    finish(tmp_path / "out", executor_of(kind), job)
    assert contents(tmp_path / "out") == whole
    once = dict.fromkeys(range(len(UNITS)), 1)
    assert times(job.log, "started") == once | {3: 2, 5: 2}
    prepared = times(job.log, "preparing")
    # What a lost process of Ray's had just answered may be on its way still, and is done again.
    assert prepared == once | {1: 2} or (kind == "ray" and prepared == once | {0: 2, 1: 2})


def test_a_lost_preparer_of_this_process_is_replaced(tmp_path: Path) -> None:
    job = FakeJob(tmp_path / "log", dies=((3, "preparing"),))
    finish(tmp_path / "out", executor_of("ahead"), job)
    assert times(job.log, "preparing") == dict.fromkeys(range(len(UNITS)), 1) | {3: 2}


@pytest.mark.parametrize("kind", ["processes", "ray"], indirect=True)
@pytest.mark.parametrize(("number", "when"), [(3, "computing"), (-1, "loading")])
def test_a_worker_that_is_always_lost_is_not_replaced_for_ever(
    tmp_path: Path, kind: str, number: int, when: str
) -> None:
    job = FakeJob(tmp_path / "log", dies=((number, when),), always=True)
    with pytest.raises(ScanError, match=r"lost 3 times, more than compute\.retries") as e:
        finish(tmp_path / "out", executor_of(kind), job)
    if number == 3:
        assert UNITS[3].name in str(e.value)
        assert times(job.log, when)[3] == 3
    else:
        assert times(job.log, when)[-1] <= 6
    if kind == "processes":
        assert "killed by SIGKILL" in str(e.value)


def test_progress_is_told_by_batches_and_starts_again_with_a_lost_unit(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    job = FakeJob(tmp_path / "log", seconds=0.3, dies=((0, "computing"),))
    finish(
        tmp_path / "out",
        executor_of("processes"),
        job,
        UNITS[:1],
        on_batch=lambda unit, documents, tokens: told.append((unit.number, documents, tokens)),
    )
    documents = [found for _, found, _ in told]
    assert all(tokens == 10 * found for _, found, tokens in told)
    assert documents[0] == 2
    assert documents[1:].count(2) == 1  # from the beginning, in the new process
    inside: list[tuple[int, int, int]] = []
    finish(
        tmp_path / "inside",
        executor_of("inside"),
        FakeJob(tmp_path / "log2"),
        UNITS[:2],
        on_batch=lambda unit, documents, tokens: inside.append((unit.number, documents, tokens)),
    )
    assert inside == [(n, 2 * batch, 20 * batch) for n in (0, 1) for batch in range(1, 6)]


def test_workers_have_devices_in_turn_and_their_threads_before_they_import(tmp_path: Path) -> None:
    job = FakeJob(tmp_path / "log", seconds=0.05)
    finish(tmp_path / "out", Processes(3, ("cuda:0", "cuda:1"), 2, 2), job)
    loaded = sorted(what for what, _, _ in said(job.log) if what.startswith("loaded"))
    assert loaded == ["loaded-on-cuda:0-2-2", "loaded-on-cuda:0-2-2", "loaded-on-cuda:1-2-2"]


@pytest.mark.parametrize("kind", ["ahead", "processes"])
def test_tasks_are_made_no_further_ahead_than_workers_need(tmp_path: Path, kind: str) -> None:
    units = UNITS[: len(units_of(kind))]
    job, ahead, made, done = FakeJob(tmp_path / "log", seconds=0.01), [], 0, 0

    def task_of(number: int) -> int:
        nonlocal made
        made += 1
        ahead.append(made - done)
        return number

    executor = executor_of(kind)
    for _ in executor.results(units, job, lambda unit: task_of(unit.number), lambda *_: None):
        done += 1
    assert made == done == len(units)
    assert max(ahead) <= 4 * executor.workers


def test_settings_choose_the_executor() -> None:
    kinds = [
        (ComputeSettings(), InProcess),
        (ComputeSettings(workers=2), Processes),
        (ComputeSettings(executor="ray"), Cluster),
    ]
    for settings, kind in kinds:
        executor = make_executor(settings, ("cpu",))
        assert type(executor) is kind
        assert executor.workers == settings.workers


def test_ray_that_is_not_installed_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'weightatlas\[cluster\]'"):
        make_executor(ComputeSettings(executor="ray"), ("cpu",))


def test_a_script_is_not_run_again_by_the_processes_it_starts(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    script = root / "tests" / "execute" / "unguarded.py"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, script, tmp_path], check=True, env=environment, cwd=tmp_path)
    assert (tmp_path / "runs").read_text() == "once\n"
    for name in ("ahead", "processes"):
        assert len(list((tmp_path / name).iterdir())) == len(UNITS)
