"""Does units of a fake job in a process of its own, for tests that kill it or confine it.

Run as ``python -m tests.execute.driver FOLDER LOG OPTIONS``; OPTIONS is JSON: ``executor``
("inside", "processes" or "ray"), ``limit`` (bytes that a file may have), and what FakeJob takes.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from builder.errors import WeightAtlasError
from builder.execute import Executor
from builder.execute.cluster import Cluster
from builder.execute.local import InProcess
from builder.execute.processes import Processes
from tests.execute.fake_job import FakeJob, finish


def main() -> None:
    folder, log, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    executors: dict[str, Executor] = {
        "inside": InProcess("cpu", None, 2),
        "processes": Processes(2, ("cpu",), None, 2),
        "ray": Cluster(2, "", "cpu", 1, 2),
    }
    executor = executors[options.pop("executor")]
    limit = options.pop("limit", None)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        finish(folder, executor, FakeJob(log, **options))
    except WeightAtlasError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
