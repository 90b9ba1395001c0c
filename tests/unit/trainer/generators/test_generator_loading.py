"""A generator's folder as people have it: half precision only, shards, missing and damaged files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from support.local_hub import LocalHub, run_hub
from support.tiny.sd_turbo import write_tiny_pipeline
from torch import Tensor

from drpo.config import parse_config
from drpo.errors import ModelLoadError
from drpo.generators.loading import find_variant
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.training.build import build_generator

PROMPT = "a photo of two red circle"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("generators") / "plain")


@pytest.fixture(scope="module")
def half(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generators") / "half"
    StableDiffusionPipeline.from_pretrained(plain, dtype=torch.float16).save_pretrained(folder, variant="fp16")
    assert (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(plain, tmp_path / "copy"))


@torch.no_grad()
def latents_of(generator: SDTurboGenerator) -> Tensor:
    noise_NChw = generator.noise(2, torch.Generator().manual_seed(0))
    return generator.sample(noise_NChw, generator.encode_prompts([PROMPT]))


def test_a_folder_with_half_precision_files_only_is_loaded(plain: Path, half: Path) -> None:
    expected, found = latents_of(SDTurboGenerator.load(plain)), SDTurboGenerator.load(half)
    assert found.dtype == torch.float32
    torch.testing.assert_close(latents_of(found), expected, rtol=0.01, atol=0.05)
    assert not torch.equal(latents_of(found), expected)
    from_setting = build_generator(parse_config({"model": {"generator": str(half), "variant": "fp16"}}), adapter=False)
    assert torch.equal(latents_of(from_setting), latents_of(found))
    with pytest.raises(ModelLoadError, match="unet/ has no weights of the variant bf16"):
        SDTurboGenerator.load(half, variant="bf16")


def test_the_plain_files_are_taken_if_there_are_both(plain: Path, half: Path, folder: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        for file in (half / part).glob("*.safetensors"):
            shutil.copy(file, folder / part)
    assert torch.equal(latents_of(SDTurboGenerator.load(folder)), latents_of(SDTurboGenerator.load(plain)))
    assert torch.equal(
        latents_of(SDTurboGenerator.load(folder, variant="fp16")), latents_of(SDTurboGenerator.load(half))
    )
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()  # now one part has only half precision
    assert not torch.equal(latents_of(SDTurboGenerator.load(folder)), latents_of(SDTurboGenerator.load(plain)))


@pytest.mark.parametrize(
    ("files", "variant"),
    [
        ({"unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors"}, "fp16"),
        ({"unet/diffusion_pytorch_model.bf16.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"}, "fp16"),
        ({"unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"}, None),
        ({"unet/diffusion_pytorch_model.non_ema.bin", "vae/diffusion_pytorch_model.bin"}, "non_ema"),
        ({"vae/model.fp16-00001-of-00002.safetensors", "vae/model.safetensors.index.fp16.json"}, "fp16"),
        ({"text_encoder/model-00001-of-00002.safetensors", "text_encoder/model.safetensors.index.json"}, None),
        ({"model_index.json", "unet/config.json", "sd_turbo.safetensors"}, None),
        (set(), None),
    ],
)  # fmt: skip
def test_the_variant_follows_from_the_names_of_the_files(files: set[str], variant: str | None) -> None:
    assert find_variant(files) == variant


def test_sharded_weights_are_loaded_and_a_missing_shard_is_named(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    StableDiffusionPipeline.from_pretrained(plain).save_pretrained(folder, max_shard_size="100KB")
    assert torch.equal(latents_of(SDTurboGenerator.load(folder)), latents_of(SDTurboGenerator.load(plain)))
    first = min((folder / "unet").glob("*.safetensors"))
    first.unlink()
    with pytest.raises(ModelLoadError, match=f"unet/{first.name} is missing, although .*index.json names it"):
        SDTurboGenerator.load(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    with pytest.raises(ModelLoadError, match="unet/ has shards of weights, but their index"):
        SDTurboGenerator.load(folder)


def test_everything_that_is_missing_or_damaged_is_named_at_once(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    (folder / "vae" / "config.json").unlink()
    (folder / "text_encoder" / "model.safetensors").unlink()
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError) as caught:
        SDTurboGenerator.load(folder)
    for words in (
        "tokenizer/ is missing or empty, although model_index.json names it",
        "scheduler/ is missing or empty",
        "vae/config.json is missing",
        "text_encoder/ has no weights",
        "unet/diffusion_pytorch_model.safetensors is cut or damaged",
    ):
        assert words in str(caught.value)


def test_a_file_that_was_not_fetched_from_git_lfs_is_named(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelLoadError, match=r"vae/diffusion_pytorch_model\.safetensors is cut or damaged"):
        SDTurboGenerator.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_index_or_config_is_a_model_error(folder: Path, text: str) -> None:
    (folder / "unet" / "config.json").write_text(text)
    with pytest.raises(ModelLoadError, match="cannot load a generator"):
        SDTurboGenerator.load(folder)
    (folder / "model_index.json").write_text(text)
    with pytest.raises(ModelLoadError, match="cannot load a generator"):
        SDTurboGenerator.load(folder)


def test_a_tokenizer_without_a_vocabulary_is_named(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(ModelLoadError, match=r"tokenizer/ has neither tokenizer\.json nor vocab\.json and merges\.txt"):
        SDTurboGenerator.load(folder)


def test_the_text_encoder_limits_prompts_if_the_tokenizer_does_not(plain: Path, folder: Path) -> None:
    settings = folder / "tokenizer" / "tokenizer_config.json"
    without = {name: value for name, value in json.loads(settings.read_text()).items() if name != "model_max_length"}
    settings.write_text(json.dumps(without))
    found = SDTurboGenerator.load(folder)
    assert found.tokenizer.model_max_length == found.text_encoder.config.max_position_embeddings == 32
    assert torch.equal(latents_of(found), latents_of(SDTurboGenerator.load(plain)))
    settings.write_text(json.dumps({**without, "model_max_length": 77}))
    with pytest.raises(ModelLoadError, match="model_max_length 77, but the text encoder takes 32"):
        SDTurboGenerator.load(folder)


@pytest.mark.thorough
def test_half_precision_files_of_a_hub_are_found_online_and_then_offline(half: Path, tmp_path: Path) -> None:
    program = (
        "from drpo.generators import load_generator\n"
        "print(load_generator('someone/turbo-half').unet.config.block_out_channels)"
    )
    with run_hub(LocalHub({"someone/turbo-half": half})) as hub:
        online = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        for environment in ({**online, "HF_HUB_OFFLINE": "0"}, {**online, "HF_HUB_OFFLINE": "1"}):
            before = len(hub.requests)
            done = subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, **environment}, capture_output=True, text=True, timeout=200,
            )  # fmt: skip
            assert done.stdout.strip() == "[16, 32]", done.stderr
            assert (len(hub.requests) > before) == (environment["HF_HUB_OFFLINE"] == "0")
