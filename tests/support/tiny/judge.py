"""A tiny Qwen3-VL that judges. It writes a verdict as JSON, which depends on the images.

A random model nearly always writes the same text, and no JSON. But its last hidden state depends on the last token and
on the images. So an output layer that is fitted to those states makes it write `{"winner":"A"}` or `{"winner":"B"}`. As
in the real tokenizer, `{"`, `winner`, `":"` and `"}` are tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from drpo_rewards.rewards.base import PairItem
from drpo_rewards.rewards.judge.qwen3_vl import Qwen3VLBackend
from drpo_rewards.rewards.shared.qwen_vl import encode_images, encode_texts
from support.images import picture
from support.tiny.qwen3_vl import write_qwen3_vl
from support.tiny.qwen_tokenizer import SPECIAL, TOKEN

PROMPT = "a red circle"  # the model is fitted on this prompt
WORDS = {word: 256 + len(SPECIAL) + index for index, word in enumerate(['":"', '{"', '"}', "winner"])}


def write_judge(folder: Path, pairs: int = 32) -> Path:
    """Writes the checkpoint to `folder`, in two files like the larger public ones, and returns the folder."""
    write_qwen3_vl(folder, sharded=True, words=list(WORDS))
    backend = Qwen3VLBackend(model=str(folder), device="cpu")
    pictures = [picture(64, 64, seed=seed) for seed in range(100, 100 + 2 * pairs)]
    pairs_in_order = [PairItem(one, two, PROMPT) for one, two in zip(pictures[::2], pictures[1::2], strict=True)]
    pairs_swapped = [pair.swap() for pair in pairs_in_order]
    both_orders = (pairs_in_order, pairs_swapped)
    prefers_first = _preference(*(_states(backend, items, [""] * pairs)[:, -1] for items in both_orders))
    answers = ["A" if first else "B" for first in prefers_first]
    states_NTD = _states(backend, pairs_in_order + pairs_swapped, [f'{answer}"}}' for answer in answers])
    opening = [WORDS[word] for word in ('{"', "winner", '":"')]
    wanted_NT = torch.tensor([[*opening, ord(answer), WORDS['"}'], TOKEN["<|im_end|>"]] for answer in answers])
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    file = folder / index["lm_head.weight"]
    weights = load_file(file)
    rows_WD = _fit(states_NTD.flatten(0, 1), wanted_NT.flatten(), len(weights["lm_head.weight"]))
    save_file(weights | {"lm_head.weight": rows_WD.to(torch.bfloat16)}, file, metadata={"format": "pt"})
    return folder


@torch.inference_mode()
def _states(backend: Qwen3VLBackend, pairs: list[PairItem], ends: list[str]) -> Tensor:
    """The last hidden states before each token of the answer.

    Returns:
        (pairs, 4, D) up to the verdict if `ends` are empty, (pairs, 6, D) for the whole answer otherwise.
    """
    found = []
    for start in range(0, len(pairs), 8):
        part = slice(start, start + 8)
        shown = [image for pair in pairs[part] for image in (pair.first, pair.second)]
        images = encode_images(backend.processor, shown)
        texts = [backend.conversation(pair.prompt) + end for pair, end in zip(pairs[part], ends[part], strict=True)]
        merged = backend.processor.merge_size
        tokens = encode_texts(backend.tokenizer, texts, images["image_grid_thw"], merged, padding_side="left")
        hidden_NTD = backend.network.model(**images, **tokens, use_cache=False).last_hidden_state
        found.append(hidden_NTD[:, -6 if ends[0] else -4 :])
    return torch.cat(found)


def _preference(in_order_ND: Tensor, swapped_ND: Tensor) -> list[bool]:
    """Whether the first image of a pair is to win: for all pairs in order, then for all pairs swapped.

    Decided by the sign along the direction in which a swap of the images changes the states most, relative to how much
    the states differ between pairs.
    """
    mean_D = (in_order_ND + swapped_ND).mean(dim=0) / 2
    changed_ND, kept_ND = in_order_ND - swapped_ND, in_order_ND + swapped_ND - 2 * mean_D
    kept_DD = kept_ND.T @ kept_ND
    kept_DD += 0.05 * kept_DD.trace() / len(kept_DD) * torch.eye(len(kept_DD))
    root_DD = torch.linalg.cholesky(kept_DD)
    whitened_ND = torch.linalg.solve_triangular(root_DD, changed_ND.T, upper=False).T
    direction_D = torch.linalg.solve(root_DD.T, torch.linalg.svd(whitened_ND).Vh[0])
    return ((torch.cat([in_order_ND, swapped_ND]) - mean_D) @ direction_D > 0).tolist()


def _fit(states_ND: Tensor, wanted_N: Tensor, words: int) -> Tensor:
    """Rows (words, D) of an output layer that chooses the wanted tokens. Rows of other tokens stay 0."""
    classes, wanted_N = torch.unique(wanted_N, return_inverse=True)
    states_ND = states_ND.clone()  # a copy that autograd can use
    rows_CD = torch.zeros(len(classes), states_ND.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([rows_CD], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        logits_NC = functional.pad(states_ND @ rows_CD.T - 3, (0, 1), value=3)  # the last one: all other tokens
        value = functional.cross_entropy(logits_NC, wanted_N) + 1e-5 * (rows_CD**2).sum()
        value.backward()
        return value

    solver.step(loss)  # type: ignore[arg-type]
    rows_WD = torch.zeros(words, states_ND.shape[1])
    rows_WD[classes] = rows_CD.detach()
    return rows_WD
