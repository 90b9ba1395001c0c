"""The layers of the public reward models in plain float64 numpy, for comparison with the real implementations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import erf

Array = NDArray[np.float64]
Weights = Mapping[str, Array]

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])


def linear(weights: Weights, name: str, x: Array) -> Array:
    bias = weights.get(f"{name}.bias")
    out = x @ weights[f"{name}.weight"].T
    return out if bias is None else out + bias


def layer_norm(weights: Weights, name: str, x: Array, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q: Array, k: Array, v: Array, heads: int, *, causal: bool = False, seen: Array | None = None) -> Array:
    """Attention within one sequence, (T, D). `seen` is 0 for keys that are masked."""
    width = q.shape[1] // heads
    outputs = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[:, part] @ k[:, part].T / np.sqrt(width)
        if causal:
            logits = np.where(np.tri(len(q), len(k)) == 1, logits, -np.inf)
        if seen is not None:
            logits = np.where(seen == 1, logits, -np.inf)
        outputs.append(softmax(logits) @ v[:, part])
    return np.concatenate(outputs, axis=1)


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def quick_gelu(x: Array) -> Array:
    return x / (1 + np.exp(-1.702 * x))


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x)


def patches(pixels_3HW: Array, kernel_D3PP: Array) -> Array:
    """A convolution whose stride equals its size: (patches, D), row by row."""
    size = kernel_D3PP.shape[-1]
    _, height, width = pixels_3HW.shape
    flat = kernel_D3PP.reshape(len(kernel_D3PP), -1)
    cuts = [
        pixels_3HW[:, y : y + size, x : x + size].reshape(-1)
        for y in range(0, height - size + 1, size)
        for x in range(0, width - size + 1, size)
    ]
    return np.stack(cuts) @ flat.T


def cropped(image_HW3: np.ndarray, side: int = 224, *, rounding: bool) -> Array:
    """CLIP's preprocessing, (3, side, side): bicubic resize of the shorter side, centre crop, normalised colours."""
    height, width = image_HW3.shape[:2]
    if width <= height:
        new_width, new_height = side, int(side * height / width)
    else:
        new_width, new_height = int(side * width / height), side
    scaled = np.asarray(Image.fromarray(image_HW3).resize((new_width, new_height), Image.BICUBIC))
    half_x, half_y = (new_width - side) / 2, (new_height - side) / 2
    x, y = (int(np.rint(half_x)), int(np.rint(half_y))) if rounding else (int(half_x), int(half_y))
    return ((scaled[y : y + side, x : x + side] / 255 - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)


def clip_image(weights: Weights, pixels_3HW: Array, heads: int, layers: int, act: str = "quick_gelu") -> Array:
    """CLIP's image vector, (projection,), not normalised. Keys are those of transformers."""
    x = patches(pixels_3HW, weights["vision_model.embeddings.patch_embedding.weight"])
    x = np.concatenate([weights["vision_model.embeddings.class_embedding"][None], x])
    x = x + weights["vision_model.embeddings.position_embedding.weight"]
    x = layer_norm(weights, "vision_model.pre_layrnorm", x, 1e-5)
    x = _clip_layers(weights, "vision_model", x, heads, layers, act, causal=False)
    return linear(weights, "visual_projection", layer_norm(weights, "vision_model.post_layernorm", x[0], 1e-5))


def clip_text(weights: Weights, ids: list[int], heads: int, layers: int, act: str = "quick_gelu") -> Array:
    """CLIP's text vector, (projection,), of one unpadded token sequence that ends with the end-of-text token."""
    x = weights["text_model.embeddings.token_embedding.weight"][ids]
    x = x + weights["text_model.embeddings.position_embedding.weight"][: len(ids)]
    x = _clip_layers(weights, "text_model", x, heads, layers, act, causal=True)
    return linear(weights, "text_projection", layer_norm(weights, "text_model.final_layer_norm", x, 1e-5)[-1])


def _clip_layers(weights: Weights, tower: str, x: Array, heads: int, layers: int, act: str, *, causal: bool) -> Array:
    activation = {"quick_gelu": quick_gelu, "gelu": gelu}[act]
    for layer in range(layers):
        name = f"{tower}.encoder.layers.{layer}"
        h = layer_norm(weights, f"{name}.layer_norm1", x, 1e-5)
        q, k, v = (linear(weights, f"{name}.self_attn.{part}_proj", h) for part in "qkv")
        x = x + linear(weights, f"{name}.self_attn.out_proj", attention(q, k, v, heads, causal=causal))
        h = layer_norm(weights, f"{name}.layer_norm2", x, 1e-5)
        x = x + linear(weights, f"{name}.mlp.fc2", activation(linear(weights, f"{name}.mlp.fc1", h)))
    return x


def clip_ids(folder: Path, text: str, limit: int = 77) -> list[int]:
    """CLIP's tokens of a text without special tokens: byte-level BPE with the vocabulary in `folder`."""
    vocabulary = json.loads((folder / "vocab.json").read_text())
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text().splitlines()[1:]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    letter = {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(hidden)}
    ids = []
    for word in re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", text.lower()):
        pieces = [letter[byte] for byte in word.encode()]
        pieces[-1] += "</w>"
        for merge in merges:
            index = 0
            while index < len(pieces) - 1:
                if (pieces[index], pieces[index + 1]) == merge:
                    pieces[index : index + 2] = ["".join(merge)]
                index += 1
        ids += [vocabulary[piece] for piece in pieces]
    return [vocabulary["<|startoftext|>"], *ids[: limit - 2], vocabulary["<|endoftext|>"]]


def read(path: Path) -> Weights:
    """A safetensors file as float64 arrays."""
    return {name: tensor.astype(np.float64) for name, tensor in load_file(path).items()}


def merge_order(rows: int, columns: int) -> list[tuple[int, int]]:
    """The (row, column) of every patch in the order of the Qwen-VL models, one 2x2 square after another."""
    return [(y + dy, x + dx) for y in range(0, rows, 2) for x in range(0, columns, 2) for dy in (0, 1) for dx in (0, 1)]


def rotated(x: Array, angles: Array) -> Array:
    """Rotary position embedding of one head: x is (T, D), angles are (T, D / 2). The halves of D form the pairs."""
    half = x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=1)


def rms_norm(weights: Weights, name: str, x: Array) -> Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weights[f"{name}.weight"]
