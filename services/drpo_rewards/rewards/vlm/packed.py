"""Many questions about pictures in one pass of a Qwen3-VL: each picture is encoded once, and read once.

Published scorers run the network once per question, each time over the whole picture. Here the questions of a picture
follow it in one sequence. None of them sees another one: the attention mask lets a question see the picture and itself
only, and its positions begin right after the picture, as if it stood there alone. So the answers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drpo_rewards.rewards.shared.preprocess import break_special_tokens
from drpo_rewards.rewards.shared.qwen3_vl import Qwen3VL
from drpo_rewards.rewards.shared.qwen_vl import encode_images

MAX_TOKENS = 16_384  # of one pass of the network, with padding
PREFIX, PAD, PREFIX_END = "<|im_start|>user\n<|vision_start|>", "<|image_pad|>", "<|vision_end|>"


@dataclass(frozen=True)
class Question:
    """One question about a picture.

    Attributes:
        text: what follows the picture.
        answers: sets of tokens; the probability of each set, as the first token of the answer, is wanted.
        answer_start: how the answer already begins.
    """

    text: str
    answers: tuple[tuple[int, ...], ...]
    answer_start: str = ""


@dataclass(frozen=True)
class _Row:
    """A picture and its questions, as one sequence.

    Attributes:
        ids_T: the tokens.
        branches_T: 0 for the picture, and the number of the question, from 1, for its tokens.
        positions_3T: each token's position in time, height and width.
        ends: the index of each question's last token.
    """

    ids_T: Tensor
    branches_T: Tensor
    positions_3T: Tensor
    ends: list[int]


@torch.inference_mode()
def ask(vlm: Qwen3VL, images: Sequence[np.ndarray], questions: Sequence[Sequence[Question]]) -> list[list[Tensor]]:
    """Ask each picture's questions.

    Returns:
        For each picture and each of its questions, the log-probabilities of its sets of tokens.
    """
    found: list[list[Tensor]] = []
    pad = vlm.tokenizer.convert_tokens_to_ids(PAD)
    pictures = [encode_images(vlm.processor, [image]) for image in images]
    rows = [
        _make_row(vlm, picture["image_grid_thw"][0], asked, pad)
        for picture, asked in zip(pictures, questions, strict=True)
    ]
    for part in _split([len(row.ids_T) for row in rows]):
        logits_MV = _run(vlm, pictures[part], rows[part], pad)
        ends = iter(logits_MV.float().log_softmax(dim=-1).cpu())
        for asked in questions[part]:
            found.append([_gather(next(ends), question.answers) for question in asked])
    return found


def _gather(log_V: Tensor, answers: tuple[tuple[int, ...], ...]) -> Tensor:
    return torch.stack([log_V[list(tokens)].logsumexp(dim=0) for tokens in answers])


def _split(lengths: Sequence[int]) -> Iterator[slice]:
    """Yield parts of the rows, so that none has more than MAX_TOKENS with padding, and each has at least one row."""
    start = 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or (end + 1 - start) * max(lengths[start : end + 1]) > MAX_TOKENS:
            yield slice(start, end)
            start = end


def _make_row(vlm: Qwen3VL, grid_3: Tensor, questions: Sequence[Question], pad: int) -> _Row:
    count = int(grid_3.prod()) // vlm.processor.merge_size**2
    prefix: list[int] = vlm.tokenizer(PREFIX + PAD * count + PREFIX_END)["input_ids"]
    types_1T = (torch.tensor([prefix]) == pad).to(torch.int32)
    positions_31T, _ = vlm.network.model.get_rope_index(
        torch.tensor([prefix]), mm_token_type_ids=types_1T, image_grid_thw=grid_3[None]
    )
    ids, branches, positions = list(prefix), [0] * len(prefix), [positions_31T[:, 0]]
    first, ends = int(positions_31T.max()) + 1, []
    for number, question in enumerate(questions, 1):
        text = break_special_tokens(question.text, vlm.tokenizer)
        tail = f"{text}<|im_end|>\n<|im_start|>assistant\n{question.answer_start}"
        tokens: list[int] = vlm.tokenizer(tail)["input_ids"]
        ids += tokens
        branches += [number] * len(tokens)
        positions.append(torch.arange(first, first + len(tokens)).expand(3, -1))
        ends.append(len(ids) - 1)
    return _Row(torch.tensor(ids), torch.tensor(branches), torch.cat(positions, dim=1), ends)


def _run(vlm: Qwen3VL, pictures: Sequence[dict[str, Tensor]], rows: Sequence[_Row], pad: int) -> Tensor:
    """Run the network once, and return the (questions, V) logits after each question, in order."""
    most = max(len(row.ids_T) for row in rows)
    ids_NT = torch.full((len(rows), most), vlm.tokenizer.pad_token_id or 0)
    branches_NT = torch.full((len(rows), most), -1)  # padding sees nothing but the other padding
    positions_3NT = torch.zeros((3, len(rows), most), dtype=torch.long)
    for index, row in enumerate(rows):
        length = len(row.ids_T)
        ids_NT[index, :length], branches_NT[index, :length] = row.ids_T, row.branches_T
        positions_3NT[:, index, :length] = row.positions_3T
    images = {name: torch.cat([picture[name] for picture in pictures]) for name in pictures[0]}
    inputs: dict[str, Any] = vlm.to_device(
        {
            "input_ids": ids_NT,
            "position_ids": positions_3NT,
            "attention_mask": _make_mask(branches_NT, vlm.network.dtype),
            "mm_token_type_ids": (ids_NT == pad).to(torch.int32),
            "image_grid_thw": images["image_grid_thw"],
        }
    )
    states_NTD = vlm.network.model(
        **inputs, mm_encoder_outputs={"image": vlm.encode(images)}, use_cache=False
    ).last_hidden_state
    states_MD = torch.cat([states_NTD[index, row.ends] for index, row in enumerate(rows)])
    return vlm.network.lm_head(states_MD)


def _make_mask(branches_NT: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores, (N, 1, T, T): 0 where a token sees another one, else the lowest number.

    A token sees those before it in its own question, and the picture before them.
    """
    earlier_TT = torch.ones(branches_NT.shape[1], branches_NT.shape[1], dtype=torch.bool).tril()
    same_NTT = branches_NT[:, :, None] == branches_NT[:, None, :]
    picture_NTT = (branches_NT[:, None, :] == 0) & (branches_NT[:, :, None] > 0)
    seen_NTT = (same_NTT | picture_NTT) & earlier_TT
    return torch.zeros(seen_NTT.shape, dtype=dtype).masked_fill(~seen_NTT, torch.finfo(dtype).min)[:, None]
