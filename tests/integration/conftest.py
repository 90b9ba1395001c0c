"""One local Ray for all integration tests: starting one takes half of the time of most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.served import Served, serve

from drpo_rewards.cluster.local_ray import start_local_ray

RAY_STARTS = 3


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray of this test session alone, with 4 logical CPUs whatever the machine has. Initialised in this process."""
    import ray

    for attempt in range(1, RAY_STARTS + 1):
        try:
            start_local_ray(num_cpus=4)
            break
        except Exception as error:  # Ray raises just that where its node is not up within 30 s: a busy machine
            ray.shutdown()
            if attempt == RAY_STARTS or "timed out during startup" not in str(error):
                raise
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that the command line started, for tests of the command line and of the page."""
    with serve(tmp_path_factory.mktemp("served")) as running:
        yield running
