"""ImageReward: what people ranked higher (Xu et al., 2023). A BLIP whose text tower attends to the picture.

The public file has the key names of timm and of BLIP. They are renamed to those of transformers' BLIP modules.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.model_files import TOKENIZER_SETTINGS, WORDPIECE, ModelFiles
from drpo_rewards.rewards.files.weights import (
    empty_modules,
    load_strictly,
    load_tokenizer,
    pick_device,
    pick_dtype,
    public_name,
    read_tensors,
    version_label,
)
from drpo_rewards.rewards.shared.linear_head import LinearHead
from drpo_rewards.rewards.shared.preprocess import (
    break_special_tokens,
    clip_pixels,
    crop_pixels,
    crop_squares,
    normalize,
    pinned,
)

FILE, CONFIG = "ImageReward.pt", "med_config.json"
MODEL = ModelFiles("model", "THUDM/ImageReward", (((FILE,),), ((CONFIG,),)), "Apache-2.0", 1.79)
TOKENIZER = ModelFiles(
    "tokenizer", "google-bert/bert-base-uncased", (WORDPIECE,), "Apache-2.0", 0.001, TOKENIZER_SETTINGS
)
MAX_TOKENS = 35
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the raw scores on the authors' validation set

_VISION_HEAD = 64  # width of an attention head, which the file does not state
_UNUSED = re.compile(r"blip\.(vision|text)_proj\.")  # for BLIP's pretraining only
_RENAMED = (
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm(\d)\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.", r"vision.encoder.layers.\1.self_attn."),
    (r"^blip\.visual_encoder\.blocks\.", "vision.encoder.layers."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.", "head."),
)


class ImageReward(StagedReward):
    """Human preference among pictures of one prompt, learned from expert rankings.

    The score is in standard deviations, about -2 to 2. Published tables multiply it by 10 or 100.

    Args:
        model: a folder or hub id that has `ImageReward.pt` and `med_config.json`.
        tokenizer: a folder or hub id that has BERT's `vocab.txt`; by default `model` if it has one, otherwise Google's.
        device, dtype: see `files/weights.py`.
        headers_only: see `files/weights.py`.
    """

    metadata_schema: ClassVar = READS_NONE
    license = MODEL.license

    def __init__(
        self,
        model: str = MODEL.repo,
        tokenizer: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        *,
        headers_only: bool = False,
    ) -> None:
        torch_device = pick_device(device, headers_only)
        torch_dtype = pick_dtype(dtype, torch_device, on_gpu="float32")
        folder = find(MODEL, model)
        tokenizer_folder = find(TOKENIZER, TOKENIZER.source({"model": model, "tokenizer": tokenizer}))
        self.tokenizer = load_tokenizer(BertTokenizer, tokenizer_folder, "vocab.txt", "tokenizer.json")
        self.network = read_network(folder / FILE, folder / CONFIG, torch_dtype, headers_only).to(torch_device)
        self.checkpoint = public_name(model)
        self.version = version_label("image_reward-1", model, torch_dtype)

    @staticmethod
    def files(**options: Any) -> tuple[ModelFiles, ...]:
        return (MODEL, TOKENIZER)

    def prepare(self, items: Sequence[ScoreItem]) -> tuple[Tensor, ...]:
        """Make pictures (N, S, S, 3) uint8, token ids (N, T), and their mask (N, T)."""
        bytes_NSS3 = crop_squares([item.image for item in items], self.network.side, "round")
        device = self.network.vision.embeddings.class_embedding.device
        tokens = self._tokenize([item.prompt for item in items])
        return tuple(pinned(tensor, device) for tensor in (bytes_NSS3, *tokens))

    @torch.inference_mode()
    def score_prepared(self, prepared: tuple[Tensor, ...]) -> list[Score]:
        weights = self.network.vision.embeddings.class_embedding
        bytes_NSS3, tokens_NT, mask_NT = (tensor.to(weights.device, non_blocking=True) for tensor in prepared)
        raw_N = self.network(clip_pixels(bytes_NSS3, weights.device, weights.dtype), tokens_NT, mask_NT)
        return [Score(value) for value in ((raw_N.double() - MEAN) / STD).tolist()]

    def score_differentiably(self, images_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        weights = self.network.vision.embeddings.class_embedding
        tokens_NT, mask_NT = (tensor.to(weights.device) for tensor in self._tokenize(prompts))
        pixels_N3SS = crop_pixels(images_N3HW.to(weights.device).float(), self.network.side, "round")
        return (self.network(normalize(pixels_N3SS).to(weights.dtype), tokens_NT, mask_NT) - MEAN) / STD

    def _tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Make token ids (N, T) and their mask (N, T)."""
        tokens = self.tokenizer(
            [break_special_tokens(prompt, self.tokenizer) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        return tokens["input_ids"], tokens["attention_mask"]


class Network(nn.Module):
    """A picture tower, a text tower that attends to the picture's tokens, and a head on the first text token."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        super().__init__()
        self.side: Any = vision.image_size
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.head = LinearHead(text.hidden_size)

    def forward(self, pixels_N3SS: Tensor, tokens_NT: Tensor, mask_NT: Tensor) -> Tensor:
        """Compute (N,) float32 raw scores."""
        picture_NPD = self.vision(pixels_N3SS).last_hidden_state
        text_NTD = self.text(
            input_ids=tokens_NT,
            attention_mask=mask_NT,
            encoder_hidden_states=picture_NPD,
            is_decoder=False,  # only a decoder is built with cross-attention; this makes it read in both directions
        ).last_hidden_state
        return self.head(text_NTD[:, 0].float())


def read_network(path: Path, config_path: Path, dtype: torch.dtype, headers_only: bool = False) -> Network:
    """Read the network in the two public files. Raises WeightsError."""
    tensors = dict(_rename(read_tensors(path, headers_only=headers_only)))
    try:
        file = json.loads(config_path.read_text("utf-8"))
        with empty_modules(headers_only):
            network = Network(_vision_config(tensors), _text_config(tensors, file))
    except (OSError, KeyError, ValueError, IndexError) as error:
        reason = f"{type(error).__name__} {error}"
        raise WeightsError(f"{path} and {config_path.name} are not ImageReward's: {reason}") from error
    network.to(dtype).head.float()
    load_strictly(network, tensors, path, headers_only)
    return network.eval().requires_grad_(False)


def _rename(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        if _UNUSED.match(name):
            continue
        for pattern, replacement in _RENAMED:
            if re.match(pattern, name):
                yield re.sub(pattern, replacement, name), tensor
                break
        else:
            yield name, tensor


def _vision_config(tensors: Mapping[str, Tensor]) -> BlipVisionConfig:
    width, _, patch, _ = tensors["vision.embeddings.patch_embedding.weight"].shape
    patches = tensors["vision.embeddings.position_embedding"].shape[1] - 1
    layers = {name.split(".")[3] for name in tensors if name.startswith("vision.encoder.layers.")}
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=tensors["vision.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=width // _VISION_HEAD,
        image_size=math.isqrt(patches) * patch,
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=1e-6,  # timm's
    )


def _text_config(tensors: Mapping[str, Tensor], file: Mapping[str, Any]) -> BlipTextConfig:
    vocabulary, width = tensors["text.embeddings.word_embeddings.weight"].shape  # BERT's and two more tokens
    return BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=tensors["vision.embeddings.patch_embedding.weight"].shape[0],  # not the file's
        intermediate_size=file["intermediate_size"],
        num_hidden_layers=file["num_hidden_layers"],
        num_attention_heads=file["num_attention_heads"],
        max_position_embeddings=file["max_position_embeddings"],
        hidden_act=file["hidden_act"],
        layer_norm_eps=file["layer_norm_eps"],
        is_decoder=True,
    )
