"""One local Ray for all integration tests, because a start takes half of the time of most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.service import Served, serve

from drpo_rewards.cluster.local_ray import start_local_ray, stop_ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray that only this test session uses, with 4 logical CPUs on any machine. Initialised in this process."""
    start_local_ray(num_cpus=4)
    yield
    stop_ray()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that the command line has started, for tests of the command line and of the web page."""
    with serve(tmp_path_factory.mktemp("served")) as running:
        yield running
