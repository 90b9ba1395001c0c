"""Strict loading of model files, without running any code in them.

A key that is missing, unexpected or of another shape is a WeightsError that names the file and the first such keys.
Without this check, a wrong file would give a model with random parts, whose scores look plausible.

With `headers_only=True` the loaders read only the headers of the files. They check every key and shape but read no
tensor. The resulting model is on torch's `meta` device and cannot score. This takes about a second and no memory,
whatever the model's size.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from drpo_rewards.errors import ConfigError, WeightsError
from drpo_rewards.rewards.files import hub
from drpo_rewards.rewards.files.model_files import ModelFiles

ModuleT = TypeVar("ModuleT", bound=nn.Module)

PRETRAINED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Constants that some releases of the libraries save with the weights. They follow from the configuration.
_CONSTANTS = re.compile(r"(^|\.)(position_ids|relative_position_index|criterion\.empty_weight)$")
_FIRST = 3  # keys that an error names


def empty_modules(headers_only: bool) -> AbstractContextManager[Any]:
    """Return a context in which new modules take no memory if only headers are read."""
    return torch.device("meta") if headers_only else nullcontext()


def pick_device(device: str, headers_only: bool = False) -> torch.device:
    """Return the torch device of this name; "auto" is the first GPU if there is one, otherwise the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    if headers_only:
        return torch.device("meta")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises an AssertionError
        raise ConfigError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device, on_gpu: str) -> torch.dtype:
    """Return the torch dtype of this name; "auto" is float32 on a CPU, and the authors' choice `on_gpu` on a GPU.

    Raises:
        ConfigError: there is no such dtype.
    """
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else on_gpu
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; write auto or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def locate(model: str | Path, *names: str) -> Path:
    """Find the first of `names` that exists in `model`, a folder or a repository. It is downloaded if needed.

    Raises:
        WeightsError: none of the files exists.
    """
    files = ModelFiles("model", str(model), (tuple((name,) for name in names),), license="", gigabytes=0)
    folder = hub.find(files, files.repo)
    return next(folder / name for name in names if (folder / name).is_file())


def read_tensors(path: Path, inside: str | None = None, headers_only: bool = False) -> dict[str, Tensor]:
    """Read the named tensors of a safetensors or torch file, onto the CPU.

    Torch files are read with `weights_only=True`, so no code in them can run.

    Args:
        path: the file.
        inside: the key of the dict of tensors in a torch file; None if the file is that dict itself.
        headers_only: read names and shapes only; the tensors are on the `meta` device.

    Raises:
        WeightsError: the file cannot be read, or does not hold tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_headers(path) if headers_only else load_file(path)
        content = _read_torch(path, headers_only)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    except Exception as error:  # torch.load raises many kinds of errors for files that it did not write
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is not a file of tensors that can be read safely: {reason}") from error
    if inside is not None:
        if not isinstance(content, dict) or not isinstance(content.get(inside), dict):
            raise WeightsError(f"{path} has no dict {inside!r} of tensors; it is a different file")
        content = content[inside]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} does not hold a plain dict of tensors; it is a different file")
    return dict(content)


def _read_torch(path: Path, headers_only: bool) -> Any:
    if not headers_only:
        return torch.load(path, map_location="cpu", weights_only=True)
    # Files of early torch versions are not zip archives and cannot be read in part.
    return torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path))


def _read_headers(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, headers_only: bool = False) -> None:
    """Fill every parameter of `module` from `tensors`, which came from `path`, in the module's dtype.

    With `headers_only` the keys and shapes are checked and nothing is filled.

    Raises:
        WeightsError: the keys or shapes do not fit.
    """
    expected = module.state_dict()
    check_keys(
        path,
        missing=expected.keys() - tensors.keys(),
        unexpected=tensors.keys() - expected.keys(),
        misshaped={
            name: (tuple(tensors[name].shape), tuple(expected[name].shape))
            for name in expected.keys() & tensors.keys()
            if tensors[name].shape != expected[name].shape
        },
    )
    if not headers_only:
        module.load_state_dict({name: tensors[name] for name in expected if name in tensors}, strict=False)


def load_pretrained(
    cls: type[ModuleT], model: str | Path, dtype: torch.dtype, headers_only: bool = False, **options: Any
) -> ModuleT:
    """Load a model of transformers as strictly as `load_strictly`, in evaluation mode, onto the CPU."""
    return _from_pretrained(cls, locate(model, *PRETRAINED), model, dtype, headers_only, options)


def load_tokenizer(cls: Any, model: str | Path, *names: str) -> Any:
    """Load a tokenizer of transformers, if the folder or repository `model` has one of the files `names`.

    Raises:
        WeightsError: no such file exists, or it cannot be read.
    """
    path = locate(model, *names)
    try:
        return cls.from_pretrained(model)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"cannot read the tokenizer at {path}: {error}") from error


def build_pretrained(
    cls: type[ModuleT],
    config: Any,
    tensors: Mapping[str, Tensor],
    path: Path,
    dtype: torch.dtype,
    headers_only: bool = False,
) -> ModuleT:
    """Build a model of transformers from `tensors`, which came from `path`, as strictly as `load_strictly`.

    Its parameters are not initialised at random first, which would take minutes for 8 billion of them.
    """
    options = {"config": config, "state_dict": dict(tensors)}
    return _from_pretrained(cls, path, None, dtype, headers_only, options)


def _from_pretrained(
    cls: type[ModuleT],
    path: Path,
    model: str | Path | None,
    dtype: torch.dtype,
    headers_only: bool,
    options: Mapping[str, Any],
) -> ModuleT:
    hidden = headers_only and is_progress_bar_enabled()  # it would show weights that are not loaded
    if hidden:
        disable_progress_bar()
    if headers_only:
        options = {**options, "device_map": "meta"}
    try:
        module, info = cls.from_pretrained(  # type: ignore[attr-defined]
            model, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"cannot load {path} as {cls.__name__}: {error}") from error
    finally:
        if hidden:
            enable_progress_bar()
    misshaped = {name: (tuple(actual), tuple(expected)) for name, actual, expected in info["mismatched_keys"]}
    check_keys(path, info["missing_keys"], info["unexpected_keys"], misshaped)
    return module.eval()


def check_keys(
    path: Path,
    missing: set[str],
    unexpected: set[str],
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Check that the keys of a file fit a model. Constants that only some files have are ignored.

    Args:
        path: the file.
        missing: keys that the model has and the file lacks.
        unexpected: keys that only the file has.
        misshaped: keys with the file's shape and the model's shape, where the two differ.

    Raises:
        WeightsError: any of the three is not empty.
    """
    missing, unexpected = ({name for name in names if not _CONSTANTS.search(name)} for names in (missing, unexpected))
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({_first_names(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({_first_names(unexpected)})")
    if misshaped:
        shapes = {f"{name} {list(actual)}, not {list(expected)}" for name, (actual, expected) in misshaped.items()}
        problems.append(f"{len(misshaped)} of another shape ({_first_names(shapes)})")
    if problems:
        raise WeightsError(f"{path} does not fit the model; keys: {'; '.join(problems)}")


def _first_names(names: set[str]) -> str:
    return ", ".join(sorted(names)[:_FIRST]) + (", ..." if len(names) > _FIRST else "")


def public_name(model: str) -> str:
    """Return the name of a checkpoint for callers: a hub id unchanged, a folder or file without its path."""
    path = Path(model).expanduser()
    return path.name if path.exists() else model


def version_label(reward: str, model: str, dtype: torch.dtype) -> str:
    """Make the `version` of a reward that has a model.

    It joins the reward's own version, the model's name without its folder, and the precision, e.g.
    "clip-1/clip-vit-large-patch14/float16".
    """
    return f"{reward}/{Path(model).name}/{str(dtype).removeprefix('torch.')}"
