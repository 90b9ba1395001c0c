"""The vision transformers as feature maps, compared with a second computation in plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support import plain, plain_vision
from support.tiny.vision import write_tiny_dinov2, write_tiny_vit_mae
from torch import Tensor

from drpo.errors import ConfigError, ModelLoadError
from drpo.generators.base import Conditions
from drpo.method.features import FeatureContext, check_feature_map, load_feature_map
from drpo.method.features.base import ImageFeatureMap, LatentFeatureMap

KEYS = [f"layer{layer}_{kind}" for layer in (1, 2) for kind in ("patch_mean", "patch_std", "cls")]


@pytest.fixture(scope="module")
def vit_mae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vit_mae(tmp_path_factory.mktemp("vit-mae"))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


def images(count: int = 2, side: int = 48, seed: int = 0) -> Tensor:
    """Images beyond [-1, 1], as a VAE decodes them."""
    random = torch.Generator().manual_seed(seed)
    return 0.8 * torch.randn(count, 3, side, side, generator=random, dtype=torch.float64)


def context(step: int = 0, call: int = 0) -> FeatureContext:
    return FeatureContext(Conditions(torch.zeros(1, 1, 1)), step_seed=step, call_seed=call)


def load(name: str, folder: Path, **options):
    return load_feature_map(name, folder, dtype=torch.float64, **{"keys": KEYS, **options})


def assert_equal(features: dict[str, Tensor], expected: list[dict[str, np.ndarray]]) -> None:
    """The features of N images against {key: (T, D)} of each."""
    for key in expected[0]:
        np.testing.assert_allclose(features[key].numpy(), np.stack([one[key] for one in expected]), atol=1e-9)


def by_key(states: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {
        f"layer{layer}_{kind}": value
        for layer in (1, 2)
        for kind, value in plain_vision.token_features(states, layer).items()
    }


def test_image_mae_is_the_plain_computation(vit_mae: Path) -> None:
    weights = plain.read(vit_mae / "model.safetensors")
    position_TD = weights["vit.embeddings.position_embeddings"][0]
    x = images()
    expected = []
    for image in x.numpy():
        tokens = plain_vision.embed(weights, "vit.", plain_vision.pixels(image, 32), position_TD)
        expected.append(by_key(plain_vision.vit_mae_states(weights, tokens, heads=2, layers=2)))
    feature_map = load("image_mae", vit_mae)
    assert isinstance(feature_map, ImageFeatureMap)
    assert not isinstance(feature_map, LatentFeatureMap)
    features = feature_map.of_images(x, context())
    assert list(features) == KEYS
    assert {tuple(value.shape) for value in features.values()} == {(2, 1, 16)}
    assert_equal(features, expected)


def test_masked_image_mae_is_the_plain_computation(vit_mae: Path) -> None:
    """With 75 % hidden, the model sees the four patches with the smallest random numbers."""
    weights = plain.read(vit_mae / "model.safetensors")
    position_TD = weights["vit.embeddings.position_embeddings"][0]
    order = torch.rand(1, 16, generator=torch.Generator().manual_seed(5))[0]
    seen = order.argsort()[:4].tolist()
    x = images()
    expected = []
    for image in x.numpy():
        tokens = plain_vision.embed(weights, "vit.", plain_vision.pixels(image, 32), position_TD, seen)
        expected.append(by_key(plain_vision.vit_mae_states(weights, tokens, heads=2, layers=2)))
    assert_equal(load("image_mae", vit_mae, mask_ratio=0.75).of_images(x, context(step=5)), expected)


def test_dinov2_is_the_plain_computation(dinov2: Path) -> None:
    """Its positions for 8x8 patches are scaled to the 4x4 of the processor's crop."""
    weights = plain.read(dinov2 / "model.safetensors")
    stored_TD = weights["embeddings.position_embeddings"][0]
    grid_Dhw = stored_TD[1:].reshape(8, 8, -1).transpose(2, 0, 1)
    scaled_TD = plain_vision.resize(grid_Dhw, 4).transpose(1, 2, 0).reshape(16, -1)
    position_TD = np.concatenate([stored_TD[:1], scaled_TD])
    x = images()
    expected = []
    for image in x.numpy():
        tokens = plain_vision.embed(weights, "", plain_vision.pixels(image, 28), position_TD)
        expected.append(by_key(plain_vision.dinov2_states(weights, tokens, heads=2, layers=2)))
    features = load("dinov2", dinov2).of_images(x, context())
    for key in KEYS:  # the library scales the positions in float32
        np.testing.assert_allclose(features[key].numpy(), np.stack([one[key] for one in expected]), atol=1e-5)


@pytest.mark.parametrize(("name", "options"), [("image_mae", {}), ("image_mae", {"mask_ratio": 0.5}), ("dinov2", {})])
def test_gradients_of_image_features_are_finite_differences(
    name: str, options: dict, vit_mae: Path, dinov2: Path
) -> None:
    feature_map = load(name, vit_mae if name == "image_mae" else dinov2, **options)
    x = images(1, side=40, seed=3).clamp(-0.9, 0.9).requires_grad_()
    random = torch.Generator().manual_seed(1)
    direction = torch.randn(x.shape, generator=random, dtype=torch.float64)

    def value(pixels: Tensor) -> Tensor:
        features = feature_map.of_images(pixels, context())
        return sum((index + 1) * one.square().sum() for index, one in enumerate(features.values()))

    value(x).backward()
    step = 1e-5
    difference = (value(x.detach() + step * direction) - value(x.detach() - step * direction)) / (2 * step)
    torch.testing.assert_close((x.grad * direction).sum(), difference, rtol=1e-6, atol=1e-8)
    assert not any(parameter.requires_grad for parameter in feature_map.model.parameters())


def test_the_released_mask_is_another_one_for_each_image_and_call(vit_mae: Path) -> None:
    paper, released = load("image_mae", vit_mae, mask_ratio=0.75), load("image_mae", vit_mae, variant="released")
    assert released.settings.mask_ratio == 0.75
    same = images(1).expand(2, -1, -1, -1)

    def cls(feature_map, **seeds: int) -> Tensor:
        return feature_map.of_images(same, context(**seeds))["layer2_cls"]

    one, two = cls(paper, step=1, call=1), cls(paper, step=1, call=2)
    assert torch.equal(one, two)
    torch.testing.assert_close(one[0], one[1])  # some processors round the rows of a product differently
    assert not torch.equal(one, cls(paper, step=2, call=1))
    one, two = cls(released, step=1, call=1), cls(released, step=1, call=2)
    assert not torch.equal(one, two)
    assert not torch.allclose(one[0], one[1], rtol=1e-3)
    assert torch.equal(one, cls(released, step=1, call=1)), "a call that is repeated for its gradient"


def test_the_global_random_state_does_not_move(vit_mae: Path) -> None:
    before = torch.get_rng_state()
    for options in ({}, {"mask_ratio": 0.5}, {"variant": "released"}):
        load_feature_map("image_mae", vit_mae, keys=KEYS, **options).of_images(images().float(), context())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_not_there_is_named_before_a_start(vit_mae: Path, dinov2: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no feature 'layer12_patch_mean'; a key is layer1 to layer2"):
        check_feature_map("image_mae", vit_mae, {})
    with pytest.raises(ModelLoadError, match="type dinov2, not vit_mae"):
        check_feature_map("image_mae", dinov2, {"keys": KEYS})
    (tmp_path / "config.json").write_text((dinov2 / "config.json").read_text())
    with pytest.raises(ModelLoadError, match=r"no preprocessor_config\.json"):
        check_feature_map("dinov2", tmp_path, {"keys": KEYS})
    with pytest.raises(ModelLoadError, match="needs the folder, file or hub id"):
        check_feature_map("dinov2", None, {})
    with pytest.raises(ModelLoadError, match="no folder or file /no/such"):
        check_feature_map("dinov2", "/no/such", {})
    with pytest.raises(ValidationError, match="mask_ratio"):
        check_feature_map("image_mae", vit_mae, {"mask_ratio": 1.0})
    check_feature_map("image_mae", vit_mae, {"keys": KEYS})
    check_feature_map("dinov2", "owner/model-that-is-not-cached", {})
