"""Our one-step generator gives the same images as the stock pipeline, with and without an adapter."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from drpo.config import LoraConfig
from drpo.errors import ConfigError, DrpoError, ModelLoadError, ShapeError, UnsupportedModelError
from drpo.generators.sd_turbo import SDTurboGenerator

PROMPT = "a red ring"


def stock(folder: Path, adapter: Path | None = None, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    if adapter is not None:
        pipeline.load_lora_weights(adapter)
    # On a CPU, torch picks other kernels for weights that could be trained; they differ in the last bit.
    pipeline.unet.requires_grad_(False)
    pipeline.vae.requires_grad_(False)
    pipeline.text_encoder.requires_grad_(False)
    return pipeline


def stock_images(pipeline: StableDiffusionPipeline, count: int = 3, seed: int = 7, output_type: str = "np") -> object:
    return pipeline(
        PROMPT,
        num_inference_steps=1,
        guidance_scale=0.0,
        num_images_per_prompt=count,
        generator=torch.Generator().manual_seed(seed),
        output_type=output_type,
    ).images


def our_latents(generator: SDTurboGenerator, count: int = 3, seed: int = 7) -> torch.Tensor:
    return generator.sample(
        generator.noise(count, torch.Generator().manual_seed(seed)), generator.encode_prompts([PROMPT])
    )


def with_random_adapter(folder: Path, **settings: object) -> SDTurboGenerator:
    """A generator with an adapter as after training: no weight is 0."""
    torch.manual_seed(1)
    generator = SDTurboGenerator.load(folder, lora=LoraConfig(**{"rank": 4, **settings}))
    with torch.no_grad():
        for parameter in generator.adapter.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return generator


def test_the_step_is_that_of_sd_turbo(sd_turbo: Path) -> None:
    generator = SDTurboGenerator.load(sd_turbo)
    assert generator._timestep.item() == 999
    assert generator._sigma.item() == pytest.approx(14.6146, abs=1e-3)
    assert generator.latent_shape == (4, 16, 16)
    assert generator.image_size == (128, 128)
    assert generator.encode_prompts([PROMPT, "a"]).text_NTD.shape == (2, 77, 32)


@torch.no_grad()
def test_latents_and_images_equal_those_of_the_stock_pipeline(sd_turbo: Path) -> None:
    generator, pipeline = SDTurboGenerator.load(sd_turbo), stock(sd_turbo)
    latents = our_latents(generator)
    assert torch.equal(latents, stock_images(pipeline, output_type="latent"))
    images = generator.decode(latents, chunk_size=3)
    expected = np.stack([np.asarray(image) for image in stock_images(pipeline, output_type="pil")])
    assert images.dtype == np.uint8
    assert images.shape == (3, 128, 128, 3)
    assert np.array_equal(images, expected)
    assert images.std() > 5  # a picture, not one flat colour


@torch.no_grad()
def test_bfloat16_latents_equal_those_of_the_stock_pipeline(sd_turbo: Path) -> None:
    generator = SDTurboGenerator.load(sd_turbo, dtype=torch.bfloat16)
    expected = stock_images(stock(sd_turbo, dtype=torch.bfloat16), output_type="latent")
    latents = our_latents(generator)
    assert latents.dtype == torch.bfloat16
    assert torch.equal(latents, expected)


@torch.no_grad()
def test_a_fresh_adapter_and_one_switched_off_change_nothing(sd_turbo: Path) -> None:
    base = our_latents(SDTurboGenerator.load(sd_turbo))
    assert torch.equal(our_latents(SDTurboGenerator.load(sd_turbo, lora=LoraConfig(rank=4))), base)
    tuned = with_random_adapter(sd_turbo)
    assert not torch.allclose(our_latents(tuned), base, atol=1e-3)
    with tuned.reference():
        assert torch.equal(our_latents(tuned), base)
    assert not torch.allclose(our_latents(tuned), base, atol=1e-3)
    no_adapter = SDTurboGenerator.load(sd_turbo)
    with no_adapter.reference():
        assert torch.equal(our_latents(no_adapter), base)


def test_the_adapter_is_back_on_after_an_error(sd_turbo: Path) -> None:
    tuned = with_random_adapter(sd_turbo)
    before = our_latents(tuned)
    with pytest.raises(KeyError), tuned.reference():
        raise KeyError
    assert torch.equal(our_latents(tuned), before)


@torch.no_grad()
@pytest.mark.parametrize("alpha", [None, 7.0])
def test_stock_diffusers_loads_the_saved_adapter(sd_turbo: Path, tmp_path: Path, alpha: float | None) -> None:
    tuned = with_random_adapter(sd_turbo, alpha=alpha)
    tuned.adapter.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    pipeline = stock(sd_turbo, adapter=tmp_path)
    tuned.unet.requires_grad_(False)  # as the stock pipeline here
    ours = our_latents(tuned)
    assert torch.equal(stock_images(pipeline, output_type="latent"), ours)
    expected = np.stack([np.asarray(image) for image in stock_images(pipeline, output_type="pil")])
    assert np.array_equal(tuned.decode(ours), expected)


@torch.no_grad()
def test_a_saved_adapter_loads_into_a_plain_generator_and_replaces_a_fresh_adapter(
    sd_turbo: Path, tmp_path: Path
) -> None:
    tuned = with_random_adapter(sd_turbo, alpha=7.0)
    tuned.adapter.save(tmp_path)
    plain = SDTurboGenerator.load(sd_turbo)
    plain.adapter.load(tmp_path)
    assert torch.equal(our_latents(plain), our_latents(tuned))
    assert all(p.requires_grad for p in plain.adapter.parameters())
    fresh = SDTurboGenerator.load(sd_turbo, lora=LoraConfig(rank=8))
    fresh.adapter.load(tmp_path)
    assert torch.equal(our_latents(fresh), our_latents(tuned))


def test_the_state_of_another_adapter_is_refused(sd_turbo: Path) -> None:
    state = with_random_adapter(sd_turbo).adapter.state()
    with pytest.raises(ModelLoadError, match="rank 8"):
        SDTurboGenerator.load(sd_turbo, lora=LoraConfig(rank=8, alpha=4.0)).adapter.load_state(state)
    with pytest.raises(ConfigError, match="no adapter"):
        SDTurboGenerator.load(sd_turbo).adapter.state()


def test_adapter_state_is_restored_in_place(sd_turbo: Path) -> None:
    tuned = with_random_adapter(sd_turbo)
    parameters, state, before = tuned.adapter.parameters(), tuned.adapter.state(), our_latents(tuned).detach()
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    assert not torch.equal(our_latents(tuned), before)
    tuned.adapter.load_state(pickle.loads(pickle.dumps(state)))
    assert torch.equal(our_latents(tuned), before)
    assert all(a is b for a, b in zip(parameters, tuned.adapter.parameters(), strict=True))


def gradients(generator: SDTurboGenerator, switch_between: bool = False) -> list[torch.Tensor]:
    latents = our_latents(generator)
    if switch_between:  # as in training: the reference is generated between the forward and the backward pass
        with torch.no_grad(), generator.reference():
            our_latents(generator)
    return list(torch.autograd.grad(latents.square().mean(), generator.adapter.parameters()))


def test_the_adapter_and_only_the_adapter_is_trained(sd_turbo: Path) -> None:
    tuned = with_random_adapter(sd_turbo)
    attention = [name for name, _ in tuned.unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))]
    assert len(tuned.adapter.parameters()) == 2 * len(attention)
    trainable = [
        p for model in (tuned.unet, tuned.vae, tuned.text_encoder) for p in model.parameters() if p.requires_grad
    ]
    assert {id(p) for p in trainable} == {id(p) for p in tuned.adapter.parameters()}
    assert all(gradient.abs().sum() > 0 for gradient in gradients(tuned))


def test_switching_between_forward_and_backward_keeps_the_gradient(sd_turbo: Path) -> None:
    tuned = with_random_adapter(sd_turbo)
    for one, other in zip(gradients(tuned), gradients(tuned, switch_between=True), strict=True):
        assert torch.equal(one, other)


def test_gradient_checkpointing_gives_the_same_gradient(sd_turbo: Path, tmp_path: Path) -> None:
    tuned = with_random_adapter(sd_turbo)
    torch.manual_seed(0)
    checkpointing = SDTurboGenerator.load(sd_turbo, lora=LoraConfig(rank=4), gradient_checkpointing=True)
    assert checkpointing.unet.is_gradient_checkpointing
    checkpointing.adapter.load_state(tuned.adapter.state())
    for one, other in zip(gradients(tuned), gradients(checkpointing, switch_between=True), strict=True):
        torch.testing.assert_close(one, other)


def test_the_adapter_stays_in_float32_on_a_half_precision_base(sd_turbo: Path) -> None:
    generator = SDTurboGenerator.load(sd_turbo, dtype=torch.bfloat16, lora=LoraConfig(rank=4))
    assert {p.dtype for p in generator.adapter.parameters()} == {torch.float32}
    our_latents(generator).float().square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.adapter.parameters())


def test_decoding_is_differentiable(sd_turbo: Path) -> None:
    generator = SDTurboGenerator.load(sd_turbo)
    latents = our_latents(generator, count=1).requires_grad_()
    images = generator.decode_float(latents)
    assert images.shape == (1, 3, 128, 128)
    images.square().mean().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0


@pytest.mark.parametrize("change", [{"prediction_type": "v_prediction"}, {"timestep_spacing": "leading"}])
def test_another_kind_of_scheduler_is_refused(save_pipeline, tmp_path: Path, change: dict[str, str]) -> None:
    folder = save_pipeline(tmp_path / "other", **change)
    with pytest.raises(UnsupportedModelError, match=next(iter(change.values()))):
        SDTurboGenerator.load(folder)


def test_sdxl_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(UnsupportedModelError, match="SDXL-Turbo is not supported yet") as caught:
        SDTurboGenerator.load(tmp_path)
    assert isinstance(caught.value, DrpoError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_does_not_fit_is_refused(sd_turbo: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="stabilityai/sd-turbo"):
        SDTurboGenerator.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="target_modules"):
        SDTurboGenerator.load(sd_turbo, lora=LoraConfig(target_modules=("to_x",)))
    generator = SDTurboGenerator.load(sd_turbo)
    text = generator.encode_prompts([PROMPT, PROMPT])
    with pytest.raises(ShapeError):
        generator.sample(torch.randn(3, 4, 16, 16), text)
    with pytest.raises(ShapeError):
        generator.sample(torch.randn(2, 4, 8, 8), text)
