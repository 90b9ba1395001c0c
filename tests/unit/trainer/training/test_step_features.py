"""The training step with feature maps that draw noise, need the generator, or look at images."""

from __future__ import annotations

import pytest
import torch
from support.tiny.vision import write_tiny_dinov2, write_tiny_vit_mae
from test_step import gradients

from drpo.method.features import load_feature_map
from drpo.method.objectives import load_objective

KEYS = ["layer1_patch_mean", "layer2_patch_std", "layer2_cls"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    return {"image_mae": write_tiny_vit_mae(folder / "mae"), "dinov2": write_tiny_dinov2(folder / "dinov2")}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("teacher_unet", {"blocks": ["down_blocks.0", "mid_block"], "pool": 2}),
        ("image_mae", {"keys": KEYS, "mask_ratio": 0.5}),
        ("dinov2", {"keys": KEYS}),
    ],
)
def test_chunks_have_the_gradient_of_the_whole(make_trainer, records, folders, name, options):
    """The noise of a step is the same in every chunk, and when a chunk is computed again."""
    found = []
    for chunk_size in (None, 4):
        trainer = make_trainer(
            feature_map=lambda generator: load_feature_map(name, folders.get(name), generator=generator, **options),
            objective=load_objective("drpo", {"radii": [0.5], "latent_anchor_weight": 0.1, "reference": "perceptual"}),
            chunk_size=chunk_size,
        )
        torch.manual_seed(1)
        for parameter in trainer.parameters:
            torch.nn.init.normal_(parameter, std=0.1)
        line = trainer.run_step(records[:1])
        assert line["latent_distance"] > 0
        found.append(gradients(trainer))
    for one, other in zip(*found, strict=True):
        assert one.norm() > 0
        assert (one - other).norm() < 1e-3 * one.norm()


@pytest.mark.parametrize("name", ["teacher_unet", "image_mae"])
def test_released_noise_differs_between_candidates_and_references(make_trainer, records, folders, name):
    """With a fresh adapter both are the same images. Only the released noise sets their features apart."""
    options = {"blocks": ["mid_block"], "pool": 2} if name == "teacher_unet" else {"keys": KEYS}

    def distance(variant: str) -> float:
        def load(generator):
            return load_feature_map(name, folders.get(name), generator=generator, variant=variant, **options)

        return make_trainer(feature_map=load).run_step(records[:1])["reference_distance"]

    assert distance("paper") < 1e-3
    assert distance("released") > max(20 * distance("paper"), 1e-3)
