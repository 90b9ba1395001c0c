"""The feature maps' networks in plain float64 numpy, for comparison with the real implementations."""

from __future__ import annotations

import numpy as np

from support.plain import Array, Weights, attention, gelu, layer_norm, linear

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])


def cubic_rows(source: int, target: int) -> Array:
    """A matrix (target, source) that resizes bicubically (a = -0.75), without antialiasing, edges repeated."""
    rows = np.zeros((target, source))
    for y in range(target):
        centre = (y + 0.5) * source / target - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            x = abs(centre - tap)
            near = (1.25 * x - 2.25) * x * x + 1
            far = ((-0.75 * x + 3.75) * x - 6) * x + 3
            rows[y, min(max(tap, 0), source - 1)] += near if x <= 1 else far
    return rows


def resize(image_CHW: Array, side: int) -> Array:
    """Both axes scaled to `side`."""
    _, height, width = image_CHW.shape
    return np.einsum("yh,chw,xw->cyx", cubic_rows(height, side), image_CHW, cubic_rows(width, side))


def pixels(image_3HW: Array, side: int) -> Array:
    """What a vision transformer takes of an image in [-1, 1]."""
    scaled = resize((np.clip(image_3HW, -1, 1) + 1) / 2, side)
    return (scaled - IMAGENET_MEAN[:, None, None]) / IMAGENET_STD[:, None, None]


def embed(weights: Weights, prefix: str, pixels_3HW: Array, position_TD: Array, seen: list[int] | None = None) -> Array:
    """The class token and the patches, those in `seen` only, (1 + patches, D)."""
    kernel_D3PP = weights[f"{prefix}embeddings.patch_embeddings.projection.weight"]
    bias_D = weights[f"{prefix}embeddings.patch_embeddings.projection.bias"]
    side = kernel_D3PP.shape[-1]
    _, height, width = pixels_3HW.shape
    patches = [
        (kernel_D3PP * pixels_3HW[:, y : y + side, x : x + side]).sum(axis=(1, 2, 3)) + bias_D
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    tokens_TD = np.stack(patches) + position_TD[1:]
    if seen is not None:
        tokens_TD = tokens_TD[seen]
    return np.concatenate([weights[f"{prefix}embeddings.cls_token"][0] + position_TD[:1], tokens_TD])


def self_attention(weights: Weights, name: str, x_TD: Array, heads: int) -> Array:
    q, k, v = (linear(weights, f"{name}.attention.{part}", x_TD) for part in ("query", "key", "value"))
    return linear(weights, f"{name}.output.dense", attention(q, k, v, heads))


def vit_mae_states(weights: Weights, x_TD: Array, heads: int, layers: int) -> list[Array]:
    """The hidden states before the first layer and after each one."""
    states = [x_TD]
    for layer in range(layers):
        name, x = f"vit.encoder.layer.{layer}", states[-1]
        x = x + self_attention(
            weights, f"{name}.attention", layer_norm(weights, f"{name}.layernorm_before", x, 1e-12), heads
        )
        inner = gelu(
            linear(weights, f"{name}.intermediate.dense", layer_norm(weights, f"{name}.layernorm_after", x, 1e-12))
        )
        states.append(x + linear(weights, f"{name}.output.dense", inner))
    return states


def dinov2_states(weights: Weights, x_TD: Array, heads: int, layers: int) -> list[Array]:
    """The hidden states before the first layer and after each one."""
    states = [x_TD]
    for layer in range(layers):
        name, x = f"encoder.layer.{layer}", states[-1]
        inner = self_attention(weights, f"{name}.attention", layer_norm(weights, f"{name}.norm1", x, 1e-6), heads)
        x = x + inner * weights[f"{name}.layer_scale1.lambda1"]
        inner = gelu(linear(weights, f"{name}.mlp.fc1", layer_norm(weights, f"{name}.norm2", x, 1e-6)))
        states.append(x + linear(weights, f"{name}.mlp.fc2", inner) * weights[f"{name}.layer_scale2.lambda1"])
    return states


def token_features(states: list[Array], layer: int) -> dict[str, Array]:
    """The class token, and the mean and the deviation of the patch tokens of one layer, each (1, D)."""
    cls_1D, patches_TD = states[layer][:1], states[layer][1:]
    deviation_1D = np.sqrt(patches_TD.var(axis=0, keepdims=True) + 1e-6)
    return {"cls": cls_1D, "patch_mean": patches_TD.mean(axis=0, keepdims=True), "patch_std": deviation_1D}


# -- the latent-MAE's encoder -------------------------------------------------------------------------------------


def convolve(x_Chw: Array, kernel: Array, stride: int = 1) -> Array:
    """A convolution without bias; 3x3 kernels are padded by 1, 1x1 kernels are not."""
    side = kernel.shape[-1]
    if side == 3:
        x_Chw = np.pad(x_Chw, ((0, 0), (1, 1), (1, 1)))
    rows = range(0, x_Chw.shape[1] - side + 1, stride)
    columns = range(0, x_Chw.shape[2] - side + 1, stride)
    out = [[np.einsum("ocyx,cyx->o", kernel, x_Chw[:, y : y + side, x : x + side]) for x in columns] for y in rows]
    return np.array(out).transpose(2, 0, 1)


def group_norm(weights: Weights, name: str, x_Chw: Array, groups: int, eps: float) -> Array:
    grouped = x_Chw.reshape(groups, -1)
    centred = grouped - grouped.mean(axis=1, keepdims=True)
    scaled = (centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)).reshape(x_Chw.shape)
    return scaled * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def latent_mae_maps(weights: Weights, latents_Chw: Array, blocks: tuple[int, ...], groups: int, eps: float) -> dict:
    """The map of every stage, and of every second block within a stage."""

    def norm(name: str, x: Array) -> Array:
        return group_norm(weights, f"encoder.{name}", x, groups, eps)

    def conv(name: str, x: Array, stride: int = 1) -> Array:
        return convolve(x, weights[f"encoder.{name}.weight"], stride)

    maps: dict[str, Array] = {}
    x = np.maximum(norm("gn1", conv("conv1", latents_Chw)), 0)
    for stage, count in enumerate(blocks):
        for block in range(count):
            name, stride = f"stages_{stage}.layers_{block}", 2 if stage and not block else 1
            inner = np.maximum(norm(f"{name}.gn1", conv(f"{name}.conv1", x, stride)), 0)
            inner = norm(f"{name}.gn2", conv(f"{name}.conv2", inner))
            if f"encoder.{name}.proj_conv.weight" in weights:
                x = norm(f"{name}.proj_gn", conv(f"{name}.proj_conv", x, stride))
            x = np.maximum(x + inner, 0)
            if (block + 1) % 2 == 0 and block + 1 < count:
                maps[f"layer{stage + 1}_blk{block + 1}"] = x
        x = norm(f"layer{stage + 1}_norm", x)
        maps[f"layer{stage + 1}"] = x
    return maps


def map_statistics(map_Chw: Array) -> dict[str, Array]:
    """The means and deviations of a map and of its 2x2 and 4x4 patches, each (T, C)."""
    channels, height, width = map_Chw.shape
    found = {}
    for size in (0, 2, 4):
        if size and (height % size or width % size or (height, width) == (size, size)):
            continue
        side_y, side_x = (size or height), (size or width)
        cuts = [
            map_Chw[:, y : y + side_y, x : x + side_x].reshape(channels, -1)
            for y in range(0, height, side_y)
            for x in range(0, width, side_x)
        ]
        suffix = f"_{size}" if size else ""
        found[f"mean{suffix}"] = np.stack([cut.mean(axis=1) for cut in cuts])
        found[f"std{suffix}"] = np.stack([np.sqrt(cut.var(axis=1) + 1e-6) for cut in cuts])
    return found
