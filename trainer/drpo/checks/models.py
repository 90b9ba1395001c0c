"""Is the generator of a known layout, with whole files? Only configs and the headers of weight files are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from drpo.checks.hub import check_hub
from drpo.checks.plan import Plan
from drpo.config import LoraConfig
from drpo.errors import DrpoError
from drpo.shapes.embedded import generator_source
from drpo_rewards.findings import Finding

SETTING = "model.generator"


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
    if folder is None and not plan.starts_ray and plan.trains and not plan.evaluates:
        yield Finding("models", SETTING, "skipped", f"{source} is not on this machine; the workers' machines need it")
        return
    if folder is None:
        yield check_hub(SETTING, source)
        return
    settings = plan.config.model
    if settings.vae and not os.path.isdir(settings.vae):
        yield check_hub("model.vae", settings.vae)
    problem = _find_problem(folder, settings.variant, plan.local_vae)
    if problem and not os.path.isdir(source) and check_hub(SETTING, source).state == "ok":
        yield Finding("models", SETTING, "ok", f"the rest of {source} will be downloaded")
    elif problem:
        yield Finding("models", SETTING, "wrong", f"{SETTING}: {problem}")
    else:
        yield Finding("models", SETTING, "ok", f"{plan.config.model.generator}: the files of every part are whole")
        if plan.trains and plan.config.lora is not None:
            yield from _check_lora(plan.config.lora, folder, is_new=plan.run_dir is None)
        if settings.unet is not None:
            yield _check_unet(settings.unet, folder)
        if plan.adapter is not None:
            yield _check_adapter(plan.adapter, folder)


def _find_problem(folder: Path, variant: str | None, vae: str | None) -> str:
    """What is missing, damaged or unsupported in the folder of a pipeline; "" if nothing is."""
    from drpo.generators import check_generator

    try:
        check_generator(folder, variant=variant, vae=vae)
    except DrpoError as error:
        return str(error)
    return ""


def _check_lora(lora: LoraConfig, generator: Path, *, is_new: bool) -> Iterator[Finding]:
    from drpo.generators import check_adapter, check_lora
    from drpo.training.build import start_of

    setting = "lora" if lora.adapter is None else "lora.adapter"
    try:
        start = start_of(lora)
        if start is None:
            if is_new:  # a run that goes on has trained this adapter already
                check_lora(lora, generator)
            return
        check_adapter(start, generator)
    except DrpoError as error:
        yield Finding("models", setting, "wrong", f"{setting}: {error}" if lora.adapter is not None else str(error))
    else:
        yield Finding("models", setting, "ok", f"{start} fits the generator")


def _check_unet(path: str, generator: Path) -> Finding:
    from drpo.generators.configs import read_unet
    from drpo.generators.unet_file import check_unet

    try:
        check_unet(Path(path), read_unet(str(generator)))
    except DrpoError as error:
        return Finding("models", "model.unet", "wrong", f"model.unet: {error}")
    return Finding("models", "model.unet", "ok", f"{path} fits the generator")


def _check_adapter(adapter: Path, generator: Path) -> Finding:
    from drpo.generators import check_adapter

    try:
        check_adapter(adapter, generator)
    except DrpoError as error:
        return Finding("models", "--adapter", "wrong", f"--adapter: {error}")
    return Finding("models", "--adapter", "ok", f"{adapter} fits the generator")
