"""One Ray for all tests of a process: it takes seconds to start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray on this machine, to which this process is connected."""
    with warnings.catch_warnings():
        # It leaves files of its own open that it starts processes with.
        warnings.simplefilter("ignore", ResourceWarning)
        import ray

        ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
