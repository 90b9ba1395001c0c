"""Which colours the strict score reads: the share of single objects that are read right, by colour.

Launch: python tests/bench/bench_colors.py [--per-shape 8] [--model.generator FOLDER]

    drawn       scenes with one object in the colour
    decoded     the same, taken through the generator's autoencoder
    asked       generated for "a photo of a COLOUR SHAPE"; right is the shape, whatever the colour
    named       the same; right are shape and colour
    free        generated for "a photo of a SHAPE", by the colour that the picture came out in; `of` counts them

All but `named` should hardly differ between colours: a score that depends on them pays for what nobody asked for.
`named` is how often the generator obeys.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from hardware import describe_hardware
from PIL import Image

from drpo.config import load_config
from drpo.data.prompts.record import PromptRecord
from drpo.evaluation.evaluate import generate_batch
from drpo.evaluation.plan import plan_images
from drpo.generators.base import OneStepGenerator
from drpo.shapes.world import render, sample_scene
from drpo.training.build import build_generator
from drpo_rewards.api.shapes import PALETTE, SHAPES
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.geneval.reward import GenevalReward
from drpo_rewards.rewards.geneval.shapes_detector import ShapesColorClassifier, ShapesDetector

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-shape", type=int, default=8, help="pictures of each shape in each colour")
    arguments, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    generator = build_generator(load_config("shapes", overrides))
    reward, random = GenevalReward(detector="shapes"), np.random.default_rng(0)
    print(describe_hardware())
    print(f"{'colour':<10}" + "".join(f"{name:>9}" for name in ("drawn", "decoded", "asked", "named", "free", "of")))
    free = measure_free(generator, reward, arguments.per_shape * len(PALETTE))
    rows = []
    for color in PALETTE:
        asked = [describe(shape, color) for shape in SHAPES]
        drawn_of = asked * arguments.per_shape
        drawn = [render(sample_scene(dict(one.metadata or {}), random), random) for one in drawn_of]
        pictures, generated_of = generate(generator, asked, arguments.per_shape)
        row = [
            share_right(reward, drawn, drawn_of),
            share_right(reward, pass_through(generator, drawn), drawn_of),
            share_right(reward, pictures, [describe(shape_of(one), None) for one in generated_of]),
            share_right(reward, pictures, generated_of),
            float(np.mean(free[color] or [np.nan])),
        ]
        rows.append(row)
        print(f"{color:<10}" + "".join(f"{value:>9.0f}" for value in (*row, len(free[color]))), flush=True)
    spread = np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
    print(f"{'spread':<10}" + "".join(f"{value:>9.0f}" for value in spread))


def describe(shape: str, color: str | None) -> PromptRecord:
    """The prompt for one object, and what must be in its picture."""
    if color is None:
        return PromptRecord(f"a photo of a {shape}", metadata={"include": [{"class": shape}]})
    return PromptRecord(f"a photo of a {color} {shape}", metadata={"include": [{"class": shape, "color": color}]})


def shape_of(record: PromptRecord) -> str:
    """The shape that a prompt asks for."""
    return str((record.metadata or {})["include"][0]["class"])


def generate(
    generator: OneStepGenerator, records: Sequence[PromptRecord], images: int
) -> tuple[list[np.ndarray], list[PromptRecord]]:
    """Generates pictures, and returns the prompt of each."""
    planned = plan_images(records, images_per_prompt=images)
    pictures: list[np.ndarray] = []
    for start in range(0, len(planned), BATCH):
        pictures += list(generate_batch(generator, planned[start : start + BATCH]).images_NHWC)
    return pictures, [one.record for one in planned]


def measure_free(generator: OneStepGenerator, reward: GenevalReward, images: int) -> dict[str, list[float]]:
    """The strict scores of pictures whose colour nobody asked for, by the colour of the surest object, in percent."""
    detector, classifier = ShapesDetector(), ShapesColorClassifier()
    pictures, records = generate(generator, [describe(shape, None) for shape in SHAPES], images)
    scores: dict[str, list[float]] = {color: [] for color in PALETTE}
    for picture, record, found in zip(pictures, records, detector.detect(pictures), strict=True):
        if found:
            (color,) = classifier.classify(picture, found[:1])
            scores[color].append(share_right(reward, [picture], [record]))
    return scores


@torch.no_grad()
def pass_through(generator: OneStepGenerator, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Encodes pictures with the generator's autoencoder and decodes them again."""
    processor, passed = VaeImageProcessor(), []
    for start in range(0, len(pictures), BATCH):
        batch_N3HW = processor.preprocess([Image.fromarray(one) for one in pictures[start : start + BATCH]])
        latents_NCHW = generator.vae.encode(batch_N3HW).latent_dist.mean
        images_NHWC = processor.postprocess(generator.vae.decode(latents_NCHW).sample, "np")
        passed += list((images_NHWC * 255).round().astype(np.uint8))
    return passed


def share_right(reward: GenevalReward, pictures: Sequence[np.ndarray], records: Sequence[PromptRecord]) -> float:
    """The strict score of the pictures, in percent."""
    items = [ScoreItem(one, record.prompt, record.metadata) for one, record in zip(pictures, records, strict=True)]
    return 100 * float(np.mean([(score.details or {})["strict"] for score in reward.score(items)]))


if __name__ == "__main__":
    main()
