"""A Qwen3-VL in this process, for the rewards that ask one: the files, the network, and what both take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.files.hub import find
from drpo_rewards.rewards.files.model_files import BPE, CONFIG, TOKENIZER_SETTINGS, WEIGHTS, ModelFiles
from drpo_rewards.rewards.files.weights import load_pretrained, pick_device, pick_dtype, public_name, version_label
from drpo_rewards.rewards.shared.qwen_vl import qwen_tokenizer

IMAGE_PROCESSOR = (("preprocessor_config.json",),)
MODEL = ModelFiles(
    "model",
    "Qwen/Qwen3-VL-8B-Instruct",
    (CONFIG, WEIGHTS, BPE, IMAGE_PROCESSOR),
    "Apache-2.0",
    17.5,
    TOKENIZER_SETTINGS,
)


class Qwen3VL:
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
        self.processor = _load_processor(folder, max_pixels)
        network = load_pretrained(Qwen3VLForConditionalGeneration, folder, torch_dtype, headers_only)
        self.network: Any = network.to(self.device)  # type: ignore[arg-type]
        self.checkpoint: str | None = public_name(model)
        self.version = version_label("transformers", model, torch_dtype)

    def encode(self, inputs: dict[str, Tensor]) -> Any:
        """Encode pictures, given as `encode_images` makes them: what the network takes as encoded pictures."""
        return self.network.model.get_image_features(**self.to_device(inputs), return_dict=True)

    def to_device(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move tensors to the network's device."""
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}


def _load_processor(folder: Path, max_pixels: int) -> Qwen2VLImageProcessorPil:
    try:
        processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"cannot read {folder / 'preprocessor_config.json'}: {error}") from error
    size: Any = processor.size
    least, most = int(size["shortest_edge"]), int(size["longest_edge"])  # numbers of pixels, despite their names
    processor.size = {"shortest_edge": min(least, max_pixels), "longest_edge": min(most, max_pixels)}
    return processor
