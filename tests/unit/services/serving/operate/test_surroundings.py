"""What a service needs from the machine around it."""

from __future__ import annotations

import resource

import pytest

from drpo_rewards.serving.operate.surroundings import check_surroundings


@pytest.mark.parametrize(
    ("limit", "value", "about", "words", "fix"),
    [
        (resource.RLIMIT_NOFILE, 255, "open files", "only 255; Ray's need 256 or more", "ulimit -n 4096"),
        (resource.RLIMIT_AS, 8_000_000_000, "address space", "only 8 GB; Ray's reserve ", "ulimit -v unlimited"),
    ],
)
def test_limits_under_which_ray_hangs(limit: int, value: int, about: str, words: str, fix: str) -> None:
    """With 64 open files or 6 GB, the service would be given up after five minutes, without a reason."""
    soft, hard = resource.getrlimit(limit)
    assert [finding for finding in check_surroundings() if finding.about == about] == []
    resource.setrlimit(limit, (value, hard))
    try:
        (found,) = [finding for finding in check_surroundings() if finding.about == about]
    finally:
        resource.setrlimit(limit, (soft, hard))
    assert found.state == "wrong"
    assert words in found.found
    assert found.fix.startswith(fix)
