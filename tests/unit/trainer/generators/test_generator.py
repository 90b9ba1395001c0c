"""A one-step generator of each layout gives the same pictures as the stock pipeline, with and without an adapter."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from support.stock import PROMPT, World, our_latents, stock_images

from drpo.config import LoraConfig
from drpo.errors import ConfigError, ModelLoadError, ShapeError
from drpo.generators import OneStepGenerator, load_generator


def with_random_adapter(world: World, **settings: object) -> OneStepGenerator:
    """A generator with an adapter as after training: no weight is 0."""
    torch.manual_seed(1)
    generator = world.load(lora=LoraConfig(**{"rank": 4, **settings}))
    with torch.no_grad():
        for parameter in generator.adapter.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return generator


def test_the_step_is_that_of_sd_turbo(sd_turbo: Path) -> None:
    generator = load_generator(sd_turbo)
    assert generator._timestep.item() == 999
    assert generator._sigma.item() == pytest.approx(14.6146, abs=1e-3)
    assert generator.latent_shape == (4, 16, 16)
    assert generator.image_size == (128, 128)
    assert generator.encode_prompts([PROMPT, "a"]).text_NTD.shape == (2, 77, 32)


def test_the_conditions_of_sdxl_turbo_are_both_encoders_tokens_and_a_pooled_vector(sdxl_turbo: Path) -> None:
    generator = load_generator(sdxl_turbo)
    assert generator._timestep.item() == 999
    assert generator.image_size == (64, 64)
    conditions = generator.encode_prompts([PROMPT, "a"])
    assert conditions.text_NTD.shape == (2, 77, 16 + 24)
    assert conditions.pooled_ND.shape == (2, 24)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_latents_and_images_equal_those_of_the_stock_pipeline(world: World, dtype: torch.dtype) -> None:
    generator, pipeline = world.load(dtype=dtype), world.stock(dtype=dtype)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    latents = our_latents(generator)
    generator.decode_chunk = 3
    images = generator.decode(latents)
    assert torch.equal(torch.get_rng_state(), before)  # stock ancestral schedulers draw noise that they multiply by 0
    assert latents.dtype == dtype
    assert torch.equal(latents, stock_images(pipeline, output_type="latent"))
    assert images.dtype == np.uint8
    assert images.shape == (3, *generator.image_size, 3)
    assert np.array_equal(images, stock_images(pipeline, output_type="pil"))
    assert images.std() > 5  # a picture, not one flat colour


def test_a_vae_that_overflows_in_half_precision_stays_in_float32(sdxl_turbo: Path, sd_turbo: Path) -> None:
    assert load_generator(sdxl_turbo, dtype=torch.float16).vae.dtype == torch.float32  # its config: force_upcast
    assert load_generator(sdxl_turbo, dtype=torch.bfloat16).vae.dtype == torch.bfloat16
    assert load_generator(sd_turbo, dtype=torch.float16).vae.dtype == torch.float16  # as stock StableDiffusionPipeline


@torch.no_grad()
def test_a_fresh_adapter_and_one_switched_off_change_nothing(world: World) -> None:
    base = our_latents(world.load())
    assert torch.equal(our_latents(world.load(lora=LoraConfig(rank=4))), base)
    tuned = with_random_adapter(world)
    assert not torch.allclose(our_latents(tuned), base, atol=1e-3)
    with tuned.reference():
        assert torch.equal(our_latents(tuned), base)
    assert not torch.allclose(our_latents(tuned), base, atol=1e-3)
    no_adapter = world.load()
    with no_adapter.reference():
        assert torch.equal(our_latents(no_adapter), base)


def test_the_adapter_is_back_on_after_an_error(world: World) -> None:
    tuned = with_random_adapter(world)
    before = our_latents(tuned)
    with pytest.raises(KeyError), tuned.reference():
        raise KeyError
    assert torch.equal(our_latents(tuned), before)


@torch.no_grad()
@pytest.mark.parametrize("alpha", [None, 7.0])
def test_stock_diffusers_loads_the_saved_adapter(world: World, tmp_path: Path, alpha: float | None) -> None:
    tuned = with_random_adapter(world, alpha=alpha)
    tuned.adapter.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    pipeline = world.stock(adapter=tmp_path)
    tuned.unet.requires_grad_(False)  # as the stock pipeline here
    ours = our_latents(tuned)
    assert torch.equal(stock_images(pipeline, output_type="latent"), ours)
    assert np.array_equal(tuned.decode(ours), stock_images(pipeline, output_type="pil"))


@torch.no_grad()
def test_a_saved_adapter_loads_into_a_plain_generator_and_replaces_a_fresh_adapter(
    world: World, tmp_path: Path
) -> None:
    tuned = with_random_adapter(world, alpha=7.0)
    tuned.adapter.save(tmp_path)
    plain = world.load()
    plain.load_adapter(tmp_path)
    assert torch.equal(our_latents(plain), our_latents(tuned))
    assert all(p.requires_grad for p in plain.adapter.parameters())
    fresh = world.load(lora=LoraConfig(rank=8))
    fresh.load_adapter(tmp_path)
    assert torch.equal(our_latents(fresh), our_latents(tuned))


def test_the_state_of_another_adapter_is_refused(world: World) -> None:
    state = with_random_adapter(world).adapter.state()
    with pytest.raises(ModelLoadError, match="rank 8"):
        world.load(lora=LoraConfig(rank=8, alpha=4.0)).adapter.load_state(state)
    with pytest.raises(ConfigError, match="no adapter"):
        world.load().adapter.state()


def test_adapter_state_is_restored_in_place(world: World) -> None:
    tuned = with_random_adapter(world)
    parameters, state, before = tuned.adapter.parameters(), tuned.adapter.state(), our_latents(tuned).detach()
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    assert not torch.equal(our_latents(tuned), before)
    tuned.adapter.load_state(pickle.loads(pickle.dumps(state)))
    assert torch.equal(our_latents(tuned), before)
    assert all(a is b for a, b in zip(parameters, tuned.adapter.parameters(), strict=True))


def gradients(generator: OneStepGenerator, switch_between: bool = False) -> list[torch.Tensor]:
    latents = our_latents(generator)
    if switch_between:  # as in training: the reference is generated between the forward and the backward pass
        with torch.no_grad(), generator.reference():
            our_latents(generator)
    return list(torch.autograd.grad(latents.square().mean(), generator.adapter.parameters()))


def test_the_adapter_and_only_the_adapter_is_trained(world: World) -> None:
    tuned = with_random_adapter(world)
    attention = [name for name, _ in tuned.unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))]
    assert len(tuned.adapter.parameters()) == 2 * len(attention)
    models = [tuned.unet, tuned.vae, *getattr(tuned, "text_encoders", [getattr(tuned, "text_encoder", None)])]
    trainable = [p for model in models for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in tuned.adapter.parameters()}
    assert all(gradient.abs().sum() > 0 for gradient in gradients(tuned))


def test_switching_between_forward_and_backward_keeps_the_gradient(world: World) -> None:
    tuned = with_random_adapter(world)
    for one, other in zip(gradients(tuned), gradients(tuned, switch_between=True), strict=True):
        assert torch.equal(one, other)


def test_gradient_checkpointing_gives_the_same_gradient(world: World) -> None:
    tuned = with_random_adapter(world)
    torch.manual_seed(0)
    checkpointing = world.load(lora=LoraConfig(rank=4), gradient_checkpointing=True)
    assert checkpointing.unet.is_gradient_checkpointing
    checkpointing.adapter.load_state(tuned.adapter.state())
    for one, other in zip(gradients(tuned), gradients(checkpointing, switch_between=True), strict=True):
        torch.testing.assert_close(one, other)


def test_the_adapter_stays_in_float32_on_a_half_precision_base(world: World) -> None:
    generator = world.load(dtype=torch.bfloat16, lora=LoraConfig(rank=4))
    assert {p.dtype for p in generator.adapter.parameters()} == {torch.float32}
    our_latents(generator).float().square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.adapter.parameters())


def test_decoding_is_differentiable(world: World) -> None:
    generator = world.load()
    latents = our_latents(generator, count=1).requires_grad_()
    images = generator.decode_float(latents)
    assert images.shape == (1, 3, *generator.image_size)
    images.square().mean().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="stabilityai/sd-turbo or stabilityai/sdxl-turbo"):
        load_generator(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="target_modules"):
        world.load(lora=LoraConfig(target_modules=("to_x",)))
    generator = world.load()
    text = generator.encode_prompts([PROMPT, PROMPT])
    with pytest.raises(ShapeError):
        generator.sample(torch.randn(3, *generator.latent_shape), text)
    with pytest.raises(ShapeError):
        generator.sample(torch.randn(2, 4, 4, 4), text)
