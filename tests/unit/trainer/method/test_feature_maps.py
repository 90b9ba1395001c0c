"""The latent-MAE and the raw latents as feature maps: names, shapes, gradients, folders, and the public layout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from drpo.errors import CatalogueError, ConfigError, ModelLoadError, ShapeError
from drpo.method.features import load_feature_map
from drpo.method.features.base import ImageFeatureMap, LatentFeatureMap
from drpo.method.features.latent_mae import LatentMAEFeatures
from drpo.method.features.latent_mae_model import LatentMAE
from drpo.method.features.latent_mae_network import LatentMAEConfig
from drpo.method.features.public_latent_mae import read_public_checkpoint
from drpo.method.features.statistics import deviation, patches_of

SMALL = LatentMAEConfig(widths=(8, 12, 16), blocks=(2, 3, 2))


def small(seed: int = 0) -> LatentMAE:
    torch.manual_seed(seed)
    return LatentMAE(SMALL)


def latents(count: int = 2, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_public_model_has_its_published_size_and_names() -> None:
    """340M parameters, as in the paper (Section 5.1); the names are those of the published weights."""
    with torch.device("meta"):
        model = LatentMAE(LatentMAEConfig())
    assert sum(p.numel() for p in model.encoder.parameters()) == pytest.approx(340e6, rel=0.01)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["encoder.conv1.weight"] == (256, 4, 3, 3)
    assert shapes["encoder.stages_1.layers_0.proj_conv.weight"] == (512, 256, 1, 1)
    assert shapes["encoder.stages_2.layers_5.conv2.weight"] == (1024, 1024, 3, 3)
    assert shapes["encoder.stages_3.layers_2.gn2.weight"] == (2048,)
    assert shapes["encoder.layer4_norm.bias"] == (2048,)
    assert shapes["decoder.up43.concat_norm_fn.weight"] == (2048 + 1024,)
    assert shapes["decoder.up10.refine.conv.weight"] == (256, 256, 3, 3)
    assert "encoder.stages_0.layers_0.proj_conv.weight" not in shapes


def test_every_layer_gives_tokens_means_and_deviations() -> None:
    maps = ("layer1", "layer2", "layer2_blk2", "layer3")
    features = small().features(latents())
    shapes = {key: tuple(value.shape) for key, value in (small().features(latents(), maps) | features).items()}
    assert not features.keys() & set(maps)  # a token per location only if it is asked for
    assert shapes["layer1"] == (2, 64, 8)
    assert shapes["layer1_mean"] == shapes["layer1_std"] == (2, 1, 8)
    assert shapes["layer1_mean_2"] == (2, 16, 8)
    assert shapes["layer1_std_4"] == (2, 4, 8)
    assert shapes["layer2_blk2"] == shapes["layer2"] == (2, 16, 12)
    assert shapes["layer3"] == (2, 4, 16)
    assert "layer3_mean_2" not in shapes  # a 2x2 map has one 2x2 patch: it would repeat layer3_mean
    assert "layer1_blk2" not in shapes  # the last block of a stage has no map
    assert list(features) == small().feature_keys(8, 8)


def test_statistics_are_those_of_the_tokens() -> None:
    keys = ("layer1", "layer1_mean", "layer1_std", "layer1_mean_4", "layer3_mean_2", "conv1")
    features = small().features(latents(), keys)
    assert tuple(features) == keys
    tokens = features["layer1"]
    torch.testing.assert_close(features["layer1_mean"][:, 0], tokens.mean(dim=1))
    torch.testing.assert_close(features["layer1_std"][:, 0], tokens.std(dim=1, correction=0), atol=1e-5, rtol=1e-3)
    top_right = tokens.reshape(2, 8, 8, 8)[:, :4, 4:].reshape(2, 16, 8)
    torch.testing.assert_close(features["layer1_mean_4"][:, 1], top_right.mean(dim=1))
    assert features["layer3_mean_2"].shape == (2, 1, 16)


def test_a_constant_map_has_a_finite_gradient_of_its_deviation() -> None:
    values = torch.ones(1, 4, 3, requires_grad=True)
    deviation(values, dim=1).sum().backward()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()
    with pytest.raises(ShapeError, match="6x6"):
        patches_of(torch.ones(1, 1, 6, 6), 4)


def test_masks_are_squares_and_hide_at_least_one_in_every_sample() -> None:
    model = small()
    generator = torch.Generator().manual_seed(0)
    mask = model.draw_mask(latents(count=256), generator)
    assert mask.shape == (256, 1, 8, 8)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    squares = mask.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    assert torch.equal(squares.amin(dim=-1), squares.amax(dim=-1))
    assert mask.mean().item() == pytest.approx(0.5, abs=0.05)
    rare = LatentMAE(SMALL.model_copy(update={"mask_ratio": (1e-6, 1e-6)})).draw_mask(latents(count=16), generator)
    assert (rare.sum(dim=(1, 2, 3)) == 4).all()
    with pytest.raises(ShapeError, match="7x7"):
        model.draw_mask(latents(size=7))


def test_the_masked_loss_is_over_hidden_latents_only() -> None:
    """The loss equals the squared error of the hidden latents, and the hidden values do not reach the network."""
    model, x = small(), latents()
    mask = model.draw_mask(x, torch.Generator().manual_seed(3))
    reconstruction = model.forward_masked(x, mask)
    assert torch.equal(reconstruction, model.forward_masked(torch.where(mask.bool(), 9.0, x), mask))
    hidden = mask.expand_as(x).bool()
    by_sample = [(reconstruction[i] - x[i])[hidden[i]].square().mean() for i in range(len(x))]
    loss = model.masked_loss(x, torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss, torch.stack(by_sample).mean())


def test_pretraining_learns_to_reconstruct_hidden_latents() -> None:
    """Smooth latents can be predicted from their neighbours, so the loss falls by half."""
    model, generator = small(), torch.Generator().manual_seed(0)
    waves = torch.linspace(0, 3, 8).cos() + torch.linspace(0, 3, 8).sin()[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    losses = []
    for _ in range(120):
        x = waves.expand(16, 4, 8, 8) * torch.randn(16, 4, 1, 1, generator=generator).sign()
        loss = model.masked_loss(x, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_a_saved_and_loaded_model_gives_the_same_features(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    feature_map = load_feature_map("latent_mae", tmp_path, keys=("layer2", "layer3_mean"))
    assert isinstance(feature_map, LatentMAEFeatures)
    assert isinstance(feature_map, LatentFeatureMap)
    assert not isinstance(feature_map, ImageFeatureMap)
    features = feature_map.of_latents(latents())
    assert list(features) == ["layer2", "layer3_mean"]
    assert torch.equal(features["layer2"], model.features(latents(), ("layer2",))["layer2"])


def test_gradients_reach_the_latents_and_not_the_map(tmp_path: Path) -> None:
    small().save(tmp_path)
    feature_map = LatentMAEFeatures(tmp_path, device="cpu")
    x = latents().requires_grad_()
    sum(value.square().sum() for value in feature_map.of_latents(x).values()).backward()
    assert x.grad is not None
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()
    assert not any(p.requires_grad for p in feature_map.model.parameters())


def test_half_precision_latents_are_converted_to_the_dtype_of_the_map(tmp_path: Path) -> None:
    small().save(tmp_path)
    assert all(v.dtype == torch.float32 for v in LatentMAEFeatures(tmp_path).of_latents(latents().bfloat16()).values())


def test_raw_latents_are_features_too() -> None:
    x = latents()
    features = load_feature_map("raw_latent").of_latents(x)
    assert list(features) == ["latent_mean", "latent_std"] + [
        f"latent_{kind}_{size}" for size in (2, 4) for kind in ("mean", "std")
    ]
    whole = load_feature_map("raw_latent", keys=["latent"]).of_latents(x)
    assert torch.equal(whole["latent"], x.flatten(2).transpose(1, 2))


def public_state(model: LatentMAE, jax_names: bool) -> dict[str, torch.Tensor]:
    """The model's weights with the names and layouts of the public export."""
    state = {"fc.weight": torch.zeros(10, 16), "fc.bias": torch.zeros(10)}
    for name, tensor in model.state_dict().items():
        module, _, parameter = name.rpartition(".")
        if jax_names and parameter == "weight":
            parameter = "kernel" if tensor.ndim == 4 else "scale"
            tensor = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        state[f"module.{module}.{parameter}"] = tensor.contiguous()
    return state


@pytest.mark.parametrize("jax_names", [True, False])
def test_a_public_checkpoint_is_converted_into_a_folder(tmp_path: Path, jax_names: bool) -> None:
    model = small()
    checkpoint = tmp_path / "public.pth"
    torch.save(
        {"state_dict": public_state(model, jax_names), "metadata": {"model_config": {"layers": [2, 3, 2]}}}, checkpoint
    )
    read = read_public_checkpoint(checkpoint)
    assert (read.config.widths, read.config.blocks, read.config.in_channels) == (SMALL.widths, SMALL.blocks, 4)
    same = model.config.model_copy(update={"norm_eps": 1e-5})  # that of the authors' trainer
    assert read.config.norm_eps == 1e-5
    assert read.config.scaling_factor == 0.18215
    expected = LatentMAE(same)
    expected.load_state_dict(model.state_dict())
    assert torch.equal(read.features(latents())["layer3_mean"], expected.features(latents())["layer3_mean"])
    command = [
        sys.executable,
        "-m",
        "drpo.method.features.public_latent_mae",
        str(checkpoint),
        str(tmp_path / "folder"),
    ]
    subprocess.run(command, check=True, timeout=120)
    assert torch.equal(LatentMAE.load(tmp_path / "folder").encoder.conv1.weight, model.encoder.conv1.weight)


def test_an_encoder_alone_is_enough_for_features(tmp_path: Path) -> None:
    state = {name: value for name, value in public_state(small(), False).items() if ".decoder." not in name}
    torch.save(state, tmp_path / "encoder.pth")
    model = read_public_checkpoint(tmp_path / "encoder.pth")
    assert torch.equal(model.encoder.layer3_norm.weight, small().encoder.layer3_norm.weight)
    assert torch.isfinite(model.features(latents())["layer3_mean"]).all()
    with pytest.raises(ConfigError, match="no decoder"):
        model.masked_loss(latents())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(CatalogueError, match="choose from dinov2"):
        load_feature_map("dino3")
    with pytest.raises(ShapeError, match=r"\(N, 4, h, w\)"):
        model.features(torch.randn(2, 3, 8, 8))
    for key in ("layer9", "layer1_max", "layer1_mean_x", "norm_y"):
        with pytest.raises(ConfigError, match=key):
            model.features(latents(), (key,))
    with pytest.raises(ValidationError, match="3 widths, 2 block counts"):
        LatentMAEConfig(widths=(8, 8, 8), blocks=(1, 1))
    with pytest.raises(ModelLoadError, match="drpo shapes pretrain"):
        LatentMAE.load(tmp_path)
    model.save(tmp_path)
    (tmp_path / "config.json").write_text(LatentMAEConfig(widths=(8, 16), blocks=(1, 1)).model_dump_json())
    with pytest.raises(ModelLoadError):
        LatentMAE.load(tmp_path)
    torch.save({"something": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ModelLoadError, match="public layout"):
        read_public_checkpoint(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(ModelLoadError, match="cannot read"):
        read_public_checkpoint(tmp_path / "text.pth")
