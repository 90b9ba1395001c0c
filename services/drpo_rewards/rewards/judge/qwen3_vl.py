"""The judge in this process: a Qwen3-VL of transformers, whose answer is decoded under a grammar of three verdicts.

The answer is begun for the model, `{"winner":"`, and only A, B or tie may follow. Each of the three begins with another
token, so a constrained decoder would choose at that one place and have no choice afterwards: the softmax over the three
tokens' logits is the verdict and its confidence. That takes one forward pass and no loop, cannot fail to parse, and is
the same every time. What it leaves out is the reason in words; the endpoint has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.base import PairItem
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.parts import BPE, CONFIG, TOKENIZER_SETTINGS, WEIGHTS, Part
from drpo_rewards.rewards.files.weights import label, load_pretrained, pick_device, pick_dtype, public_name
from drpo_rewards.rewards.judge.question import LABELS, WINNERS, Opinion, question
from drpo_rewards.rewards.shared.prompts import neutralize
from drpo_rewards.rewards.shared.qwen_vl import IMAGE, encode_images, encode_texts, qwen_tokenizer

PICTURES = (("preprocessor_config.json",),)
MODEL = Part(
    "model", "Qwen/Qwen3-VL-8B-Instruct", (CONFIG, WEIGHTS, BPE, PICTURES), "Apache-2.0", 17.5, TOKENIZER_SETTINGS
)
BEGUN = '{"winner":"'  # the answer's beginning, up to the verdict


class Qwen3VLBackend:
    """`model` is a folder or hub repository in the layout of `Qwen/Qwen3-VL-8B-Instruct`: a dense one, 2B to 32B.

    A picture of more than `max_pixels` is scaled down to that (1024 pixels are a token). In bfloat16 the 8B takes about
    18 GB of GPU memory, the 2B about 5 (estimated).
    """

    license: str | None = MODEL.license

    def __init__(
        self,
        model: str = MODEL.repo,
        device: str = "auto",
        dtype: str = "auto",
        max_pixels: int = 1024 * 1024,
    ) -> None:
        self.device = pick_device(device)
        precision = pick_dtype(dtype, self.device, on_gpu="bfloat16")
        folder = find(MODEL, model)
        self.tokenizer = qwen_tokenizer(folder)
        self.verdict_ids = verdict_ids(self.tokenizer, model)
        self.processor = _processor(folder, max_pixels)
        network = load_pretrained(Qwen3VLForConditionalGeneration, folder, precision)
        self.network: Any = network.to(self.device)  # type: ignore[arg-type]
        self.checkpoint: str | None = public_name(model)
        self.version = label("transformers", model, precision)

    @torch.inference_mode()
    def ask(self, pairs: list[PairItem]) -> list[Opinion]:
        chances_N3 = self.logits(pairs).softmax(dim=-1)
        best_N = chances_N3.argmax(dim=-1)  # the first of equals; the other order is asked as well
        winners = list(WINNERS.values())
        return [
            Opinion(winners[best], float(chances_3[best])) for best, chances_3 in zip(best_N, chances_N3, strict=True)
        ]

    def logits(self, pairs: list[PairItem]) -> Tensor:
        """(N, 3) float32 on the CPU: of A, B and tie, where the verdict stands.

        An image that comes more than once, as each does where both orders are asked, is looked at once.
        """
        shown = [image for pair in pairs for image in (pair.first, pair.second)]
        different = {id(image): image for image in shown}
        places = {key: place for place, key in enumerate(different)}
        order = [places[id(image)] for image in shown]
        images = encode_images(self.processor, list(different.values()))
        grids = images["image_grid_thw"][order]
        texts = encode_texts(
            self.tokenizer,
            [self.conversation(pair.prompt) for pair in pairs],
            grids,
            self.processor.merge_size,
            padding_side="left",  # so that every row ends where the verdict follows
        )
        seen = self.network.model.get_image_features(**self._on_device(images), return_dict=True)
        seen.pooler_output = [seen.pooler_output[place] for place in order]
        seen.deepstack_features = [[layer[place] for place in order] for layer in seen.deepstack_features]
        logits_N1V = self.network(
            **self._on_device({**texts, "image_grid_thw": grids}),
            mm_encoder_outputs={"image": seen},
            use_cache=False,
            logits_to_keep=1,
        ).logits
        return logits_N1V[:, 0, self.verdict_ids].float().cpu()

    def _on_device(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def conversation(self, prompt: str) -> str:
        """Qwen3-VL's chat (it has no system prompt): the pictures under their names, the question, the answer begun."""
        before, between, after = LABELS
        asked = question(neutralize(prompt, self.tokenizer))
        user = f"<|im_start|>user\n{before}{IMAGE}{between}{IMAGE}{after}{asked}<|im_end|>\n"
        return f"{user}<|im_start|>assistant\n{BEGUN}"


def verdict_ids(tokenizer: Any, model: str) -> list[int]:
    """The first token of each verdict after the answer's beginning; raises WeightsError unless they differ."""
    begun: list[int] = tokenizer(BEGUN)["input_ids"]
    ids = []
    for name in WINNERS:
        whole: list[int] = tokenizer(f'{BEGUN}{name}"')["input_ids"]
        if whole[: len(begun)] != begun:
            raise WeightsError(f"the tokenizer of {model} joins {BEGUN!r} with the verdict, so it is not Qwen3-VL's")
        ids.append(whole[len(begun)])
    if len(set(ids)) < len(ids):
        raise WeightsError(f"the tokenizer of {model} begins two verdicts alike, so it is not Qwen3-VL's")
    return ids


def _processor(folder: Path, max_pixels: int) -> Qwen2VLImageProcessorPil:
    try:
        processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"cannot read {folder / 'preprocessor_config.json'}: {error}") from error
    size: Any = processor.size
    least, most = int(size["shortest_edge"]), int(size["longest_edge"])  # they are numbers of pixels, despite the names
    processor.size = {"shortest_edge": min(least, max_pixels), "longest_edge": min(most, max_pixels)}
    return processor
