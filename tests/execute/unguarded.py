"""A script without ``if __name__ == "__main__"``, as a user's may be; run by test_executors.py."""

import sys
from pathlib import Path

from builder.execute.local import InProcess
from builder.execute.processes import Processes
from tests.execute.fake_job import UNITS, FakeJob, finish

folder = Path(sys.argv[1])
with (folder / "runs").open("a", encoding="utf-8") as file:
    file.write("once\n")
for name, executor in (
    ("ahead", InProcess("cpu", None, 0)),
    ("processes", Processes(2, ("cpu",), 1, 0)),
):
    finish(folder / name, executor, FakeJob(folder / "log"), UNITS)
