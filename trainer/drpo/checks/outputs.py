"""Can everything be written that the start will write, and is there room for it?"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from drpo.checks.plan import Plan
from drpo.errors import DrpoError
from drpo.training.run_folder import CHECKPOINTS, COMPARISON_FILE, CONFIG_FILE, SUMMARY_FILE
from drpo_rewards.findings import Finding

OTHERS_GB = 0.2
"""Room for everything of a run but its checkpoints: pictures, metrics, the report."""
MOST_NAME = 255
"""The most bytes of a file's name, on all common file systems."""


def check_outputs(plan: Plan) -> Iterator[Finding]:
    """Yields what is found about the files that will be written."""
    if plan.trains:
        yield from _check_run(plan)
    if plan.out is not None:
        yield from _check_out(plan, plan.out)


def _check_run(plan: Plan) -> Iterator[Finding]:
    run = plan.config.run
    target = plan.run_dir or run.folder / (run.name or plan.config.preset)
    problem, fix = find_obstacle(target), "choose another folder"
    if plan.run_dir is not None:  # a run that goes on writes into a folder of its own
        problem, fix = problem or find_obstacle(target / CHECKPOINTS), "let this user write there"
    if problem:
        yield Finding("outputs", "run.folder", "wrong", f"run.folder: {problem}", fix)
        return
    if plan.run_dir is None and run.name is None and ("/" in plan.config.preset or "\0" in plan.config.preset):
        found = f"preset: {plan.config.preset!r} is part of the name of the run's folder, and no folder can have it"
        yield Finding("outputs", "preset", "wrong", found, "set run.name, or another name of the preset")
        return
    if plan.run_dir is None and run.name is not None and os.path.lexists(target):
        fix = f"choose another name, or continue that run with --resume {target}"
        yield Finding("outputs", "run.name", "wrong", f"run.name: {target} exists", fix)
        return
    cache = plan.config.offline.cache if plan.config.offline is not None else None
    if cache is not None and (problem := find_obstacle(cache)):
        yield Finding("outputs", "offline.cache", "wrong", f"offline.cache: {problem}", "choose another folder")
    yield _check_room(plan, target)
    if plan.config.offline is not None:
        yield from _check_cache_room(plan)


def _check_cache_room(plan: Plan) -> Iterator[Finding]:
    """Yields whether the encoded preferences fit on the disk, if their number and the generator are known."""
    from drpo.data.preferences import find_preference_source
    from drpo.data.preferences.cache import BYTES_PER_NUMBER, find_cache_folder

    settings = plan.config.offline
    assert settings is not None
    try:
        images = find_preference_source(settings.source).count_images(settings)
    except DrpoError:  # a finding about the prompts
        return
    if images is None or plan.layout is None:
        return
    folder = Path(os.path.abspath(find_cache_folder(plan.config)))
    there = sum(file.stat().st_size for file in folder.rglob("*.safetensors")) if folder.is_dir() else 0
    needed_gb = max(0, images * math.prod(plan.layout.latent_shape) * BYTES_PER_NUMBER - there) / 1e9
    free_gb = shutil.disk_usage(_existing_parent(folder)).free / 1e9
    found = f"up to {needed_gb:.1f} GB needed for the latents of {images} images, {free_gb:.1f} GB free in {folder}"
    if needed_gb <= free_gb:
        yield Finding("outputs", "offline.cache", "ok", found)
        return
    fix = "free some, or choose another offline.cache"
    yield Finding("outputs", "offline.cache", "wrong", f"offline.cache: {found}", fix)


def _check_room(plan: Plan, target: Path) -> Finding:
    free_gb = shutil.disk_usage(_existing_parent(Path(os.path.abspath(target)))).free / 1e9
    training = plan.config.training
    parameters = _count_parameters(plan)
    # Each has the adapter, its two means in AdamW, and the adapter again as a file. One more is there while it is
    # written, and the newest adapter is there once more.
    copies = 5 if training.ema is not None else 4
    needed_gb = OTHERS_GB + (training.keep_checkpoints + 2) * parameters * copies * 4 / 1e9
    found = f"{needed_gb:.1f} GB needed for {training.keep_checkpoints} checkpoints and the rest, {free_gb:.1f} GB free"
    if needed_gb <= free_gb:
        return Finding("outputs", "run.folder", "ok", f"{found} in {target.parent}")
    fix = "free some, choose another run.folder, or lower training.keep_checkpoints or lora.rank"
    return Finding("outputs", "run.folder", "wrong", f"run.folder: {found} in {target.parent}", fix)


def _count_parameters(plan: Plan) -> int:
    """The parameters that are trained, from the shapes of the U-Net's layers; 0 if these are not on this machine."""
    if plan.generator_folder is None:
        return 0
    lora, layers = plan.config.lora, dict[str, list[int]]()
    for file in (plan.generator_folder / "unet").glob("*.safetensors"):
        try:
            layers |= _read_shapes(file)
        except ValueError:  # a finding about the models
            continue
    if lora is None:
        return sum(math.prod(shape) for shape in layers.values())
    total = 0
    for name, shape in layers.items():
        layer = name.removesuffix(".weight")
        if layer != name and any(layer == end or layer.endswith(f".{end}") for end in lora.target_modules):
            total += lora.rank * (shape[0] + (shape[1] if len(shape) > 1 else 1))
    return total


def _read_shapes(file: Path) -> dict[str, list[int]]:
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


def _check_out(plan: Plan, out: Path) -> Iterator[Finding]:
    problem = find_picture_obstacle(out) if plan.verb == "sample" else find_file_obstacle(out)
    if problem:
        yield Finding("outputs", "--out", "wrong", f"--out: {problem}", "give the file to write")
    else:
        yield Finding("outputs", "--out", "ok", str(out))


def find_picture_obstacle(out: Path) -> str:
    """Why no picture can be written as a file; "" if it can."""
    problem = find_file_obstacle(out)
    if not problem and (problem := _find_format_problem(out)):
        return f"no picture can be written as {out.name} ({problem}); end the name in .png, .jpg or .webp"
    return problem


def find_file_obstacle(out: Path) -> str:
    """Why a file cannot be written; "" if it can."""
    return f"{out} is a folder" if os.path.isdir(out) else find_obstacle(out)


def find_results_obstacle(out: Path, key: str) -> str:
    """Why results cannot be written as a JSON file; "" if they can. They replace earlier ones, but no other file.

    Args:
        out: the file.
        key: what results of this kind have, and other files have not.
    """
    if problem := find_file_obstacle(out):
        return problem
    if not out.is_file() or not out.stat().st_size:  # also a device or a pipe, which takes all
        return ""
    if out.name in (COMPARISON_FILE, SUMMARY_FILE) and (out.parent / CONFIG_FILE).is_file():
        return f"{out} is a file of a run"
    try:
        content = out.read_bytes()
        there = json.loads(gzip.decompress(content) if out.suffix == ".gz" else content)
    except (OSError, ValueError, RecursionError, EOFError, zlib.error):
        there = None
    return "" if isinstance(there, dict) and key in there else f"{out} exists, and is no file of such results"


def find_folder_obstacle(out: Path) -> str:
    """Why nothing can be written into a folder, or it cannot be made; "" if it can."""
    return f"{out} is a file, not a folder" if os.path.isfile(out) else find_obstacle(out)


def _find_format_problem(out: Path) -> str:
    """Why Pillow cannot write a picture under this name; "" if it can. Tried out in memory."""
    from PIL import Image

    Image.init()
    kind = Image.registered_extensions().get(out.suffix.lower())
    if kind is None:
        return "no format has this ending"
    try:
        Image.new("RGB", (64, 64)).save(io.BytesIO(), kind)
    except (OSError, KeyError, ValueError) as error:
        return f"{kind}: {error}"
    return ""


def find_obstacle(path: Path) -> str:
    """Why a file or folder cannot be written or made at a path; "" if it can."""
    if "\0" in str(path):
        return f"{str(path)!r} has a null character"
    long = [part for part in path.parts if len(os.fsencode(part)) > MOST_NAME]
    if long:
        return f"the name {long[0][:40]}... has more than {MOST_NAME} bytes"
    path = Path(os.path.abspath(path))
    try:
        parent = _existing_parent(path)
    except OSError as error:
        return f"{path} cannot be used: {error.strerror}"
    if parent != path and not parent.is_dir():
        return f"{parent} is a file, so {path} cannot be made"
    if not os.access(parent, os.W_OK | (os.X_OK if parent.is_dir() else 0)):
        return f"{parent} cannot be written by this user"
    if parent.is_dir():
        try:
            with tempfile.TemporaryFile(dir=parent):  # some file systems, such as /proc, hold no files of ours
                pass
        except OSError as error:
            return f"no file can be made in {parent}: {error.strerror}"
    return ""


def _existing_parent(path: Path) -> Path:
    """An absolute path itself, or the nearest of its parents that exists."""
    for candidate in (path, *path.parents):
        try:
            os.stat(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return candidate
    return Path("/")
