"""One-step generators: one file and one line in `LAYOUTS` per layout of a model.

Files:
    base           the interface of a generator and of its adapter, and what an encoded prompt is
    one_step       what the layouts share: loading, one Euler step, the VAE
    sd_turbo       the SD-Turbo layout
    sdxl_turbo     the SDXL-Turbo layout
    requirements   what a model must have to be of a layout
    configs        a pipeline without its weights
    loading        which files of a generator there are, which are missing, and which variant to take
    adapter        the LoRA adapter on a U-Net
    adapter_file   reads the adapters of diffusers, peft and kohya
    export         writes adapters for other programs, and merged pipelines
    whole          the whole U-Net as what is trained
    unet_file      reads the weights of a whole U-Net
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drpo.config import LoraConfig
from drpo.errors import ConfigError, UnsupportedModelError
from drpo.generators.base import Adapter, Conditions, OneStepGenerator

if TYPE_CHECKING:
    import torch

LAYOUTS = {
    "StableDiffusionPipeline": "drpo.generators.sd_turbo:SDTurboGenerator",
    "StableDiffusionXLPipeline": "drpo.generators.sdxl_turbo:SDXLTurboGenerator",
}
"""The generator of each pipeline class of diffusers, which a model's `model_index.json` names."""


def load_generator(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    lora: LoraConfig | None = None,
    whole: bool = False,
    gradient_checkpointing: bool = False,
    variant: str | None = None,
    vae: str | None = None,
    unet: str | None = None,
) -> OneStepGenerator:
    """Loads a generator, with a fresh adapter if `lora` or `whole` asks for one.

    Args:
        source: a diffusers folder or hub id in one of the `LAYOUTS`.
        device: where the generator computes.
        dtype: of everything that is frozen; None: float32.
        lora: settings of a LoRA adapter.
        whole: train the U-Net itself. With neither `lora` nor `whole`, nothing is trained.
        gradient_checkpointing: the backward pass needs less memory and more time.
        variant: which files to take, such as "fp16"; None: the plain files, or the only variant that is there.
        vae: a folder or hub id of another VAE than the pipeline's.
        unet: another U-Net than the pipeline's: a folder or file.

    Raises:
        ModelLoadError: there is no such model, or some of its files are missing or damaged.
        UnsupportedModelError: the model has another layout.
    """
    import torch

    return generator_class(source).load(
        source,
        device=device,
        dtype=dtype or torch.float32,
        lora=lora,
        whole=whole,
        gradient_checkpointing=gradient_checkpointing,
        variant=variant,
        vae=vae,
        unet=unet,
    )


def generator_class(source: str | Path) -> Any:
    """The class of a generator, from its folder or hub id.

    Raises:
        ModelLoadError: there is no such model.
        UnsupportedModelError: its pipeline is of no layout in `LAYOUTS`.
    """
    from drpo.generators.configs import read_index

    found = read_index(str(source))["_class_name"]
    if found not in LAYOUTS:
        raise UnsupportedModelError(
            f"{str(source)!r} is not a one-step generator: its pipeline is {found}, and only {' and '.join(LAYOUTS)} "
            "are supported, such as stabilityai/sd-turbo and stabilityai/sdxl-turbo"
        )
    module, _, name = LAYOUTS[found].partition(":")
    return getattr(import_module(module), name)


def check_generator(source: str | Path, *, variant: str | None = None, vae: str | None = None) -> None:
    """Checks the files and the layout of a generator, without loading its weights.

    Args:
        source, variant, vae: see `load_generator`.

    Raises:
        ModelLoadError, UnsupportedModelError: see `load_generator`.
    """
    from drpo.generators.loading import check_source

    requirements = generator_class(source).requirements
    check_source(str(source), variant, without=() if vae is None else ("vae",))
    requirements.check(str(source), vae)


def find_adapter(path: str | Path) -> Path | None:
    """The file of a LoRA adapter, or the file or folder of a whole U-Net: `path` itself, or in that folder.

    Raises:
        ModelLoadError: the folder has several files, and none has a usual name.
    """
    from drpo.generators.adapter_file import find_adapter_file
    from drpo.generators.unet_file import find_unet

    return find_unet(Path(path)) or find_adapter_file(Path(path))


def check_adapter(path: str | Path, source: str | Path) -> None:
    """Checks that an adapter fits a generator, without loading the generator's weights.

    Args:
        path: a LoRA adapter or a whole U-Net: its file or folder.
        source: the generator's diffusers folder or hub id.

    Raises:
        ModelLoadError, UnsupportedModelError: see `drpo.generators.adapter_file` and `drpo.generators.unet_file`.
    """
    from drpo.generators.adapter_file import read_adapter
    from drpo.generators.configs import read_unet
    from drpo.generators.unet_file import check_unet, find_unet

    unet = read_unet(str(source))
    if find_unet(Path(path)) is None:
        read_adapter(Path(path), unet)
    else:
        check_unet(Path(path), unet)


def check_lora(lora: LoraConfig, source: str | Path) -> None:
    """Checks that a fresh adapter fits a generator, without loading the generator's weights.

    Raises:
        ConfigError: its rank is more than any layer can use, or see `drpo.generators.adapter.LoraAdapter`.
        ModelLoadError: there is no such generator.
    """
    import torch

    from drpo.generators.adapter import LoraAdapter
    from drpo.generators.configs import read_unet

    with torch.device("meta"):  # without memory
        most = LoraAdapter(read_unet(str(source)), lora, pipeline_class=None).most_rank()
    if lora.rank > most:
        raise ConfigError(f"lora.rank is {lora.rank}, but no layer that gets an update can use more than {most}")


__all__ = [
    "LAYOUTS",
    "Adapter",
    "Conditions",
    "OneStepGenerator",
    "check_adapter",
    "check_generator",
    "check_lora",
    "find_adapter",
    "generator_class",
    "load_generator",
]
