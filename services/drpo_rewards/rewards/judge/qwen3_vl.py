"""The judge in this process: a Qwen3-VL of transformers, whose answer is one of three verdicts.

The prompt already contains the beginning of the answer, `{"winner":"`, and only A, B or tie may follow. Each of the
three begins with a different token, so one token decides, and the softmax over the three tokens' logits is the verdict
and its confidence. That takes one forward pass and no loop, always parses, and is deterministic. It gives no reason in
words, unlike the endpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.base import PairItem
from drpo_rewards.rewards.judge.question import LABELS, WINNERS, Opinion, write_question
from drpo_rewards.rewards.shared.preprocess import break_special_tokens
from drpo_rewards.rewards.shared.qwen3_vl import MODEL, Qwen3VL
from drpo_rewards.rewards.shared.qwen_vl import IMAGE, encode_images, encode_texts

ANSWER_START = '{"winner":"'  # the answer up to the verdict


class Qwen3VLBackend(Qwen3VL):
    """A Qwen3-VL in this process; see Qwen3VL for its arguments."""

    def __init__(self, model: str = MODEL.repo, **options: Any) -> None:
        super().__init__(model, **options)
        self.verdict_ids = find_verdict_ids(self.tokenizer, model)

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
        encoded = self.encode(images)
        encoded.pooler_output = [encoded.pooler_output[index] for index in order]
        encoded.deepstack_features = [[layer[index] for index in order] for layer in encoded.deepstack_features]
        logits_N1V = self.network(
            **self.to_device({**texts, "image_grid_thw": grids}),
            mm_encoder_outputs={"image": encoded},
            use_cache=False,
            logits_to_keep=1,
        ).logits
        return logits_N1V[:, 0, self.verdict_ids].float().cpu()

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
