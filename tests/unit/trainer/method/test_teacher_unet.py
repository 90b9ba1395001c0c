"""The reference U-Net as a feature map, on generators in both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny.sd_turbo import write_tiny_pipeline
from support.tiny.sdxl_turbo import write_tiny_xl_pipeline

from drpo.config import LoraConfig
from drpo.errors import ConfigError
from drpo.generators.configs import read_layout
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.method.features import FeatureContext, check_feature_map, load_feature_map

BLOCKS = ("down_blocks.1", "mid_block", "up_blocks.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture(scope="module")
def generator(folder: Path) -> SDTurboGenerator:
    """A generator whose adapter changes what it draws."""
    torch.manual_seed(0)
    generator = SDTurboGenerator.load(folder, lora=LoraConfig(rank=2), dtype=torch.float64)
    for parameter in generator.adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return generator


def make(generator, **options):
    return load_feature_map("teacher_unet", generator=generator, **{"blocks": BLOCKS, "pool": 2, **options})


def latents(count: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(4)
    return torch.randn(count, 4, 8, 8, generator=random, dtype=torch.float64)


def test_features_are_the_base_blocks_outputs(folder: Path, generator: SDTurboGenerator) -> None:
    """Against diffusers' own U-Net without an adapter, with the noise added by hand and the averages by slices."""
    base = SDTurboGenerator.load(folder, dtype=torch.float64)
    conditions = generator.encode_prompts(["a red circle"])
    x = latents()
    features = make(generator).of_latents(x, FeatureContext(conditions, step_seed=7))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7)).double()
    seen = {}
    for block in BLOCKS:
        base.unet.get_submodule(block).register_forward_hook(
            lambda module, inputs, output, block=block: seen.update(
                {block: output[0] if isinstance(output, tuple) else output}
            )
        )
    base.unet(x + 0.1 * noise, 100, encoder_hidden_states=conditions.text_NTD.expand(2, -1, -1))
    for block, map_NDhw in seen.items():
        n, d, h, w = map_NDhw.shape
        pooled = map_NDhw.reshape(n, d, h // 2, 2, w // 2, 2).mean(dim=(3, 5))
        torch.testing.assert_close(features[block], pooled.reshape(n, 1, -1), rtol=1e-10, atol=1e-12)
        assert (h, w) in ((4, 4), (8, 8))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_finite_differences(generator: SDTurboGenerator, checkpointing: bool) -> None:
    """Also with gradient checkpointing of the policy: its adapter must not reach the reference's gradient."""
    if checkpointing:
        generator.unet.enable_gradient_checkpointing()
    context = FeatureContext(generator.encode_prompts(["a red circle"]), step_seed=1)
    feature_map, x = make(generator), latents(1).requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def value(at: torch.Tensor) -> torch.Tensor:
        return sum(one.square().sum() for one in feature_map.of_latents(at, context).values())

    value(x).backward()
    step = 1e-6
    difference = (value(x.detach() + step * direction) - value(x.detach() - step * direction)) / (2 * step)
    torch.testing.assert_close((x.grad * direction).sum(), difference, rtol=1e-6, atol=1e-8)
    assert generator.unet.is_gradient_checkpointing is checkpointing
    assert all(parameter.grad is None for parameter in generator.adapter.parameters())
    generator.unet.disable_gradient_checkpointing()


def test_the_released_noise_is_another_one_for_each_latent_and_call(generator: SDTurboGenerator) -> None:
    conditions = generator.encode_prompts(["a red circle"])
    same = latents(1).expand(2, -1, -1, -1)

    def features(call: int, **options) -> torch.Tensor:
        context = FeatureContext(conditions, step_seed=1, call_seed=call)
        return make(generator, **options).of_latents(same, context)["mid_block"]

    one, two = features(1), features(2)
    assert torch.equal(one, two)
    torch.testing.assert_close(one[0], one[1])
    one, two = features(1, variant="released"), features(2, variant="released")
    assert (one - two).abs().max() > 1e-3
    assert (one[0] - one[1]).abs().max() > 1e-3


def test_it_works_with_the_conditions_of_the_sdxl_layout(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    from drpo.generators.sdxl_turbo import SDXLTurboGenerator

    pipeline = StableDiffusionXLPipeline.from_pretrained(write_tiny_xl_pipeline(tmp_path / "xl"))
    generator = SDXLTurboGenerator(pipeline, LoraConfig(rank=2))
    conditions = generator.encode_prompts(["a red circle"])
    assert conditions.pooled_ND is not None
    feature_map = load_feature_map("teacher_unet", generator=generator, pool=2)
    features = feature_map.of_latents(latents().float(), FeatureContext(conditions))
    assert list(features) == ["down_blocks.2", "mid_block", "up_blocks.0"]
    assert all(value.shape[:2] == (2, 1) for value in features.values())


def test_it_is_the_frozen_copy_if_the_whole_unet_is_trained(folder: Path) -> None:
    trained, base = SDTurboGenerator.load(folder, whole=True), SDTurboGenerator.load(folder)
    for parameter in trained.adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    context, x = FeatureContext(base.encode_prompts(["a red circle"]), step_seed=3), latents().float()
    expected = make(base).of_latents(x, context)
    for block, feature in make(trained).of_latents(x, context).items():
        assert torch.equal(feature, expected[block])


def test_blocks_that_are_not_there_are_named_before_a_start(folder: Path, generator: SDTurboGenerator) -> None:
    layout = read_layout(str(folder))
    assert layout == generator.layout
    with pytest.raises(ConfigError, match=r"no block 'down_blocks\.2'; its blocks are down_blocks\.0, down_blocks\.1"):
        check_feature_map("teacher_unet", None, {}, layout)
    with pytest.raises(ConfigError, match="give the generator"):
        load_feature_map("teacher_unet", blocks=["mid_block"])
    with pytest.raises(
        ConfigError, match=r"down_blocks\.1 has \(4, 4\) locations, fewer than features\.options\.pool \(8\)"
    ):
        make(generator, pool=8)


def test_the_sizes_of_the_blocks_are_those_of_their_outputs(tmp_path: Path) -> None:
    from drpo.generators.sdxl_turbo import SDXLTurboGenerator

    generator = SDXLTurboGenerator.load(write_tiny_xl_pipeline(tmp_path / "xl"))
    seen = {}
    for block in generator.layout.blocks:
        generator.unet.get_submodule(block).register_forward_hook(
            lambda module, inputs, output, block=block: seen.update(
                {block: tuple((output[0] if isinstance(output, tuple) else output).shape[2:])}
            )
        )
    generator.sample(generator.noise(1), generator.encode_prompts(["a red circle"]))
    assert seen == generator.layout.blocks
