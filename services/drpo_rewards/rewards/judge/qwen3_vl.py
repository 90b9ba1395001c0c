"""The judge in this process: a Qwen3-VL of transformers, whose answer is one of three verdicts.

The prompt already contains the beginning of the answer, `{"winner":"`, and only A, B or tie may follow. Each of the
three begins with a different token, so one token decides, and the softmax over the three tokens' logits is the verdict
and its confidence. That takes one forward pass and no loop, always parses, and is deterministic. It gives no reason in
words, unlike the endpoint.
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
from drpo_rewards.rewards.files.model_files import BPE, CONFIG, TOKENIZER_SETTINGS, WEIGHTS, ModelFiles
from drpo_rewards.rewards.files.weights import load_pretrained, pick_device, pick_dtype, public_name, version_label
from drpo_rewards.rewards.judge.question import LABELS, WINNERS, Opinion, write_question
from drpo_rewards.rewards.shared.preprocess import break_special_tokens
from drpo_rewards.rewards.shared.qwen_vl import IMAGE, encode_images, encode_texts, qwen_tokenizer

IMAGE_PROCESSOR = (("preprocessor_config.json",),)
MODEL = ModelFiles(
    "model",
    "Qwen/Qwen3-VL-8B-Instruct",
    (CONFIG, WEIGHTS, BPE, IMAGE_PROCESSOR),
    "Apache-2.0",
    17.5,
    TOKENIZER_SETTINGS,
)
ANSWER_START = '{"winner":"'  # the answer up to the verdict


class Qwen3VLBackend:
    """A Qwen3-VL in this process.

    In bfloat16 the 8B takes about 18 GB of GPU memory, the 2B about 5 (estimated).

    Args:
        model: a folder or hub id in the layout of `Qwen/Qwen3-VL-8B-Instruct`; a dense model, 2B to 32B.
        device, dtype: see `files/weights.py`.
        max_pixels: a larger picture is scaled down to this many pixels (1024 pixels are a token).
        headers_only: see `files/weights.py`.
    """

    license: str | None = MODEL.license

    def __init__(
        self,
        model: str = MODEL.repo,
        device: str = "auto",
        dtype: str = "auto",
        max_pixels: int = 1024 * 1024,
        *,
        headers_only: bool = False,
    ) -> None:
        self.device = pick_device(device, headers_only)
        torch_dtype = pick_dtype(dtype, self.device, on_gpu="bfloat16")
        folder = find(MODEL, model)
        self.tokenizer = qwen_tokenizer(folder)
        self.verdict_ids = find_verdict_ids(self.tokenizer, model)
        self.processor = _load_processor(folder, max_pixels)
        network = load_pretrained(Qwen3VLForConditionalGeneration, folder, torch_dtype, headers_only)
        self.network: Any = network.to(self.device)  # type: ignore[arg-type]
        self.checkpoint: str | None = public_name(model)
        self.version = version_label("transformers", model, torch_dtype)

    @torch.inference_mode()
    def ask(self, pairs: list[PairItem]) -> list[Opinion]:
        """Return one opinion per pair, in order; see `Backend.ask`."""
        probabilities_N3 = self.logits(pairs).softmax(dim=-1)
        best_N = probabilities_N3.argmax(dim=-1)  # A if it ties with another one; asking in both orders corrects that
        winners = list(WINNERS.values())
        return [
            Opinion(winners[best], float(probabilities_3[best]))
            for best, probabilities_3 in zip(best_N, probabilities_N3, strict=True)
        ]

    def logits(self, pairs: list[PairItem]) -> Tensor:
        """Compute the logits of A, B and tie at the verdict's position: (N, 3) float32 on the CPU.

        An image that occurs more than once is encoded once. If both orders are asked, each image occurs twice.
        """
        shown = [image for pair in pairs for image in (pair.first, pair.second)]
        distinct = {id(image): image for image in shown}
        index_of = {key: index for index, key in enumerate(distinct)}
        order = [index_of[id(image)] for image in shown]
        images = encode_images(self.processor, list(distinct.values()))
        grids = images["image_grid_thw"][order]
        texts = encode_texts(
            self.tokenizer,
            [self.conversation(pair.prompt) for pair in pairs],
            grids,
            self.processor.merge_size,
            padding_side="left",  # so that the verdict follows the last token of every row
        )
        encoded = self.network.model.get_image_features(**self._to_device(images), return_dict=True)
        encoded.pooler_output = [encoded.pooler_output[index] for index in order]
        encoded.deepstack_features = [[layer[index] for index in order] for layer in encoded.deepstack_features]
        logits_N1V = self.network(
            **self._to_device({**texts, "image_grid_thw": grids}),
            mm_encoder_outputs={"image": encoded},
            use_cache=False,
            logits_to_keep=1,
        ).logits
        return logits_N1V[:, 0, self.verdict_ids].float().cpu()

    def _to_device(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def conversation(self, prompt: str) -> str:
        """Make the model's input text: each picture under its label, the question, and the beginning of the answer.

        It is Qwen3-VL's chat format, which has no system prompt.
        """
        before, between, after = LABELS
        question = write_question(break_special_tokens(prompt, self.tokenizer))
        user = f"<|im_start|>user\n{before}{IMAGE}{between}{IMAGE}{after}{question}<|im_end|>\n"
        return f"{user}<|im_start|>assistant\n{ANSWER_START}"


def find_verdict_ids(tokenizer: Any, model: str) -> list[int]:
    """Return the id of each verdict's first token after ANSWER_START. Raises WeightsError if two are the same."""
    start: list[int] = tokenizer(ANSWER_START)["input_ids"]
    ids = []
    for name in WINNERS:
        whole: list[int] = tokenizer(f'{ANSWER_START}{name}"')["input_ids"]
        if whole[: len(start)] != start:
            message = f"the tokenizer of {model} merges {ANSWER_START!r} with the verdict, so it is not Qwen3-VL's"
            raise WeightsError(message)
        ids.append(whole[len(start)])
    if len(set(ids)) < len(ids):
        raise WeightsError(
            f"in the tokenizer of {model} two verdicts begin with the same token, so it is not Qwen3-VL's"
        )
    return ids


def _load_processor(folder: Path, max_pixels: int) -> Qwen2VLImageProcessorPil:
    try:
        processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"cannot read {folder / 'preprocessor_config.json'}: {error}") from error
    size: Any = processor.size
    least, most = int(size["shortest_edge"]), int(size["longest_edge"])  # numbers of pixels, despite their names
    processor.size = {"shortest_edge": min(least, max_pixels), "longest_edge": min(most, max_pixels)}
    return processor
