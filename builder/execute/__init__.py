"""Who does the work units of a stage, and how is a finished one known? Files, locks, executors."""

from __future__ import annotations

from builder.execute.executors import make_executor
from builder.execute.files import (
    disk_errors,
    is_held,
    read_json,
    run_lock,
    write_atomically,
    write_json,
)
from builder.execute.local import InProcess
from builder.execute.processes import Processes, usable_cores
from builder.execute.units import (
    Checked,
    Executor,
    Files,
    Job,
    Unit,
    check_units,
    count_finished,
    run_units,
)

__all__ = [
    "Checked",
    "Executor",
    "Files",
    "InProcess",
    "Job",
    "Processes",
    "Unit",
    "check_units",
    "count_finished",
    "disk_errors",
    "is_held",
    "make_executor",
    "read_json",
    "run_lock",
    "run_units",
    "usable_cores",
    "write_atomically",
    "write_json",
]
