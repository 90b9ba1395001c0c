"""Models of another layout are refused by their configs alone; another VAE, another Euler scheduler are taken."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler
from support.stock import World, our_latents, stock_images

from drpo.errors import DrpoError, ModelLoadError, UnsupportedModelError
from drpo.generators import check_generator, load_generator
from drpo.generators.sd_turbo import SDTurboGenerator


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture
def copied(world: World, tmp_path: Path) -> World:
    """A copy that a test may change."""
    return World(Path(shutil.copytree(world.folder, tmp_path / "copy")), world.stock_class)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "v_prediction"),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "leading"}, "leading spacing"),
        ("model_index.json", {"scheduler": ["diffusers", "LCMScheduler"]}, "its scheduler is LCMScheduler"),
        ("unet/config.json", {"time_cond_proj_dim": 8}, r"other conditions .*time_cond_proj_dim"),
        ("unet/config.json", {"num_class_embeds": 8}, r"other conditions .*num_class_embeds"),
        ("unet/config.json", {"sample_size": None}, "no sample_size"),
        ("unet/config.json", {"in_channels": 9}, "9 channels to 4"),
        ("unet/config.json", {"cross_attention_dim": 48}, "takes 48 features of a token"),
        ("vae/config.json", {"latent_channels": 16}, "latents have 16"),
    ],
)
def test_another_layout_is_refused_before_its_weights_are_read(
    copied: World, file: str, changes: dict[str, Any], words: str
) -> None:
    change_json(copied.folder / file, **changes)
    for check in (check_generator, load_generator):
        with pytest.raises(UnsupportedModelError, match=words) as caught:
            check(copied.folder)
    assert isinstance(caught.value, DrpoError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_other_conditions_than_the_layouts_are_refused(sd_turbo: Path, sdxl_turbo: Path, tmp_path: Path) -> None:
    one = shutil.copytree(sd_turbo, tmp_path / "one")
    change_json(one / "unet" / "config.json", addition_embed_type="text", addition_embed_type_num_heads=2)
    with pytest.raises(UnsupportedModelError, match="addition_embed_type text"):
        check_generator(one)
    other = shutil.copytree(sdxl_turbo, tmp_path / "other")
    change_json(other / "unet" / "config.json", projection_class_embeddings_input_dim=80)
    with pytest.raises(UnsupportedModelError, match=r"80 features of the pooled vector .*, but gets 48"):
        check_generator(other)


def test_a_pipeline_of_another_class_is_refused(sdxl_turbo: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(UnsupportedModelError, match="pipeline is FluxPipeline, and only StableDiffusion"):
        load_generator(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"in the SD-Turbo layout: its pipeline is StableDiffusionXL"):
        SDTurboGenerator.load(sdxl_turbo)


@torch.no_grad()
@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler])
def test_either_euler_scheduler_takes_the_same_step(copied: World, scheduler: Any) -> None:
    change_json(copied.folder / "model_index.json", scheduler=["diffusers", scheduler.__name__])
    pipeline = copied.stock()
    assert isinstance(pipeline.scheduler, scheduler)
    assert torch.equal(our_latents(copied.load()), stock_images(pipeline, output_type="latent"))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_another_vae_replaces_the_pipelines(copied: World, tmp_path: Path, dtype: torch.dtype) -> None:
    """As with the published VAE of SDXL for half precision: other weights, and no force_upcast."""
    vae = AutoencoderKL.from_pretrained(copied.folder, subfolder="vae", dtype=torch.float32)
    vae.register_to_config(force_upcast=False)
    vae.decoder.conv_out.weight.mul_(0.5)
    vae.save_pretrained(tmp_path / "vae-fix", variant="fp16")
    (copied.folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()  # the pipeline's own is not needed
    generator = copied.load(vae=str(tmp_path / "vae-fix"), dtype=dtype)
    assert generator.vae.dtype == dtype
    images = generator.decode(our_latents(generator))
    fixed = AutoencoderKL.from_pretrained(tmp_path / "vae-fix", variant="fp16", dtype=dtype)
    assert np.array_equal(images, stock_images(copied.stock(dtype=dtype, vae=fixed), output_type="pil"))
    with pytest.raises(ModelLoadError, match="vae/ has no weights"):
        copied.load()


def test_a_vae_that_does_not_fit_is_refused(copied: World, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"^cannot load a VAE from .*nowhere"):
        copied.load(vae=str(tmp_path / "nowhere"))
    with pytest.raises(ModelLoadError, match="its class is UNet2DConditionModel"):
        copied.load(vae=str(copied.folder / "unet"))
    other = shutil.copytree(copied.folder / "vae", tmp_path / "other")
    change_json(other / "config.json", latent_channels=16)
    with pytest.raises(UnsupportedModelError, match="latents have 16"):
        copied.load(vae=str(other))
    assert copied.load(vae=str(copied.folder)).vae.config.latent_channels == 4  # a whole pipeline has one in vae/
