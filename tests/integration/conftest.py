"""One local Ray for all integration tests: starting one takes half of the time of most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray of this test session alone, with 4 logical CPUs whatever the machine has. Initialised in this process."""
    import ray

    ray.init(address="local", num_cpus=4, log_to_driver=False)
    yield
    ray.shutdown()
