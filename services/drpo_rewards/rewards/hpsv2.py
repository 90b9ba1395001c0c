"""HPSv2 and v2.1: what people preferred in the Human Preference Dataset v2 (Wu et al., 2023). A CLIP ViT-H/14.

The public files have open_clip's layout and are complete, so no other weights are read. Their keys are renamed to those
of transformers' CLIP.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from drpo_rewards.errors import ConfigError, WeightsError
from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.model_files import BPE, TOKENIZER_SETTINGS, ModelFiles
from drpo_rewards.rewards.files.weights import (
    build_pretrained,
    pick_device,
    pick_dtype,
    public_name,
    read_tensors,
    version_label,
)
from drpo_rewards.rewards.shared.clip_model import ClipEmbedder, PreparedClip, clip_tokenizer
from drpo_rewards.rewards.shared.preprocess import normalize, pad_pixels, pad_square, pinned

FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}
MODELS = {
    version: ModelFiles("model", "xswu/HPSv2", (((file,),),), "Apache-2.0", 1.97) for version, file in FILES.items()
}
TOKENIZER = ModelFiles("tokenizer", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", (BPE,), "MIT", 0.004, TOKENIZER_SETTINGS)

_VISION_HEAD, _TEXT_HEAD = 80, 64  # widths of an attention head, which the file does not state

_TOP = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
}
_NORMS = {
    "ln_final.": "text_model.final_layer_norm.",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
}
_BLOCKS = {
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
}
_MODULES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class HPSv2(StagedReward):
    """Human preference among pictures of one prompt, learned from HPD v2; scores the whole picture, uncropped.

    The cosine of prompt and picture, -1 to 1, about 0.2 to 0.35. Published tables multiply it by 100.

    Args:
        model: a folder or hub id that has the file of this `version`.
        version: "2.0" or "2.1".
        tokenizer: a folder or hub id that has CLIP's vocabulary; by default `model` if it has one, otherwise LAION's.
        device, dtype: see `files/weights.py`.
        headers_only: see `files/weights.py`.
    """

    metadata_schema: ClassVar = READS_NONE
    license = MODELS["2.1"].license
    range = (-1.0, 1.0)

    def __init__(
        self,
        model: str = MODELS["2.1"].repo,
        version: str | float = "2.1",
        tokenizer: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        *,
        headers_only: bool = False,
    ) -> None:
        version = str(version)  # YAML reads 2.1 as a number
        if version not in FILES:
            raise ConfigError(f"hpsv2: version is {version!r}; write 2.0 or 2.1")
        torch_device = pick_device(device, headers_only)
        torch_dtype = pick_dtype(dtype, torch_device, on_gpu="float16")
        clip = read_open_clip(find(MODELS[version], model) / FILES[version], torch_dtype, headers_only)
        tokenizer_folder = find(TOKENIZER, TOKENIZER.source({"model": model, "tokenizer": tokenizer}))
        self.clip = ClipEmbedder(clip, clip_tokenizer(tokenizer_folder), "floor", torch_device)
        self.checkpoint = public_name(model)
        self.version = version_label(f"hpsv{version}-1", model, torch_dtype)

    @staticmethod
    def files(version: str | float = "2.1", **options: Any) -> tuple[ModelFiles, ...]:
        return (MODELS[str(version)], TOKENIZER) if str(version) in MODELS else ()

    def prepare(self, items: Sequence[ScoreItem]) -> PreparedClip:
        pixels_N3SS = normalize(torch.stack([pad_square(item.image, self.clip.side) for item in items]))
        tokens = self._tokenize([item.prompt for item in items])
        return PreparedClip(pinned(pixels_N3SS, self.clip.model.device), *tokens)

    @torch.inference_mode()
    def score_prepared(self, prepared: PreparedClip) -> list[Score]:
        cosines_N = self.clip.cosines(self.clip.embed_pixels(prepared.pixels), prepared.ids_PT, prepared.rows_N)
        return [Score(value) for value in cosines_N.clamp(-1, 1).tolist()]

    def score_differentiably(self, images_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        pixels_N3HW = images_N3HW.to(self.clip.model.device).float()
        images_ND = self.clip.embed_pixels(normalize(pad_pixels(pixels_N3HW, self.clip.side)))
        return self.clip.cosines(images_ND, *self._tokenize(prompts)).clamp(-1, 1)

    def _tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        # open_clip unescapes HTML in prompts, twice
        return self.clip.tokenize([html.unescape(html.unescape(prompt)) for prompt in prompts])


def read_open_clip(path: Path, dtype: torch.dtype, headers_only: bool = False) -> CLIPModel:
    """Read the CLIP in a training checkpoint of open_clip; its tensors give its sizes. Raises WeightsError."""
    tensors = read_tensors(path, inside="state_dict", headers_only=headers_only)
    try:
        config = _config(tensors)
        converted = dict(_convert(tensors))
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{path} does not hold an open_clip model: {type(error).__name__} {error}") from error
    return build_pretrained(CLIPModel, config, converted, path, dtype, headers_only)


def _config(tensors: Mapping[str, Tensor]) -> CLIPConfig:
    vocabulary, text_width = tensors["token_embedding.weight"].shape
    width, _, patch, _ = tensors["visual.conv1.weight"].shape
    patches = tensors["visual.positional_embedding"].shape[0] - 1
    text = {
        "vocab_size": vocabulary,
        "max_position_embeddings": tensors["positional_embedding"].shape[0],
        "eos_token_id": vocabulary - 1,
        **_tower(tensors, "transformer.resblocks.", text_width, _TEXT_HEAD),
    }
    vision = {
        "image_size": math.isqrt(patches) * patch,
        "patch_size": patch,
        **_tower(tensors, "visual.transformer.resblocks.", width, _VISION_HEAD),
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=tensors["visual.proj"].shape[1])


def _tower(tensors: Mapping[str, Tensor], blocks: str, width: int, head: int) -> dict[str, int | str]:
    layers = {name.removeprefix(blocks).split(".")[0] for name in tensors if name.startswith(blocks)}
    return {
        "hidden_size": width,
        "intermediate_size": tensors[f"{blocks}0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // head,
        "hidden_act": "gelu",
    }


def _convert(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors under transformers' names. An unknown key keeps its name, and strict loading refuses it."""
    for name, tensor in tensors.items():
        block = next((prefix for prefix in _BLOCKS if name.startswith(prefix)), None)
        norm = next((prefix for prefix in _NORMS if name.startswith(prefix)), None)
        if name == "visual.proj":
            yield "visual_projection.weight", tensor.T
        elif name == "text_projection":
            yield "text_projection.weight", tensor.T
        elif norm is not None:
            yield _NORMS[norm] + name.removeprefix(norm), tensor
        elif block is not None:
            layer, _, rest = name.removeprefix(block).partition(".")
            yield from _convert_block(f"{_BLOCKS[block]}{layer}", rest, tensor)
        else:
            yield _TOP.get(name, name), tensor


def _convert_block(layer: str, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name.startswith("attn.in_proj_"):  # queries, keys and values in one tensor
        kind = name.removeprefix("attn.in_proj_")
        for letter, chunk in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{layer}.self_attn.{letter}_proj.{kind}", chunk
    else:
        module, _, kind = name.rpartition(".")
        yield f"{layer}.{_MODULES.get(module, module)}.{kind}", tensor
