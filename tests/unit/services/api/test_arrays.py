"""Arrays and tensors as pixels: every layout and type that trainers hold gives the same pixels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from drpo_rewards.api.arrays import to_pixels
from drpo_rewards.api.images import load
from drpo_rewards.errors import InvalidImageError

PIXELS_N = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3), dtype=np.uint8)
FLOATS = PIXELS_N.astype(np.float32) / 255

SAME: dict[str, Callable[[], Any]] = {
    "uint8": lambda: PIXELS_N,
    "uint8, channels first": lambda: PIXELS_N.transpose(0, 3, 1, 2),
    "floats": lambda: FLOATS,
    "floats, channels first": lambda: FLOATS.transpose(0, 3, 1, 2),
    "double precision": lambda: FLOATS.astype(np.float64),
    "half precision": lambda: FLOATS.astype(np.float16),
    "a tensor": lambda: torch.tensor(FLOATS).permute(0, 3, 1, 2),
    "a tensor with a gradient": lambda: torch.tensor(FLOATS, requires_grad=True).permute(0, 3, 1, 2),
    "a tensor of uint8": lambda: torch.tensor(PIXELS_N),
    "a tensor of uint8, channels first": lambda: torch.tensor(PIXELS_N).permute(0, 3, 1, 2),
    "half a tensor's precision": lambda: torch.tensor(FLOATS).permute(0, 3, 1, 2).half(),
    "bfloat16": lambda: torch.tensor(FLOATS).permute(0, 3, 1, 2).bfloat16(),  # its 8 bits hold every level
    "floats that overshoot a little": lambda: np.where(FLOATS == 1, 1.004, np.where(FLOATS == 0, -0.004, FLOATS)),
    "arrays that are read-only": lambda: np.frombuffer(PIXELS_N.tobytes(), np.uint8).reshape(PIXELS_N.shape),
}


@pytest.mark.parametrize("form", SAME)
def test_every_form_has_the_same_pixels(form: str) -> None:
    given = SAME[form]()
    np.testing.assert_array_equal(to_pixels(given), PIXELS_N)
    for one, pixels in zip(given, PIXELS_N, strict=True):
        loaded = load(one)
        np.testing.assert_array_equal(loaded, pixels)
        assert loaded.flags.c_contiguous


def test_a_pil_image_stays_one() -> None:
    np.testing.assert_array_equal(load(Image.fromarray(PIXELS_N[0])), PIXELS_N[0])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (FLOATS[0] * 255, "values from 0 to 255"),
        (FLOATS[0] * 2 - 1, "values from -1 to 1"),
        (np.full((3, 8, 8), np.nan, np.float32), "values from nan to nan"),
        (PIXELS_N.astype(np.int64), "int64"),
        (PIXELS_N[..., :2], "uint8 (2, 9, 11, 2)"),
        (np.zeros((8, 8), np.uint8), "(8, 8)"),
        (torch.zeros(4, 8, 8), "float32 (4, 8, 8)"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (torch.zeros(3, 8, 8, device="meta"), "cannot be converted to NumPy: "),
        (torch.zeros(3, 8, 8).to_sparse(), "cannot be converted to NumPy: can't convert Sparse layout tensor"),
    ],
)
def test_what_cannot_be_pixels_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(InvalidImageError) as caught:
        to_pixels(given, field="images[3]")
    assert reason in str(caught.value)
    assert caught.value.field == "images[3]"


def test_the_first_wrong_picture_of_several_is_named() -> None:
    given = np.stack([FLOATS[0], FLOATS[1], FLOATS[0] * np.nan, FLOATS[0] * 2])
    with pytest.raises(InvalidImageError, match=r"^images\[2\] has values from nan to nan") as caught:
        to_pixels(torch.tensor(given).permute(0, 3, 1, 2), field="images")
    assert caught.value.field == "images[2]"


def test_tensors_are_taken_without_importing_torch() -> None:
    """A stand-in with the methods of a tensor, in a process that has not imported torch."""
    program = """
import sys, numpy as np
from drpo_rewards.api.arrays import to_pixels

class Tensor:
    shape = (3, 8, 8)
    def detach(self): return self
    def cpu(self): return self
    def float(self): return self
    def is_floating_point(self): return True
    def __array__(self, dtype=None, copy=None): return np.ones(self.shape, np.float32)

assert to_pixels(Tensor()).min() == 255
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
