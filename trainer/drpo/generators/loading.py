"""Load a diffusers pipeline from a folder or hub id: its files, and the variant to take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import list_repo_files, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from drpo.generators.configs import MODEL_INDEX, load_error, vae_error, vae_place

_UNUSED = {"safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False}
"""Parts of a pipeline that one-step generation never uses. They need no files."""

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>\w+))?(?P<shard>-\d+-of-\d+)?\.(?:safetensors|bin)"
    r"|(?:diffusion_pytorch_model|pytorch_model|model)\.(?:safetensors|bin)\.index(?:\.(?P<of>\w+))?\.json"
)
"""The names of weights: `model.safetensors`, `model.fp16.safetensors`, or shards with their index."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_VOCABULARY = ({"tokenizer.json"}, {"vocab.json", "merges.txt"})
_NO_LIMIT = 100_000
"""transformers gives a tokenizer without `model_max_length` a number above this; no text encoder takes as many."""


def load_pipeline(
    source: str, pipeline_class: Any, *, dtype: torch.dtype, variant: str | None = None, vae: str | None = None
) -> Any:
    """Loads all parts of a pipeline in one precision. `check_source` has found that its files are there.

    Args:
        source: a diffusers folder or hub id.
        pipeline_class: the diffusers class.
        dtype: of all parts.
        variant: which files to take, such as "fp16" for `model.fp16.safetensors`. None: the plain files; if a part has
            only files of a variant, that variant.
        vae: a folder or hub id of another VAE than the pipeline's.

    Raises:
        ModelLoadError: there is no such model, or some of its files are missing or damaged.
    """
    taken = variant or find_variant(list_files(source))
    parts = {name: value for name, value in _UNUSED.items() if name in signature(pipeline_class).parameters}
    if vae is not None:
        parts["vae"] = load_vae(vae, dtype)
    try:
        pipeline = pipeline_class.from_pretrained(source, dtype=dtype, variant=taken, **parts)
    except Exception as error:  # the libraries raise errors of a dozen kinds for files that are not what they should be
        raise load_error(source, error) from error
    for number in ("", "_2"):
        if hasattr(pipeline, f"tokenizer{number}"):
            _limit_prompts(source, pipeline, number)
    return pipeline


def load_vae(source: str, dtype: torch.dtype) -> AutoencoderKL:
    """Loads a VAE of its own.

    Args:
        source: its folder or hub id, or that of a pipeline which has it.
        dtype: of its weights.

    Raises:
        ModelLoadError: there is no such VAE, or its files are damaged.
    """
    place = vae_place(source)
    names = _files_of("vae", list_files(source)) if place else list_files(source)
    found = weights_by_variant({name for name in names if "/" not in name})
    variant = None if "" in found or not found else min(found)
    try:
        return AutoencoderKL.from_pretrained(source, dtype=dtype, variant=variant, **place)
    except Exception as error:  # as above
        raise vae_error(source, error) from error


def check_source(source: str, variant: str | None = None, *, without: tuple[str, ...] = ()) -> None:
    """Checks the files of a generator, if they are in a folder. The hub's library checks what it downloads.

    Args:
        source: a diffusers folder or hub id.
        variant: see `load_pipeline`.
        without: parts that are not loaded from there.

    Raises:
        ModelLoadError: something is missing or damaged; the message names each file.
    """
    if Path(source).is_dir():
        files = list_files(source)
        check_files(Path(source), files, variant or find_variant(files), without=without)


def list_files(source: str) -> set[str]:
    """The files of a folder or hub id, relative to it; those in the local cache if the hub does not answer."""
    folder = Path(source)
    if not folder.is_dir():
        try:
            return set(list_repo_files(source))
        except Exception:  # offline, or wrong; loading will say what is wrong
            cached = try_to_load_from_cache(source, MODEL_INDEX)
        if not isinstance(cached, str):
            return set()
        folder = Path(cached).parent
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def find_variant(files: set[str]) -> str | None:
    """The variant that all parts of a pipeline without plain weights have, "fp16" if there is a choice; else None."""
    parts = {part for part, _, name in (file.partition("/") for file in files) if name}
    variants = [set(weights_by_variant(_files_of(part, files))) for part in parts]
    only = [found for found in variants if found and "" not in found]
    common = set.intersection(*only) if only else set()
    return "fp16" if "fp16" in common else min(common, default=None)


def _files_of(part: str, files: set[str]) -> set[str]:
    return {file.removeprefix(f"{part}/") for file in files if file.startswith(f"{part}/")}


def check_files(folder: Path, files: set[str], variant: str | None, *, without: tuple[str, ...] = ()) -> None:
    """Checks that every part of a pipeline's folder has its files, and that its weights are whole.

    Args:
        folder: the folder.
        files: the names of its files, see `list_files`.
        variant: which weights to take; None: the plain ones.
        without: parts that are not needed.

    Raises:
        ModelLoadError: something is missing or damaged; the message names each file.
    """
    try:
        index = json.loads((folder / MODEL_INDEX).read_text(encoding="utf-8"))
        parts = {name: value for name, value in index.items() if isinstance(value, list) and any(value)}
    except (OSError, ValueError, AttributeError) as error:
        raise load_error(str(folder), f"{MODEL_INDEX}: {error}") from error
    problems = []
    variants = {name for part in parts for name in weights_by_variant(_files_of(part, files))} - {""}
    if variant and variant not in variants:
        only = ", ".join(sorted(variants)) or "plain ones"
        problems.append(f"no part has weights of the variant {variant}, only {only}")
    for part, (_, class_name) in sorted(parts.items()):
        if part in _UNUSED or part in without:
            continue
        own = _files_of(part, files)
        if not own:
            problems.append(f"{part}/ is missing or empty, although {MODEL_INDEX} names it")
        elif "CLIPTokenizer" in class_name:
            if not any(one <= own for one in _VOCABULARY):
                problems.append(f"{part}/ has neither tokenizer.json nor vocab.json and merges.txt")
        elif "Scheduler" in class_name:
            problems += [f"{part}/scheduler_config.json is missing"] * ("scheduler_config.json" not in own)
        else:
            problems += [f"{part}/config.json is missing"] * ("config.json" not in own)
            problems += _check_weights(folder / part, part, own, variant)
    if problems:
        raise load_error(str(folder), "; ".join(problems))


def _check_weights(folder: Path, part: str, files: set[str], variant: str | None) -> list[str]:
    """What is wrong with the weights of one part."""
    weights = weights_by_variant(files)
    found = weights.get(variant or "") or weights.get("", set())
    if not found:
        others = "".join(f", only of the variant {name}" for name in sorted(weights))
        return [f"{part}/ has no weights{f' of the variant {variant}' if variant else others}"]
    if all(_WEIGHTS.fullmatch(name)["shard"] for name in found):  # type: ignore[index]
        return [f"{part}/ has shards of weights, but their index (.index.json) is missing"]
    problems = []
    for name in sorted(found):
        try:
            if name.endswith(".json"):
                shards = set(json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values())
                problems += [f"{part}/{shard} is missing, although {name} names it" for shard in sorted(shards - files)]
            elif name.endswith(".safetensors"):
                with safe_open(folder / name, framework="pt"):  # reads the header, and compares it with the file's size
                    pass
        except (OSError, SafetensorError, ValueError, LookupError, AttributeError) as error:
            problems.append(f"{part}/{name} is cut or damaged ({error})")
    return problems


def weights_by_variant(files: set[str]) -> dict[str, set[str]]:
    """The files with weights in one part's folder, by their variant; "" stands for the plain files."""
    found: dict[str, set[str]] = {}
    for name in files:
        if match := _WEIGHTS.fullmatch(name):
            found.setdefault(match["variant"] or match["of"] or "", set()).add(name)
    return found


def _limit_prompts(source: str, pipeline: Any, number: str) -> None:
    """Sets the length of prompts that a tokenizer does not state to what its text encoder takes.

    Args:
        source: where the pipeline is from.
        pipeline: the pipeline.
        number: "" or "_2", for the first or second tokenizer.

    Raises:
        ModelLoadError: the text encoder takes fewer tokens than the tokenizer says.
    """
    tokenizer, encoder = getattr(pipeline, f"tokenizer{number}"), getattr(pipeline, f"text_encoder{number}")
    most = encoder.config.max_position_embeddings
    if tokenizer.model_max_length > _NO_LIMIT:
        tokenizer.model_max_length = most
    if tokenizer.model_max_length > most:
        raise load_error(
            source,
            f"tokenizer{number}/tokenizer_config.json has model_max_length {tokenizer.model_max_length}, but the text "
            f"encoder takes {most} tokens",
        )


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switches off the progress bars of both libraries while they load. The command line shows its own."""
    loggings = [module for module in (diffusers_logging, transformers_logging) if module.is_progress_bar_enabled()]
    for module in loggings:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in loggings:
            module.enable_progress_bar()
