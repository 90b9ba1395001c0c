"""Model files: found in a folder or on the hub, read without running anything in them, and loaded strictly.

A key that is missing, surplus or of another shape is a WeightsError that names the file and the first such keys. Loaded
any other way, a wrong file gives a model that is partly random, and scores that look fine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from drpo_rewards.errors import ConfigError, WeightsError

ModuleT = TypeVar("ModuleT", bound=nn.Module)

PRETRAINED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Constants that some releases of the libraries save beside the weights. They follow from the configuration.
_CONSTANTS = re.compile(r"(^|\.)(position_ids|relative_position_index|criterion\.empty_weight)$")
_FIRST = 3


def pick_device(device: str) -> torch.device:
    """`auto` is the first GPU where there is one. Raises ConfigError for a device that this machine lacks."""
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


def locate(model: str, *names: str) -> Path:
    """The first of `names` that there is in `model`: a folder, or a repository of the hub (then cached or downloaded).

    Raises WeightsError that says which file is missing where.
    """
    wanted = " or ".join(names)
    folder = Path(model).expanduser()
    if folder.is_dir():
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise WeightsError(f"there is no {wanted} in the folder {folder}")
        return found
    if not _HUB_ID.fullmatch(model):
        raise WeightsError(f"{model!r} is neither a folder here nor an id of the hub (owner/name)")
    return _from_hub(model, names)


def _from_hub(model: str, names: tuple[str, ...]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    offline: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(model, name))
        except LocalEntryNotFoundError as error:  # the hub cannot be reached, or may not be
            offline = error
        except EntryNotFoundError:  # the repository has no such file
            continue
        except Exception as error:  # a private repository, a wrong id, a full disk
            raise WeightsError(f"cannot fetch {name} of {model} from the hub: {error}") from error
    wanted = " or ".join(names)
    if offline is not None:
        raise WeightsError(
            f"{wanted} of {model} is not in the hub's cache on this machine, and the hub cannot be asked "
            f"({type(offline).__name__}). Fetch it where there is a network (`hf download {model}`), or give a folder"
        ) from offline
    raise WeightsError(f"the repository {model} has no {wanted}")


def read_tensors(path: Path, inside: str | None = None) -> dict[str, Tensor]:
    """The named tensors in a safetensors or torch file, on the CPU. `inside` is the key of a torch file's dict of them.

    Torch files are read with `weights_only=True`, so that nothing in them can run. Raises WeightsError.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
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
    module.load_state_dict({name: tensors[name] for name in expected if name in tensors}, strict=False)


def load_pretrained(cls: type[ModuleT], model: str, dtype: torch.dtype, **options: Any) -> ModuleT:
    """`cls.from_pretrained(model)` of transformers, as strict as `load_strictly`; in evaluation mode, on the CPU."""
    return _from_pretrained(cls, locate(model, *PRETRAINED), model, dtype, options)


def load_tokenizer(cls: Any, model: str, *names: str) -> Any:
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
    cls: type[ModuleT], path: Path, model: str | None, dtype: torch.dtype, options: Mapping[str, Any]
) -> ModuleT:
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
