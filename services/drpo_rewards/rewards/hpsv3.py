"""HPSv3: what people preferred, from a wide range of qualities (Ma et al., 2025). A Qwen2-VL 7B with a small head.

`HPSv3.safetensors` holds the whole network under the names of transformers 4.45; configuration and tokenizer are
those of `Qwen/Qwen2-VL-7B-Instruct`. The instruction beside this file is the authors' own, from their MIT package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AddedToken, Qwen2VLConfig, Qwen2VLImageProcessorPil, Qwen2VLModel

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.base import Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.parts import BPE, CONFIG, TOKENIZER_SETTINGS, Part
from drpo_rewards.rewards.files.weights import (
    build_pretrained,
    label,
    load_strictly,
    pick_device,
    pick_dtype,
    public_name,
    read_tensors,
)
from drpo_rewards.rewards.shared.preprocess import pinned
from drpo_rewards.rewards.shared.prompts import neutralize
from drpo_rewards.rewards.shared.qwen_vl import IMAGE, encode_images, encode_texts, qwen_tokenizer

FILE = "HPSv3.safetensors"
MODEL = Part("model", "MizzenAI/HPSv3", (((FILE,),),), "MIT", 16.6)
BASE = Part("base", "Qwen/Qwen2-VL-7B-Instruct", (CONFIG, BPE), "Apache-2.0", 0.012, TOKENIZER_SETTINGS)
PIXELS = 256 * 28 * 28  # every picture is scaled to about so many: 256 tokens
REWARD = "<|Reward|>"

_INSTRUCTION = (Path(__file__).parent / "hpsv3_instruction.txt").read_text()
_QUESTION = f"\nPlease provide the overall ratings of this image: {REWARD}\n\nEND\n"
_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_UNUSED = "lm_head."  # it writes words, and none are asked for


class HPSv3(StagedReward):
    """Human preference among pictures of one prompt, learned by a vision-language model from HPDv3.

    About -10 to 15; the mean of a normal distribution whose log sigma stands in the details. `model` is a folder or hub
    repository with `HPSv3.safetensors`; `base` one with Qwen2-VL's configuration and tokenizer, by default the same
    folder where it has them. Needs 20 to 24 GB of GPU memory in bfloat16.
    """

    license = f"{MODEL.license}; {BASE.license} (Qwen2-VL)"

    def __init__(
        self,
        model: str = MODEL.repo,
        base: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.device = pick_device(device)
        precision = pick_dtype(dtype, self.device, on_gpu="bfloat16")
        path = find(MODEL, model) / FILE
        base = BASE.place({"model": model, "base": base})
        base_folder = find(BASE, base)
        self.tokenizer = qwen_tokenizer(base_folder)
        self.tokenizer.add_tokens([AddedToken(REWARD, special=True, normalized=False)], special_tokens=True)
        self.reward_id: int = self.tokenizer.convert_tokens_to_ids(REWARD)
        self.processor = Qwen2VLImageProcessorPil(size={"shortest_edge": PIXELS, "longest_edge": PIXELS})
        config = Qwen2VLConfig.from_pretrained(base_folder)
        network, head = read_network(path, config, precision)
        words: Any = network.get_input_embeddings()
        rows: int = words.num_embeddings
        if self.reward_id != rows - 1:
            raise WeightsError(
                f"{FILE} of {model} has {rows} tokens, but with {base}'s tokenizer {REWARD} is number {self.reward_id}"
            )
        self.network: nn.Module = network
        self.head = head
        for module in (self.network, self.head):
            module.to(self.device)
        self.checkpoint = public_name(model)
        self.version = label("hpsv3-1", model, precision)

    @staticmethod
    def parts(**options: Any) -> tuple[Part, ...]:
        return (MODEL, BASE)

    def prepare(self, items: Sequence[ScoreItem]) -> dict[str, Tensor]:
        """The network's inputs."""
        images = encode_images(self.processor, [item.image for item in items])
        texts = encode_texts(
            self.tokenizer,
            [self.conversation(item.prompt) for item in items],
            images["image_grid_thw"],
            self.processor.merge_size,
            padding_side="right",
        )
        return {name: pinned(tensor, self.device) for name, tensor in {**images, **texts}.items()}

    @torch.inference_mode()
    def score_prepared(self, prepared: dict[str, Tensor]) -> list[Score]:
        inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in prepared.items()}
        at_reward_N = (
            (prepared["input_ids"] == self.reward_id).int().argmax(dim=1)
        )  # once a row: prompts bring no other
        count, length = inputs["input_ids"].shape
        # The authors trained and score with plain positions. Left to itself, the model takes three-dimensional ones.
        positions_3NT = torch.arange(length, device=self.device).expand(3, count, length)
        hidden_NTD = self.network(**inputs, position_ids=positions_3NT, use_cache=False).last_hidden_state
        rows_N = torch.arange(count, device=self.device)
        outputs_N2 = self.head(hidden_NTD[rows_N, at_reward_N.to(self.device)].float())
        return [Score(mean, {"log_sigma": log_sigma}) for mean, log_sigma in outputs_N2.tolist()]

    def conversation(self, prompt: str) -> str:
        """What the model reads: Qwen's chat with its default system prompt, one picture, and the question about it."""
        instruction = _INSTRUCTION.replace("{text_prompt}", neutralize(prompt, self.tokenizer))
        user = f"<|im_start|>user\n{IMAGE}{instruction}{_QUESTION}<|im_end|>\n"
        return f"{_SYSTEM}{user}<|im_start|>assistant\n"


def read_network(path: Path, config: Qwen2VLConfig, dtype: torch.dtype) -> tuple[Qwen2VLModel, nn.Module]:
    """The vision-language model, and in float32 the head, of the public file. Raises WeightsError."""
    tensors = read_tensors(path)
    network_tensors = {_renamed(name): tensor for name, tensor in tensors.items() if not _is_beside(name)}
    words = tensors.get("model.embed_tokens.weight")
    if words is None:
        raise WeightsError(f"{path} has no model.embed_tokens.weight, so it is not HPSv3's")
    text_config: Any = config.text_config
    text_config.vocab_size = words.shape[0]  # the file's is smaller than the configuration's: it was cut
    network = build_pretrained(Qwen2VLModel, config, network_tensors, path, dtype)
    return network, _read_head(tensors, words.shape[1], path)


def _is_beside(name: str) -> bool:
    return name.startswith((_UNUSED, "rm_head."))


def _renamed(name: str) -> str:
    return "language_" + name if name.startswith("model.") else name


def _read_head(tensors: Mapping[str, Tensor], width: int, path: Path) -> nn.Module:
    head = nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )
    prefix = "rm_head."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    load_strictly(head, own, path)
    return head.eval()
