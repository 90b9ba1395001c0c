"""A tiny Qwen3-VL that judges: it writes the verdict as JSON, and which verdict depends on the pictures.

A random model nearly always says the same, and no JSON. But its last hidden state depends on the last word and on the
pictures, so an output layer fitted to those states is enough to have it write `{"winner":"A"}` or `{"winner":"B"}`. Its
parts are tokens, as in the real tokenizer: `{"`, `winner`, `":"`, `"}`.
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

PROMPT = "a red circle"  # what it was fitted on
WORDS = {word: 256 + len(SPECIAL) + place for place, word in enumerate(['":"', '{"', '"}', "winner"])}


def write_judge(folder: Path, pairs: int = 32) -> Path:
    """Writes the checkpoint to `folder`, in two files as the larger public ones, and returns it."""
    write_qwen3_vl(folder, sharded=True, words=list(WORDS))
    backend = Qwen3VLBackend(model=str(folder), device="cpu")
    pictures = [picture(64, 64, seed=seed) for seed in range(100, 100 + 2 * pairs)]
    there = [PairItem(one, two, PROMPT) for one, two in zip(pictures[::2], pictures[1::2], strict=True)]
    back = [pair.swap() for pair in there]
    says_a = _preference(*(_states(backend, asked, [""] * pairs)[:, -1] for asked in (there, back)))
    answers = ["A" if a else "B" for a in says_a]
    states_NTD = _states(backend, there + back, [f'{answer}"}}' for answer in answers])
    begun = [WORDS[word] for word in ('{"', "winner", '":"')]
    wanted_NT = torch.tensor([[*begun, ord(answer), WORDS['"}'], TOKEN["<|im_end|>"]] for answer in answers])
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    file = folder / index["lm_head.weight"]
    weights = load_file(file)
    rows_WD = _fit(states_NTD.flatten(0, 1), wanted_NT.flatten(), len(weights["lm_head.weight"]))
    save_file(weights | {"lm_head.weight": rows_WD.to(torch.bfloat16)}, file, metadata={"format": "pt"})
    return folder


@torch.inference_mode()
def _states(backend: Qwen3VLBackend, pairs: list[PairItem], ends: list[str]) -> Tensor:
    """(pairs, 4 or 6, D): the last hidden states where a token of the answer follows; up to the verdict, or all."""
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


def _preference(there_ND: Tensor, back_ND: Tensor) -> list[bool]:
    """Whether the first picture shown is said to be better, of the pairs there and then back.

    By the side of the direction in which the states change most when the pictures are swapped, as against otherwise.
    """
    mean_D = (there_ND + back_ND).mean(dim=0) / 2
    turned_ND, kept_ND = there_ND - back_ND, there_ND + back_ND - 2 * mean_D
    kept_DD = kept_ND.T @ kept_ND
    kept_DD += 0.05 * kept_DD.trace() / len(kept_DD) * torch.eye(len(kept_DD))
    root_DD = torch.linalg.cholesky(kept_DD)
    whitened_ND = torch.linalg.solve_triangular(root_DD, turned_ND.T, upper=False).T
    direction_D = torch.linalg.solve(root_DD.T, torch.linalg.svd(whitened_ND).Vh[0])
    return ((torch.cat([there_ND, back_ND]) - mean_D) @ direction_D > 0).tolist()


def _fit(states_ND: Tensor, wanted_N: Tensor, words: int) -> Tensor:
    """(words, D): rows whose logits choose the wanted token; those of tokens never wanted stay 0 and lose."""
    classes, wanted_N = torch.unique(wanted_N, return_inverse=True)
    states_ND = states_ND.clone()  # out of inference mode
    rows_CD = torch.zeros(len(classes), states_ND.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([rows_CD], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        logits_NC = functional.pad(states_ND @ rows_CD.T - 3, (0, 1), value=3)  # one for all others, with a margin
        value = functional.cross_entropy(logits_NC, wanted_N) + 1e-5 * (rows_CD**2).sum()
        value.backward()
        return value

    solver.step(loss)  # type: ignore[arg-type]
    rows_WD = torch.zeros(words, states_ND.shape[1])
    rows_WD[classes] = rows_CD.detach()
    return rows_WD
