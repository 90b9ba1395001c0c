"""Write a pipeline as the package contains it: a diffusers folder in half precision that loads in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn


def halve(model: nn.Module) -> None:
    """Stores the weights of a model in half precision."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.to(torch.float16 if tensor.is_floating_point() else tensor.dtype).contiguous()


def save_pipeline(pipeline: Any, folder: Path) -> None:
    """Writes a pipeline in half precision. `from_pretrained(folder)` then loads every part of it in float32."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            halve(part)
    pipeline.save_pretrained(folder)
    # transformers loads a model in the precision that its config names, diffusers in float32. With one precision for
    # all parts, `StableDiffusionPipeline.from_pretrained(folder)` works without further arguments.
    for file in folder.glob("text_encoder*/config.json"):
        settings = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**settings, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
    # transformers 5 writes only tokenizer.json. This adds vocab.json and merges.txt, which older versions read and
    # which SD-Turbo also has.
    for tokenizer in folder.glob("tokenizer*"):
        getattr(pipeline, tokenizer.name).backend_tokenizer.model.save(str(tokenizer))
