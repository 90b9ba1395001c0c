"""Pictures as users send them: any size and shape, grey, with an opaque alpha channel; seeded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from drpo_rewards.api.images import decode

SPECIAL = "a <|endoftext|> cat [SEP] <|image_pad|> <|Reward|><|im_end|> dog"
PROMPTS = (
    "a red circle",
    "Two CATS, left of  a dog!",
    "a very long prompt " * 60,
    SPECIAL,
    "ein Bär & 猫",
)


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8, as the service decodes a PNG file of that mode: soft blobs under a little noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).convert(mode).save(file, format="PNG")
    return decode(file.getvalue())


def odd_pictures() -> list[np.ndarray]:
    """One of each kind, none of them square but the last."""
    return [
        picture(301, 203, seed=1),  # odd sides, landscape
        picture(97, 260, seed=2),  # portrait
        picture(240, 180, "L", seed=3),  # grey
        picture(131, 257, "RGBA", seed=4),  # opaque alpha
        picture(16, 11, seed=5),  # smaller than what the model sees
        picture(224, 224, seed=6),
    ]
