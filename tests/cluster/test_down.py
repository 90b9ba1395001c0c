"""Stops the cluster that the tests of this folder share. The file name sorts last, so this test runs last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.compose import Cluster

pytestmark = pytest.mark.cluster


def test_down_leaves_nothing(cluster: Cluster, clock: Callable[[str], Any]) -> None:
    with clock("docker compose down --volumes"):
        cluster.down()
    label = {"label": f"com.docker.compose.project={cluster.project}"}
    assert not cluster.containers()
    assert not cluster.engine.networks.list(filters=label)
    assert not cluster.engine.volumes.list(filters=label)
