"""The whole U-Net as what is trained, beside a frozen copy as the reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drpo.errors import ModelLoadError
from drpo.generators.unet_file import FOLDER, read_unet_weights


class WholeUNet:
    """A copy of the U-Net in place of a frozen one, with the interface of an adapter.

    Weights to train are in float32. If the frozen U-Net has 16 bits, the copy computes with 16 bits too (autocast), so
    its output differs from that of the frozen one by rounding, even before the first step.

    Args:
        unet: the frozen U-Net of a pipeline. It stays as it is.
        trainable: whether the copy is to be trained; otherwise it has the dtype of the frozen one.

    Attributes:
        network: the copy.
    """

    def __init__(self, unet: Any, *, trainable: bool = True) -> None:
        self._frozen = unet
        self.network = copy.deepcopy(unet).requires_grad_(trainable)
        if trainable:
            self.network.float()
        self._on = True

    def parameters(self) -> list[nn.Parameter]:
        """The weights in a fixed order."""
        return list(self.network.parameters())

    def predict(self, latents_NChw: Tensor, timestep: Tensor | int, **arguments: Any) -> Any:
        """Calls the trained U-Net, or within `switched_off` the frozen one."""
        if not self._on:
            return self._frozen(latents_NChw, timestep, **arguments)
        if self.network.dtype == latents_NChw.dtype:
            return self.network(latents_NChw, timestep, **arguments)
        with torch.autocast(latents_NChw.device.type, dtype=latents_NChw.dtype):
            return self.network(latents_NChw, timestep, **arguments)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Within this block the frozen U-Net computes."""
        earlier, self._on = self._on, False
        try:
            yield
        finally:
            self._on = earlier

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU, by name."""
        return {name: one.detach().to("cpu", copy=True) for name, one in self.network.named_parameters()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copies the weights in `state` into the U-Net in place, so that its optimizer stays valid.

        Raises:
            ModelLoadError: the weights are of another U-Net, or of a LoRA adapter.
        """
        parameters = dict(self.network.named_parameters())
        if {name: one.shape for name, one in state.items()} != {name: one.shape for name, one in parameters.items()}:
            raise ModelLoadError(
                f"the weights are not those of this generator's whole U-Net: {len(state.keys() & parameters.keys())} "
                f"of its {len(parameters)} tensors are there"
            )
        for name, parameter in parameters.items():
            parameter.copy_(state[name])

    def save(self, folder: str | Path) -> None:
        """Writes `FOLDER/unet/` as diffusers does; `UNet2DConditionModel.from_pretrained` reads it."""
        self.network.save_pretrained(Path(folder) / FOLDER)

    def load(self, path: str | Path) -> None:
        """Replaces the weights by those of a file or folder, see `drpo.generators.unet_file`, in place.

        Raises:
            ModelLoadError: there are none, they are damaged, or they do not fit. Nothing has changed.
        """
        self.load_state(read_unet_weights(Path(path), self._frozen))
