"""Frechet and kernel distance of features whose distances are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from drpo.errors import ConfigError
from drpo.evaluation.table.distribution import extract, measure_distances, read_references


def test_distances_against_closed_forms(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    one_ND, other_ND = torch.randn(4000, 3, generator=random), 2 * torch.randn(4000, 3, generator=random) + 1
    found = measure_distances(other_ND, one_ND)
    assert found.frechet == pytest.approx(3 * 1 + 3 * (1 + 4 - 2 * 2), rel=0.05)  # (mean)^2 + tr(A + B - 2 sqrt(AB))
    assert measure_distances(one_ND, one_ND).frechet == pytest.approx(0, abs=1e-3)
    assert found.kernel > 0.5 > abs(measure_distances(one_ND[:2000], one_ND[2000:]).kernel)
    assert found == measure_distances(other_ND, one_ND), "its subsets have a fixed seed"
    for i in range(3):
        Image.new("RGB", (8 + i, 8), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    reds_N1 = extract(read_references(str(tmp_path)), lambda x_NHWC: torch.tensor(x_NHWC[:, 0, 0, :1]).float())
    assert reds_N1.flatten().tolist() == [0, 10, 20]
    with pytest.raises(ConfigError, match="there are no pictures"):
        list(read_references(str(tmp_path / "none")))


def draw(count: int, seed: int) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def test_partners_are_not_taken_for_independent() -> None:
    """Rows share their noises. A row that hardly differs from the reference is at no distance, not below it."""
    one_ND = draw(24, 0)
    near_ND = one_ND + 0.1 * draw(24, 1)
    assert measure_distances(near_ND, one_ND).kernel < -0.3, "what the estimator for independent pictures says"
    found = measure_distances(near_ND, one_ND, paired=True)
    assert abs(found.kernel) < 0.1
    assert found.kernel_std > 0, "its subsets differ, however few pictures there are"
    assert measure_distances(one_ND, one_ND, paired=True).kernel == pytest.approx(0, abs=1e-12)


def test_partners_agree_with_independent_pictures_about_a_large_distance() -> None:
    one_ND, other_ND = draw(2000, 0), 1.5 * draw(2000, 1) + 0.5
    independent, paired = measure_distances(other_ND, one_ND), measure_distances(other_ND, one_ND, paired=True)
    assert paired.kernel == pytest.approx(independent.kernel, rel=0.05)
