"""What a service needs from the machine around it."""

from __future__ import annotations

import resource

from drpo_rewards.serving.operate.surroundings import check_surroundings


def test_too_few_open_files_for_ray() -> None:
    """With 64, Ray's processes hang: the service would be given up after five minutes, without a reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert [finding for finding in check_surroundings() if finding.about == "open files"] == []
    resource.setrlimit(resource.RLIMIT_NOFILE, (255, hard))
    try:
        (found,) = [finding for finding in check_surroundings() if finding.about == "open files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found.state, found.found) == ("wrong", "a process may have only 255; Ray's need 256 or more")
    assert found.fix.startswith("ulimit -n 4096")
