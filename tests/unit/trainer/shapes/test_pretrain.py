"""The recipe writes both folders, resumes after an interruption, and refuses the folder of another recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from drpo.errors import ConfigError
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.generators.sdxl_turbo import SDXLTurboGenerator
from drpo.method.features.latent_mae import LatentMAEFeatures
from drpo.shapes.pretrain.honest import HonestRecipe, pretrain_honest
from drpo.shapes.pretrain.recipe import Recipe, pretrain
from drpo.shapes.pretrain.stage import StepRandom, fit
from drpo.shapes.pretrain.text import new_tokenizer
from drpo.shapes.pretrain.xl import XLRecipe, pretrain_xl


def _train(folder: Path, interrupt_at: int | None = None) -> nn.Linear:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    steps_done = 0

    def compute_loss(random: StepRandom) -> Tensor:
        nonlocal steps_done
        if steps_done == interrupt_at:
            raise KeyboardInterrupt
        steps_done += 1
        return (model(torch.randn(8, 3, generator=random.torch)) - 1).square().mean()

    fit("toy", model, compute_loss, folder, steps=9, learning_rate=0.1, seed=3, ema_decay=0.9, save_every=2)
    return model


def test_an_interrupted_stage_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "interrupted").mkdir()
    whole = _train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "interrupted", interrupt_at=5)
    resumed = _train(tmp_path / "interrupted")
    again = _train(tmp_path / "interrupted")  # a finished stage is only loaded
    for a, b, c in zip(whole.parameters(), resumed.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_the_recipe_trains_a_generator_and_a_feature_map(tmp_path: Path) -> None:
    pretrain(Recipe.tiny(), tmp_path)
    generator = SDTurboGenerator.load(tmp_path / "generator")
    features = LatentMAEFeatures(tmp_path / "latent_mae")
    with torch.no_grad():
        latents = generator.sample(generator.noise(2), generator.encode_prompts(["a red star", "two moons"]))
        assert generator.decode(latents).shape == (2, 64, 64, 3)
        assert all(feature.shape[0] == 2 for feature in features.of_latents(latents).values())
    with pytest.raises(ConfigError, match="another recipe"):
        pretrain(replace(Recipe.tiny(), generator_steps=3), tmp_path)


@pytest.mark.thorough
def test_the_other_recipes_write_generators_that_stock_diffusers_loads(tmp_path: Path) -> None:
    """Both reuse the embedded autoencoder and text encoder, and load as printed: `from_pretrained(folder)`."""
    pretrain_xl(XLRecipe.tiny(), tmp_path / "xl")
    pretrain_honest(HonestRecipe.tiny(), tmp_path / "honest")
    for pipeline_class, name, ours in (
        (StableDiffusionXLPipeline, "xl", SDXLTurboGenerator),
        (StableDiffusionPipeline, "honest", SDTurboGenerator),
    ):
        pipeline = pipeline_class.from_pretrained(tmp_path / name / "generator")
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(
            "a red star", num_inference_steps=1, guidance_scale=0.0, generator=torch.Generator().manual_seed(3)
        ).images
        with torch.no_grad():
            generator = ours(pipeline)
            noise = generator.noise(1, torch.Generator().manual_seed(3))
            latents = generator.sample(noise, generator.encode_prompts(["a red star"]))
            assert np.array_equal(generator.decode(latents)[0], np.asarray(images[0]))


def test_every_word_of_the_prompts_is_one_token_and_other_text_is_spelt_in_letters() -> None:
    tokenizer = new_tokenizer()
    ids = tokenizer("an orange star to the left of a triangle").input_ids
    assert len(ids) == 9 + 2
    assert tokenizer.decode(tokenizer("hexagon, 7!").input_ids, skip_special_tokens=True).strip() == "hexagon , 7 !"
    unknown = tokenizer("xylophone").input_ids
    assert tokenizer.eos_token_id not in unknown[:-1]


def test_every_process_makes_the_same_tokenizer() -> None:
    """Each process of the recipe makes its own tokenizer, and so does a resumed run."""
    code = "import json, drpo.shapes.pretrain.text as text; print(json.dumps(text.new_tokenizer().get_vocab()))"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(other.stdout.splitlines()[-1]) == new_tokenizer().get_vocab()
