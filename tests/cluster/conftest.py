"""One image and one cluster for all tests of this folder. The summary of pytest shows what the tests measured.

Without a Docker engine the tests are skipped. With DRPO_REQUIRE_DOCKER=1, they fail instead.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import docker
import pytest
from support.compose import ROOT, Cluster

IMAGE = "drpo:test"
MEASURED = pytest.StashKey[list[str]]()

Measure = Callable[[str], "object"]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MEASURED] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[MEASURED]:
        terminalreporter.section("measured on the cluster")
        for line in config.stash[MEASURED]:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Adds a line to the summary."""
    return pytestconfig.stash[MEASURED].append


@pytest.fixture(scope="session")
def clock(note: Callable[[str], None]) -> Callable[[str], object]:
    """`with clock("what"):` adds the time that its block took to the summary."""

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        note(f"{time.monotonic() - started:6.1f} s  {what}")

    return timed


@pytest.fixture(scope="session")
def image(clock: Callable[[str], object], note: Callable[[str], None]) -> str:
    """The image of deploy/Dockerfile, or the existing one that DRPO_TEST_IMAGE names."""
    _require_docker()
    name = os.environ.get("DRPO_TEST_IMAGE", IMAGE)
    if name == IMAGE:
        with clock("image built"):
            _build(name)
    note(f"{docker.from_env().images.get(name).attrs['Size'] / 1e9:6.2f} GB image")
    return name


@pytest.fixture(scope="session")
def cluster(image: str, clock: Callable[[str], object]) -> Iterator[Cluster]:
    """A cluster that is up and ready."""
    running = Cluster(image)
    try:
        with clock("docker compose up --wait, until /health/ready is green"):
            running.up()
        yield running
    finally:
        running.down()


def _build(name: str) -> None:
    """Builds the image with the first Docker client that has BuildKit.

    Debian's client includes it. Newer clients need a plugin, which may be missing on a machine that has both clients.
    """
    arguments = ["--file", "deploy/Dockerfile", "--tag", name, "--build-arg", "PIP_EXTRA_INDEX_URL", "."]
    for program in ("docker", "/usr/bin/docker"):
        built = subprocess.run(
            [program, "build", "--quiet", *arguments],
            cwd=ROOT, env={**os.environ, "DOCKER_BUILDKIT": "1"}, capture_output=True, text=True,
        )  # fmt: skip
        if "buildx component is missing" not in built.stderr:
            break
    assert built.returncode == 0, built.stdout + built.stderr


def _require_docker() -> None:
    """Skips the test if there is no Docker engine, or fails it if DRPO_REQUIRE_DOCKER is 1."""
    try:
        docker.from_env().ping()
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True)
    except (docker.errors.DockerException, OSError, subprocess.CalledProcessError) as error:
        reason = f"these tests need a Docker engine with Compose v2; deploy/ci/engine.sh starts one ({error})"
        if os.environ.get("DRPO_REQUIRE_DOCKER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
