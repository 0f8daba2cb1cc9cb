"""Who does a scan's units, as the settings ask?"""

from __future__ import annotations

from collections.abc import Sequence

from builder.config import ComputeSettings
from builder.execute.cluster import Cluster
from builder.execute.local import InProcess
from builder.execute.processes import Processes
from builder.execute.units import Executor


def make_executor(settings: ComputeSettings, devices: Sequence[str]) -> Executor:
    """The executor that the settings ask for; nothing is started yet.

    ``devices``: one for each worker, counted round. Raises ConfigError where Ray is asked for and
    not installed.
    """
    if settings.executor == "ray":
        return Cluster(
            settings.workers, settings.address, devices[0], settings.threads, settings.retries
        )
    if settings.workers == 1:
        return InProcess(devices[0], settings.threads, settings.retries)
    return Processes(settings.workers, devices, settings.threads, settings.retries)
