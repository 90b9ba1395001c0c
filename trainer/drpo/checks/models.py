"""Are the files of the generator there and whole? Only configs and the headers of weight files are read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drpo.checks.hub import check_hub
from drpo.checks.plan import Plan
from drpo.errors import DrpoError
from drpo.shapes.embedded import generator_source
from drpo_rewards.findings import Finding

SETTING = "model.generator"
INDEX = "model_index.json"
PARTS = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
CONFIGS = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
"""The config of each part; of all others it is config.json."""
WEIGHTS = ("*.safetensors", "*.bin")


def check_models(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the generator."""
    try:
        source = generator_source(plan.config.model.generator)
    except DrpoError as error:
        yield Finding("models", SETTING, "wrong", str(error))
        return
    if not source:
        yield Finding("models", SETTING, "wrong", f"{SETTING} is empty", "give a diffusers folder or a hub id")
        return
    if os.path.isfile(source):
        yield Finding("models", SETTING, "wrong", f"{SETTING}: {source} is a file", "give the folder of the model")
        return
    folder = plan.generator_folder
    if folder is None:
        yield check_hub(SETTING, source)
        return
    problems = list(find_problems(folder))
    if problems and not os.path.isdir(source) and check_hub(SETTING, source).state == "ok":
        yield Finding("models", SETTING, "ok", f"the rest of {source} will be downloaded")
        return
    fix = "give a folder or hub id in diffusers' layout, with all of its files"
    for problem in problems:
        yield Finding("models", SETTING, "wrong", f"{SETTING}: {problem}", fix)
    if not problems:
        yield Finding("models", SETTING, "ok", f"{plan.config.model.generator}: the files of every part are whole")


def find_problems(folder: Path) -> Iterator[str]:
    """Yields what is missing or damaged in the folder of a diffusers pipeline."""
    try:
        index = _read_json(folder / INDEX)
    except ValueError as error:
        yield str(error)
        return
    if not str(index.get("_class_name", "")).startswith("StableDiffusion"):
        yield f"{folder / INDEX} is of a {index.get('_class_name')}, not of a pipeline in the layout of SD-Turbo"
        return
    named = [part for part, value in index.items() if isinstance(value, list) and any(value)]
    for part in PARTS:
        if part not in named:
            yield f"{folder / INDEX} names no {part}"
    for part in named:
        if part not in ("safety_checker", "feature_extractor", "image_encoder"):  # not loaded
            yield from _find_part_problems(folder / part, part)


def _find_part_problems(folder: Path, part: str) -> Iterator[str]:
    if not folder.is_dir():
        yield f"there is no folder {folder}, which {INDEX} names"
        return
    if part.startswith("tokenizer"):
        if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
            yield f"there is no tokenizer in {folder}: neither tokenizer.json nor vocab.json"
        return
    try:
        _read_json(folder / CONFIGS.get(part, "config.json"))
    except ValueError as error:
        yield str(error)
    if part != "scheduler":
        yield from _find_weight_problems(folder)


def _find_weight_problems(folder: Path) -> Iterator[str]:
    files = [file for pattern in WEIGHTS for file in sorted(folder.glob(pattern))]
    if not files:
        yield f"there are no weights (.safetensors) in {folder}"
    for index in sorted(folder.glob("*.index*.json")):
        try:
            shards = sorted(set(_read_json(index).get("weight_map", {}).values()))
        except ValueError as error:
            yield str(error)
            continue
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            yield f"{folder} has no {', '.join(missing)}, which {index.name} names"
    for file in files:
        if file.suffix == ".safetensors":
            try:
                read_shapes(file)
            except ValueError as error:
                yield str(error)


def read_shapes(file: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a safetensors file, from its header.

    Raises:
        ValueError: the file is empty, cut off, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise ValueError(f"{file} ({size} bytes) is damaged or no safetensors file: {error}") from None


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: there is no such file, or it does not hold an object.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no {file.name} in {file.parent}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold an object")
    return content
