"""Arrays and tensors as pixels, without importing the library that a tensor comes from."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from drpo_rewards.errors import InvalidImageError

# How far beyond 0 and 1 a float may be. Generators in half precision overshoot by less.
TOLERANCE = 0.01


@runtime_checkable
class ArrayLike(Protocol):
    """An array of NumPy, or a tensor of PyTorch, JAX or another library."""

    @property
    def shape(self) -> Any:
        """The lengths of the axes."""
        ...

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Convert to NumPy."""
        ...


def is_array(value: object) -> TypeGuard[ArrayLike]:
    """Return whether a value is an array or a tensor. PIL images have `__array__` too, but no `shape`."""
    return isinstance(value, ArrayLike)


def to_pixels(array: ArrayLike, *, field: str = "image") -> np.ndarray:
    """Convert an array of one or several pictures to uint8, with the channels in the last axis.

    Args:
        array: uint8 from 0 to 255, or floats from 0 to 1, of any library; the channels are the last axis or the
            third from the end. A tensor may need a gradient, be on a GPU, and have half precision.
        field: names the array in errors.

    Returns:
        (H, W, 3) or (N, H, W, 3) uint8. Floats are rounded to the nearest level.

    Raises:
        InvalidImageError: its shape, type or values are others, or it has no values that can be read.
    """
    try:
        values = _to_numpy(array)
    except MemoryError:
        raise
    except Exception as error:  # of its library: it is sparse, say, or has no values yet
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidImageError(f"{field} cannot be converted to NumPy: {reason}", field=field) from error
    if values.ndim in (3, 4) and values.shape[-1] != 3 and values.shape[-3] == 3:
        values = np.moveaxis(values, -3, -1)
    floating = np.issubdtype(values.dtype, np.floating)
    if values.ndim not in (3, 4) or values.shape[-1] != 3 or not (floating or values.dtype == np.uint8):
        raise InvalidImageError(
            f"{field} is {values.dtype} {tuple(array.shape)}; give uint8 from 0 to 255 or floats from 0 to 1, "
            "(height, width, 3) or (3, height, width) for each image",
            field=field,
        )
    return _quantize(values, field) if floating else np.ascontiguousarray(values)


def _to_numpy(array: ArrayLike) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    tensor: Any = array
    if hasattr(tensor, "detach"):  # PyTorch's
        tensor = tensor.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
    values = np.asarray(tensor)
    # JAX's bfloat16 is a type of its own, which NumPy does not count among the floats.
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def _quantize(values: np.ndarray, field: str) -> np.ndarray:
    if not _is_in_range(values):
        if values.ndim == 4:  # name the first one of several
            index = next(index for index, one in enumerate(values) if not _is_in_range(one))
            values, field = values[index], f"{field}[{index}]"
        raise InvalidImageError(
            f"{field} has values from {values.min():.3g} to {values.max():.3g}; floats must be from 0 to 1", field=field
        )
    return np.ascontiguousarray(np.rint(np.clip(values, 0, 1).astype(np.float32) * 255).astype(np.uint8))


def _is_in_range(values: np.ndarray) -> bool:
    # NaN fails both comparisons.
    return not values.size or bool(values.min() >= -TOLERANCE and values.max() <= 1 + TOLERANCE)
