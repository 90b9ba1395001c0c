"""Token features of a spatial map: its locations, and global and patch-wise means and standard deviations.

"Generative Modeling via Drifting" (Deng et al., 2026, appendix on feature extraction) computes these statistics for
each layer of its latent-MAE, under the same names: `layer2`, `layer2_mean`, `layer2_std`, `layer2_mean_4`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from drpo.errors import ShapeError

PATCH_SIZES = (2, 4)
_VARIANCE_FLOOR = 1e-6  # added under the root, so that the deviation of a constant map has a finite gradient


def tokens_of(map_NChw: Tensor) -> Tensor:
    """One token per location: (N, C, h, w) to (N, h*w, C)."""
    return map_NChw.flatten(2).transpose(1, 2)


def patches_of(map_NChw: Tensor, size: int) -> Tensor:
    """Square patches in raster order: (N, C, h, w) to (N, patches, size*size, C).

    Raises:
        ShapeError: the map does not divide into patches of this size.
    """
    n, c, h, w = map_NChw.shape
    if size < 1 or h % size or w % size:
        raise ShapeError(f"a feature map of {h}x{w} does not divide into patches of {size}x{size}")
    blocks = map_NChw.reshape(n, c, h // size, size, w // size, size)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(n, (h // size) * (w // size), size * size, c)


def deviation(values: Tensor, dim: int) -> Tensor:
    """The population standard deviation along `dim`, at least in float32 and smooth at zero."""
    values = at_least_float32(values)
    variance = (values - values.mean(dim=dim, keepdim=True)).square().mean(dim=dim)
    return torch.sqrt(variance + _VARIANCE_FLOOR)


def root_mean_square(map_NChw: Tensor) -> Tensor:
    """The root of the mean square of each channel, (N, 1, C), smooth at zero."""
    mean_square_N1C = at_least_float32(map_NChw).square().mean(dim=(2, 3)).unsqueeze(1)
    return torch.sqrt(mean_square_N1C + _VARIANCE_FLOOR).to(map_NChw.dtype)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision becomes float32; other values stay as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def statistic_names(layer: str, height: int, width: int) -> list[str]:
    """The means and deviations of a map of this size, of the whole map and of its patches.

    The map itself, with a token per location, is not among them: its sets of tokens are large. Nor are patches as large
    as the map, because they repeat the global keys.
    """
    names = [f"{layer}_mean", f"{layer}_std"]
    for size in PATCH_SIZES:
        if height % size == 0 and width % size == 0 and (height, width) != (size, size):
            names += [f"{layer}_mean_{size}", f"{layer}_std_{size}"]
    return names


def statistic(map_NChw: Tensor, suffix: str) -> Tensor:
    """One statistic of a map as (N, T, C). `suffix` is "", "mean", "std", "mean_<size>" or "std_<size>"."""
    if not suffix:
        return tokens_of(map_NChw)
    kind, _, size = suffix.partition("_")
    groups_NTSC = patches_of(map_NChw, int(size)) if size else tokens_of(map_NChw).unsqueeze(1)
    return groups_NTSC.mean(dim=2) if kind == "mean" else deviation(groups_NTSC, dim=2).to(map_NChw.dtype)
