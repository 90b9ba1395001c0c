"""Each prompt is encoded once, while its encoding fits among the kept ones."""

from __future__ import annotations

from collections import OrderedDict

import torch

from drpo.generators.base import Conditions, OneStepGenerator

KEPT_BYTES = 256 * 2**20
"""Of encodings: 1,700 prompts of SD-Turbo in 16 bits."""


class PromptCache:
    """Encodes prompts one by one, so that an encoding does not depend on what was encoded before it.

    Args:
        generator: encodes, and keeps the encodings on its device.
        kept_bytes: of encodings; the one that was used longest ago goes first.
    """

    def __init__(self, generator: OneStepGenerator, kept_bytes: int = KEPT_BYTES) -> None:
        self._generator = generator
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[str, Conditions] = OrderedDict()
        self._bytes = 0

    @torch.no_grad()
    def encode(self, prompt: str) -> Conditions:
        """The encoding of one prompt."""
        if prompt in self._kept:
            self._kept.move_to_end(prompt)
            return self._kept[prompt]
        conditions = self._generator.encode_prompts([prompt])
        self._kept[prompt] = conditions
        self._bytes += _size(conditions)
        while self._bytes > self._kept_bytes:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return conditions


def _size(conditions: Conditions) -> int:
    tensors = [conditions.text_NTD, *([] if conditions.pooled_ND is None else [conditions.pooled_ND])]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
