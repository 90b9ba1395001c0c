"""The latent-MAE's features against a plain computation, its selections, its files, and the latents that it fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support import plain, plain_vision

from drpo.errors import ConfigError, ModelLoadError
from drpo.generators.base import Layout
from drpo.method.features import check_feature_map, load_feature_map
from drpo.method.features.latent_mae import LatentMAESettings, select_keys
from drpo.method.features.latent_mae_model import LatentMAE
from drpo.method.features.latent_mae_network import LatentMAEConfig
from drpo.shapes.assets import feature_map_path, generator_path

SMALL = LatentMAEConfig(widths=(8, 12, 16), blocks=(2, 3, 2), norm_groups=4, norm_eps=1e-5, decoder=False)
SD = Layout((4, 8, 8), 0.18215, {})
SDXL = Layout((4, 64, 64), 0.13025, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = LatentMAE(SMALL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    model.save(tmp_path / "folder")
    return tmp_path / "folder"


def latents(count: int = 2, size: int = 8) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(count, 4, size, size, generator=random, dtype=torch.float64)


def test_all_features_are_the_plain_computation(folder: Path) -> None:
    weights, x = plain.read(folder / "model.safetensors"), latents()
    features = load_feature_map("latent_mae", folder, dtype=torch.float64, norm_x=True).of_latents(x)
    for index, one in enumerate(x.numpy()):
        maps = plain_vision.latent_mae_maps(weights, one, SMALL.blocks, groups=4, eps=1e-5)
        expected = {
            f"{layer}_{name}": value
            for layer, map_ in maps.items()
            for name, value in plain_vision.map_statistics(map_).items()
        }
        expected["norm_x"] = np.sqrt((one**2).mean(axis=(1, 2))[None] + 1e-6)
        assert features.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(features[key][index].numpy(), value, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("name", ["latent_mae", "raw_latent"])
def test_gradients_of_latent_features_are_finite_differences(name: str, folder: Path) -> None:
    feature_map = load_feature_map(name, folder, dtype=torch.float64)
    x = latents(1).requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def value(at: torch.Tensor) -> torch.Tensor:
        return sum((i + 1) * one.square().sum() for i, one in enumerate(feature_map.of_latents(at).values()))

    value(x).backward()
    step = 1e-6
    difference = (value(x.detach() + step * direction) - value(x.detach() - step * direction)) / (2 * step)
    torch.testing.assert_close((x.grad * direction).sum(), difference, rtol=1e-5, atol=1e-7)


def test_the_selections_of_the_public_model() -> None:
    """At 512x512 the latents are 64x64, and the last map is 8x8: 1 + 1 + 16 + 16 + 4 + 4 tokens."""

    def keys(**settings) -> tuple[str, ...]:
        return select_keys(LatentMAESettings(**settings), LatentMAEConfig(), 64, 64)

    last = tuple(f"layer4_{kind}{size}" for size in ("", "_2", "_4") for kind in ("mean", "std"))
    assert keys(selection="latent_mae_3") == last
    assert {key.split("_")[0] for key in keys(selection="latent_mae_2")} == {"layer2", "layer3", "layer4"}
    assert len(keys(selection="latent_mae_2")) == 3 * 6
    assert keys() == keys(selection="latent_mae_1")
    maps = [
        "layer1_blk2",
        "layer1",
        "layer2_blk2",
        "layer2",
        "layer3_blk2",
        "layer3_blk4",
        "layer3",
        "layer4_blk2",
        "layer4",
    ]
    assert [key.removesuffix("_mean") for key in keys() if key.endswith("_mean")] == maps
    assert len(keys()) == len(maps) * 6
    assert keys(keys=("layer1_mean",), norm_x=True) == ("norm_x", "layer1_mean")
    with pytest.raises(ValidationError, match="not both"):
        LatentMAESettings(keys=("layer1_mean",), selection="latent_mae_1")


def test_the_public_file_loads_from_the_name_under_which_it_is_distributed(folder: Path, tmp_path: Path) -> None:
    """As a file or in a folder, with torch's kernel layout and without metadata about the channels."""
    state = {**LatentMAE.load(folder).state_dict(), "fc.weight": torch.zeros(10, 16)}
    public = tmp_path / "public" / "mae_latent_256_torch.pth"
    public.parent.mkdir()
    torch.save({"state_dict": state, "metadata": {"model_config": {"layers": [2, 3, 2]}}}, public)
    x = latents().float()
    small = load_feature_map("latent_mae", folder)
    for source in (public, public.parent):
        check_feature_map("latent_mae", source, {}, SD)
        read = load_feature_map("latent_mae", source)
        assert read.model.config.in_channels == 4
        assert read.model.config.norm_groups == 32
        read.model.config = small.model.config
        assert read.of_latents(x).keys() == small.of_latents(x).keys()
    with pytest.raises(ConfigError, match=r"scales by 0\.18215, but the generator's VAE scales by 0\.13025"):
        check_feature_map("latent_mae", public, {}, SDXL)
    torch.save({"other": torch.zeros(1)}, public)
    with pytest.raises(ModelLoadError, match="public layout"):
        check_feature_map("latent_mae", public.parent, {})


def test_a_map_of_another_vae_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["scaling_factor"] is None
    check_feature_map("latent_mae", folder, {}, SDXL)
    (folder / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.18215}))
    check_feature_map("latent_mae", folder, {}, SD)
    with pytest.raises(ConfigError, match="it is another VAE"):
        check_feature_map("latent_mae", folder, {}, SDXL)
    vae = json.loads((generator_path() / "vae" / "config.json").read_text())
    embedded = json.loads((feature_map_path() / "config.json").read_text())
    assert embedded["scaling_factor"] == vae["scaling_factor"]


def test_keys_that_do_not_fit_are_named_before_a_start(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no feature 'layer4_mean'"):
        check_feature_map("latent_mae", folder, {"keys": ["layer4_mean"]})
    with pytest.raises(ConfigError, match=r"4 x 8 x 8 values.*2x2 does not divide into patches of 4x4"):
        check_feature_map("latent_mae", folder, {"keys": ["layer3_mean_4"]}, SD)
    with pytest.raises(ConfigError, match=r"16 x 8 x 8 values.*\(N, 4, h, w\)"):
        check_feature_map("latent_mae", folder, {}, Layout((16, 8, 8), 0.18215, {}))
    with pytest.raises(ConfigError, match="8x8 does not divide into patches of 3x3"):
        check_feature_map("raw_latent", None, {"keys": ["latent_mean_3"]}, SD)
    with pytest.raises(ValidationError, match="no feature 'layer1'"):
        check_feature_map("raw_latent", None, {"keys": ["layer1"]})
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelLoadError, match="cannot load"):
        check_feature_map("latent_mae", folder, {})


def test_a_hub_id_is_found_in_the_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache as the hub's library lays it out."""
    from huggingface_hub import constants

    repo = tmp_path / "cache" / "models--some--latent-mae"
    snapshot = repo / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0123")
    for file in ("config.json", "model.safetensors"):
        (snapshot / file).write_bytes((folder / file).read_bytes())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    x = latents().float()
    cached, direct = load_feature_map("latent_mae", "some/latent-mae"), load_feature_map("latent_mae", folder)
    assert torch.equal(cached.of_latents(x)["layer3_mean"], direct.of_latents(x)["layer3_mean"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match="hf download some/other"):
        load_feature_map("latent_mae", "some/other")
