"""HPSv3: what people preferred, over a wide range of qualities (Ma et al., 2025). A Qwen2-VL 7B with a small head.

`HPSv3.safetensors` has the whole network under the key names of transformers 4.45. Configuration and tokenizer are
those of `Qwen/Qwen2-VL-7B-Instruct`. `hpsv3_instruction.txt` is the authors' own text, from their MIT package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AddedToken, Qwen2VLConfig, Qwen2VLImageProcessorPil, Qwen2VLModel

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.base import READS_NONE, Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.model_files import BPE, CONFIG, TOKENIZER_SETTINGS, ModelFiles
from drpo_rewards.rewards.files.weights import (
    build_pretrained,
    load_strictly,
    pick_device,
    pick_dtype,
    public_name,
    read_tensors,
    version_label,
)
from drpo_rewards.rewards.shared.preprocess import break_special_tokens, pinned
from drpo_rewards.rewards.shared.qwen_vl import IMAGE, encode_images, encode_pixels, encode_texts, qwen_tokenizer

FILE = "HPSv3.safetensors"
MODEL = ModelFiles("model", "MizzenAI/HPSv3", (((FILE,),),), "MIT", 16.6)
BASE = ModelFiles("base", "Qwen/Qwen2-VL-7B-Instruct", (CONFIG, BPE), "Apache-2.0", 0.012, TOKENIZER_SETTINGS)
PIXELS = 256 * 28 * 28  # every picture is scaled to about this many pixels: 256 tokens
REWARD = "<|Reward|>"

_INSTRUCTION = (Path(__file__).parent / "hpsv3_instruction.txt").read_text("utf-8")
_QUESTION = f"\nPlease provide the overall ratings of this image: {REWARD}\n\nEND\n"
_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_HEAD = "rm_head."
_UNUSED = "lm_head."  # predicts text, which this reward does not need


class HPSv3(StagedReward):
    """Human preference among pictures of one prompt, learned by a vision-language model from HPDv3.

    The score, about -10 to 15, is the mean of a normal distribution, whose log sigma is in the details. In bfloat16 the
    model needs 20 to 24 GB of GPU memory.

    Args:
        model: a folder or hub id that has `HPSv3.safetensors`.
        base: a folder or hub id that has Qwen2-VL's configuration and tokenizer; by default `model` if it has any of
            their files, otherwise Qwen's.
        device, dtype: see `files/weights.py`.
        headers_only: see `files/weights.py`.
    """

    metadata_schema: ClassVar = READS_NONE
    license = f"{MODEL.license}; {BASE.license} (Qwen2-VL)"

    def __init__(
        self,
        model: str = MODEL.repo,
        base: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        *,
        headers_only: bool = False,
    ) -> None:
        self.device = pick_device(device, headers_only)
        torch_dtype = pick_dtype(dtype, self.device, on_gpu="bfloat16")
        path = find(MODEL, model) / FILE
        base = BASE.source({"model": model, "base": base})
        base_folder = find(BASE, base)
        self.tokenizer = qwen_tokenizer(base_folder)
        self.tokenizer.add_tokens([AddedToken(REWARD, special=True, normalized=False)], special_tokens=True)
        self.reward_id: int = self.tokenizer.convert_tokens_to_ids(REWARD)
        self.processor = Qwen2VLImageProcessorPil(size={"shortest_edge": PIXELS, "longest_edge": PIXELS})
        config = Qwen2VLConfig.from_pretrained(base_folder)
        network, head = read_network(path, config, torch_dtype, headers_only)
        embeddings: Any = network.get_input_embeddings()
        tokens: int = embeddings.num_embeddings
        if self.reward_id != tokens - 1:
            raise WeightsError(
                f"{FILE} of {model} has {tokens} tokens, but in the tokenizer of {base} the last one, {REWARD}, has "
                f"the id {self.reward_id}"
            )
        self.network: nn.Module = network
        self.head = head
        for module in (self.network, self.head):
            module.requires_grad_(False).to(self.device)
        self.checkpoint = public_name(model)
        self.version = version_label("hpsv3-1", model, torch_dtype)

    @staticmethod
    def files(**options: Any) -> tuple[ModelFiles, ...]:
        return (MODEL, BASE)

    def prepare(self, items: Sequence[ScoreItem]) -> dict[str, Tensor]:
        """Make the network's inputs."""
        images = encode_images(self.processor, [item.image for item in items])
        prepared = self._add_texts(images, [item.prompt for item in items])
        return {name: pinned(tensor, self.device) for name, tensor in prepared.items()}

    def _add_texts(self, images: dict[str, Tensor], prompts: Sequence[str]) -> dict[str, Tensor]:
        texts = encode_texts(
            self.tokenizer,
            [self.conversation(prompt) for prompt in prompts],
            images["image_grid_thw"],
            self.processor.merge_size,
            padding_side="right",
        )
        return {**images, **texts}

    @torch.inference_mode()
    def score_prepared(self, prepared: dict[str, Tensor]) -> list[Score]:
        return [Score(mean, {"log_sigma": log_sigma}) for mean, log_sigma in self._predict(prepared).tolist()]

    def score_differentiably(self, images_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        images = encode_pixels(self.processor, images_N3HW.to(self.device).float())
        return self._predict(self._add_texts(images, prompts))[:, 0]

    def _predict(self, prepared: dict[str, Tensor]) -> Tensor:
        """Compute the mean and the log sigma of each picture, (N, 2) float32."""
        inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in prepared.items()}
        # The position of the REWARD token. Each row has exactly one, because prompts cannot add another.
        at_reward_N = (prepared["input_ids"] == self.reward_id).int().argmax(dim=1)
        count, length = inputs["input_ids"].shape
        # The authors train and score with plain positions. By default the model would use three-dimensional ones.
        positions_3NT = torch.arange(length, device=self.device).expand(3, count, length)
        hidden_NTD = self.network(**inputs, position_ids=positions_3NT, use_cache=False).last_hidden_state
        rows_N = torch.arange(count, device=self.device)
        return self.head(hidden_NTD[rows_N, at_reward_N.to(self.device)].float())

    def conversation(self, prompt: str) -> str:
        """Make the input text: Qwen's chat format with its default system prompt, one picture, and the question."""
        instruction = _INSTRUCTION.replace("{text_prompt}", break_special_tokens(prompt, self.tokenizer))
        user = f"<|im_start|>user\n{IMAGE}{instruction}{_QUESTION}<|im_end|>\n"
        return f"{_SYSTEM}{user}<|im_start|>assistant\n"


def read_network(
    path: Path, config: Qwen2VLConfig, dtype: torch.dtype, headers_only: bool = False
) -> tuple[Qwen2VLModel, nn.Module]:
    """Read the vision-language model in the public file, and its head in float32. Raises WeightsError."""
    tensors = read_tensors(path, headers_only=headers_only)
    network_tensors = {
        _rename(name): tensor for name, tensor in tensors.items() if not name.startswith((_UNUSED, _HEAD))
    }
    embeddings_VD = tensors.get("model.embed_tokens.weight")
    if embeddings_VD is None:
        raise WeightsError(f"{path} has no model.embed_tokens.weight, so it is not HPSv3")
    text_config: Any = config.text_config
    text_config.vocab_size = embeddings_VD.shape[0]  # smaller than the configuration's
    network = build_pretrained(Qwen2VLModel, config, network_tensors, path, dtype, headers_only)
    return network, _read_head(tensors, embeddings_VD.shape[1], path, headers_only)


def _rename(name: str) -> str:
    return "language_" + name if name.startswith("model.") else name


def _read_head(tensors: Mapping[str, Tensor], width: int, path: Path, headers_only: bool) -> nn.Module:
    head = nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )
    head_tensors = {name.removeprefix(_HEAD): tensor for name, tensor in tensors.items() if name.startswith(_HEAD)}
    load_strictly(head, head_tensors, path, headers_only)
    return head.eval()
