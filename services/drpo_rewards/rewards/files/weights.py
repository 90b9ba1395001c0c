"""Model files: read without running anything in them, and loaded strictly.

A key that is missing, surplus or of another shape is a WeightsError that names the file and the first such keys. Loaded
any other way, a wrong file gives a model that is partly random, and scores that look fine.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from drpo_rewards.errors import ConfigError, WeightsError
from drpo_rewards.rewards.files import hub
from drpo_rewards.rewards.files.parts import Part

ModuleT = TypeVar("ModuleT", bound=nn.Module)

PRETRAINED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Constants that some releases of the libraries save beside the weights. They follow from the configuration.
_CONSTANTS = re.compile(r"(^|\.)(position_ids|relative_position_index|criterion\.empty_weight)$")
_FIRST = 3

_HEADERS_ONLY: ContextVar[bool] = ContextVar("headers_only", default=False)


@contextmanager
def headers_only() -> Iterator[None]:
    """Within it a reward is built from the headers of its files: every key and shape is checked, no number is read.

    What is built lies on torch's `meta` device and cannot score. Takes a second and no memory, whatever the size.
    """
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar

    token = _HEADERS_ONLY.set(True)
    disable_progress_bar()  # of weights that are not loaded
    try:
        yield
    finally:
        enable_progress_bar()
        _HEADERS_ONLY.reset(token)


def empty_modules() -> AbstractContextManager[Any]:
    """Modules made within it take no memory while only headers are read."""
    return torch.device("meta") if _HEADERS_ONLY.get() else nullcontext()


def pick_device(device: str) -> torch.device:
    """`auto` is the first GPU where there is one. Raises ConfigError for a device that this machine lacks."""
    if _HEADERS_ONLY.get():
        return torch.device("meta")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises an AssertionError
        raise ConfigError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device, on_gpu: str) -> torch.dtype:
    """`auto` is `on_gpu` on a GPU, what the model's authors score with, and float32 on a CPU."""
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else on_gpu
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; write auto or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def locate(model: str | Path, *names: str) -> Path:
    """The first of `names` that there is in `model`: a folder, or a repository of the hub (then cached or downloaded).

    Raises WeightsError that says which file is missing where.
    """
    one_of = Part("model", str(model), (tuple((name,) for name in names),), license="", gigabytes=0)
    folder = hub.find(one_of, one_of.repo)
    return next(folder / name for name in names if (folder / name).is_file())


def read_tensors(path: Path, inside: str | None = None) -> dict[str, Tensor]:
    """The named tensors in a safetensors or torch file, on the CPU. `inside` is the key of a torch file's dict of them.

    Torch files are read with `weights_only=True`, so that nothing in them can run. Raises WeightsError.
    """
    try:
        if path.suffix == ".safetensors":
            return _headers(path) if _HEADERS_ONLY.get() else load_file(path)
        content = _read_torch(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    except Exception as error:  # torch.load raises errors of many kinds for what is no file of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is no file of tensors that can be read safely: {reason}") from error
    if inside is not None:
        if not isinstance(content, dict) or not isinstance(content.get(inside), dict):
            raise WeightsError(f"{path} has no dict {inside!r} of tensors; this is another file")
        content = content[inside]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds no plain dict of tensors; this is another file")
    return dict(content)


def _read_torch(path: Path) -> Any:
    if not _HEADERS_ONLY.get():
        return torch.load(path, map_location="cpu", weights_only=True)
    # Files of torch's first years are no zip archives and cannot be read in part.
    return torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path))


def _headers(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill every parameter of `module` from `tensors`, in the module's dtype; raises WeightsError naming `path`."""
    expected = module.state_dict()
    check_keys(
        path,
        missing=expected.keys() - tensors.keys(),
        surplus=tensors.keys() - expected.keys(),
        misshaped={
            name: (tuple(tensors[name].shape), tuple(expected[name].shape))
            for name in expected.keys() & tensors.keys()
            if tensors[name].shape != expected[name].shape
        },
    )
    if not _HEADERS_ONLY.get():
        module.load_state_dict({name: tensors[name] for name in expected if name in tensors}, strict=False)


def load_pretrained(cls: type[ModuleT], model: str | Path, dtype: torch.dtype, **options: Any) -> ModuleT:
    """`cls.from_pretrained(model)` of transformers, as strict as `load_strictly`; in evaluation mode, on the CPU."""
    return _from_pretrained(cls, locate(model, *PRETRAINED), model, dtype, options)


def load_tokenizer(cls: Any, model: str | Path, *names: str) -> Any:
    """`cls.from_pretrained(model)`, where `model` (folder or repository) has one of `names`. Raises WeightsError."""
    path = locate(model, *names)
    try:
        return cls.from_pretrained(model)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"cannot read the tokenizer at {path}: {error}") from error


def build_pretrained(
    cls: type[ModuleT], config: Any, tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype
) -> ModuleT:
    """A model of transformers filled strictly with `tensors`, which came from `path`.

    Nothing is drawn at random first, which alone takes minutes for 8 billion parameters.
    """
    return _from_pretrained(cls, path, None, dtype, {"config": config, "state_dict": dict(tensors)})


def _from_pretrained(
    cls: type[ModuleT], path: Path, model: str | Path | None, dtype: torch.dtype, options: Mapping[str, Any]
) -> ModuleT:
    if _HEADERS_ONLY.get():
        options = {**options, "device_map": "meta"}
    try:
        module, info = cls.from_pretrained(  # type: ignore[attr-defined]
            model, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"cannot load {path} as {cls.__name__}: {error}") from error
    misshaped = {name: (tuple(found), tuple(needed)) for name, found, needed in info["mismatched_keys"]}
    check_keys(path, info["missing_keys"], info["unexpected_keys"], misshaped)
    return module.eval()


def check_keys(
    path: Path,
    missing: set[str],
    surplus: set[str],
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Raise WeightsError unless all are empty, constants that only some files carry left aside."""
    missing, surplus = ({name for name in names if not _CONSTANTS.search(name)} for names in (missing, surplus))
    wrong = []
    if missing:
        wrong.append(f"{len(missing)} missing ({_listed(missing)})")
    if surplus:
        wrong.append(f"{len(surplus)} surplus ({_listed(surplus)})")
    if misshaped:
        shapes = {f"{name} {list(found)}, not {list(needed)}" for name, (found, needed) in misshaped.items()}
        wrong.append(f"{len(misshaped)} of another shape ({_listed(shapes)})")
    if wrong:
        raise WeightsError(f"{path} does not fit the model; keys: {'; '.join(wrong)}")


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:_FIRST]) + (", ..." if len(names) > _FIRST else "")


def public_name(model: str) -> str:
    """What an answer may call a checkpoint: an id of the hub as it is, a folder or file without where it lies."""
    path = Path(model).expanduser()
    return path.name if path.exists() else model


def label(reward: str, model: str, dtype: torch.dtype) -> str:
    """A reward's version: its own, the model's name without the folder that it lies in, and the precision."""
    return f"{reward}/{Path(model).name}/{str(dtype).removeprefix('torch.')}"
