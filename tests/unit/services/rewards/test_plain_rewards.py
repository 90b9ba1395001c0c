"""The rewards without weights: each against a closed form, another library, or a picture whose answer is known."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from support.images import picture

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import Reward, ScoreItem
from drpo_rewards.rewards.checks import describe

NOISE = picture(64, 48, seed=1)
EVEN = np.full((48, 64, 3), (200, 30, 90), np.uint8)


def score(name: str, image: np.ndarray, **options: object) -> float:
    reward = rewards.load(name, **options)
    assert isinstance(reward, Reward)
    return reward.score([ScoreItem(image, "any prompt")])[0].value


def test_jpeg_size_is_ddpos() -> None:
    """DDPO saves with quality 95 and counts thousands of bytes, negative for compressibility."""
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, format="JPEG", quality=95)
    kilobytes = len(file.getvalue()) / 1000
    assert score("jpeg_size", NOISE) == -kilobytes
    assert score("jpeg_size", NOISE, prefer="large") == kilobytes
    assert score("jpeg_size", NOISE, quality=50) > score("jpeg_size", NOISE)
    assert score("jpeg_size", EVEN) > score("jpeg_size", NOISE)


def test_the_metric_of_jpeg_size_has_the_direction_of_the_score() -> None:
    for prefer, larger_is_better in (("small", False), ("large", True)):
        reward = rewards.load("jpeg_size", prefer=prefer)
        (metric,) = describe("jpeg_size", reward).metrics
        assert metric.higher_is_better == larger_is_better
        assert reward.score([ScoreItem(NOISE, "")])[0].details.keys() == {metric.name}


def test_sharpness_is_the_variance_of_opencvs_laplacian() -> None:
    smooth = cv2.GaussianBlur(NOISE, (9, 9), 3)
    grey = np.repeat(cv2.cvtColor(NOISE, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    expected = cv2.Laplacian(grey[:, :, 0], cv2.CV_64F)[1:-1, 1:-1].var()
    assert score("sharpness", grey) == pytest.approx(expected, rel=1e-9)
    assert score("sharpness", NOISE) > 10 * score("sharpness", smooth)
    assert score("sharpness", EVEN) == pytest.approx(0, abs=1e-9)
    for height, width in ((1, 1), (2, 50), (50, 1)):
        assert np.isfinite(score("sharpness", NOISE[:height, :width]))


def test_colorfulness_of_known_pictures() -> None:
    grey = np.repeat(NOISE[:, :, :1], 3, axis=2)
    assert score("colorfulness", grey) == 0
    # An even picture has no spread, so only the means of red-green and yellow-blue count.
    assert score("colorfulness", EVEN) == pytest.approx(0.3 * np.hypot(170, 25))
    # Half red and half green: red-green is +-255 with mean 0, yellow-blue is 127.5 everywhere.
    halves = np.zeros((10, 10, 3), np.uint8)
    halves[:, :5, 0] = halves[:, 5:, 1] = 255
    assert score("colorfulness", halves) == pytest.approx(255 + 0.3 * 127.5)


def test_symmetry_about_both_axes() -> None:
    left_right = np.concatenate([NOISE, NOISE[:, ::-1]], axis=1)
    assert score("symmetry", left_right) == 1
    assert score("symmetry", left_right, axis="horizontal") < 0.9
    assert score("symmetry", np.swapaxes(left_right, 0, 1), axis="horizontal") == 1
    opposite = np.zeros((4, 4, 3), np.uint8)
    opposite[:, 2:] = 255
    assert score("symmetry", opposite) == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("jpeg_size", {"prefer": "tiny"}, "write small or large"),
        ("jpeg_size", {"quality": 0}, "from 1 to 95"),
        ("jpeg_size", {"quality": "90"}, "from 1 to 95"),
        ("jpeg_size", {"quality": True}, "from 1 to 95"),
        ("symmetry", {"axis": "diagonal"}, "write vertical or horizontal"),
    ],
)
def test_wrong_options_are_told(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rewards.load(name, **options)


def test_a_reward_without_weights_has_no_gradient() -> None:
    with pytest.raises(ConfigError, match="has no gradient"):
        rewards.check_differentiable("symmetry", {})
