"""The LoRA adapter on a U-Net: add it, switch it off, save and load it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig as PeftConfig
from peft import get_peft_model_state_dict
from torch import Tensor, nn

from drpo.config import LoraConfig
from drpo.errors import ConfigError, ModelLoadError
from drpo.generators.adapter_file import LayerUpdate, read_adapter
from drpo_rewards.api.suggestions import did_you_mean

_NAME = "default"


class LoraAdapter:
    """The adapter of a U-Net: a fresh one if `lora` is given, else none until one is loaded.

    The adapter's weights stay in float32, whatever the dtype of the U-Net. Each update is a product of two factors. In
    a fresh adapter the first is random (from torch's global random generator) and the second 0, so it changes nothing.

    Args:
        unet: the frozen U-Net of a diffusers pipeline.
        lora: settings of a fresh adapter; None: no adapter yet.
        pipeline_class: the diffusers class that writes the adapter.

    Raises:
        ConfigError: a name in `lora.target_modules` is that of no layer, or of one that takes no update.
    """

    def __init__(self, unet: Any, lora: LoraConfig | None, pipeline_class: Any) -> None:
        self._unet = unet
        self._pipeline_class = pipeline_class
        self.present = False
        if lora is not None:
            _check_targets(unet, lora.target_modules)
            alpha: Any = lora.rank if lora.alpha is None else lora.alpha  # see `load`
            self._add(PeftConfig(r=lora.rank, lora_alpha=alpha, target_modules=list(lora.target_modules)))

    def parameters(self) -> list[nn.Parameter]:
        """The weights in a fixed order; an empty list if there is no adapter."""
        return [parameter for name, parameter in self._unet.named_parameters() if ".lora_" in name]

    def predict(self, latents_NChw: Tensor, timestep: Tensor | int, **arguments: Any) -> Any:
        """Calls the U-Net, with the adapter if it is there and on."""
        return self._unet(latents_NChw, timestep, **arguments)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Within this block the U-Net computes as without the adapter."""
        if not self.present:
            yield
            return
        self._unet.disable_adapters()
        try:
            yield
        finally:
            self._unet.enable_adapters()

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU, by name."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._weights().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copies the weights in `state` into the adapter in place, so that its optimizer stays valid.

        Raises:
            ModelLoadError: the weights are of an adapter with another rank or on other layers.
        """
        weights = self._weights()
        if {name: one.shape for name, one in state.items()} != {name: one.shape for name, one in weights.items()}:
            raise ModelLoadError(
                f"the weights are of an adapter with another rank or on other layers; this generator's adapter has "
                f"rank {self._config().r} on {sorted(self._config().target_modules)}"
            )
        for name, weight in weights.items():
            weight.copy_(state[name])

    def save(self, folder: str | Path) -> None:
        """Writes the weights as diffusers does; `pipeline.load_lora_weights(folder)` reads them."""
        # The names stay peft's: diffusers' older ones exist for attention layers only, and it cannot read a mixture.
        self._pipeline_class.save_lora_weights(
            folder, unet_lora_layers=self.state(), unet_lora_adapter_metadata=self._config().to_dict()
        )

    def updates(self) -> dict[str, LayerUpdate]:
        """What the adapter adds to each layer, by the layer's name, on the CPU."""
        self._check_present()
        found = {}
        for name, layer in self._unet.named_modules():
            if _NAME in getattr(layer, "lora_A", {}):
                down, up = (getattr(layer, factor)[_NAME].weight.detach().cpu() for factor in ("lora_A", "lora_B"))
                found[name] = LayerUpdate(down, up, layer.scaling[_NAME] * down.shape[0])
        return found

    def most_rank(self) -> int:
        """The highest rank that any of its layers can use: an update has at most the rank of the layer itself."""
        layers = [layer for layer in self._unet.modules() if _NAME in getattr(layer, "lora_A", {})]
        return max(min(layer.base_layer.weight.flatten(1).shape) for layer in layers)

    def base_weights(self) -> dict[str, Tensor]:
        """The weights of the U-Net without the adapter, by the names that they have without one, on the CPU."""
        weights = {name.replace(".base_layer.", "."): one for name, one in self._unet.named_parameters()}
        return {name: one.detach().cpu() for name, one in weights.items() if ".lora_" not in name}

    def peft_config(self) -> PeftConfig:
        """The settings of the adapter, as peft keeps them."""
        self._check_present()
        return self._config()

    def load(self, path: str | Path) -> None:
        """Loads a LoRA adapter of any rank from a file or folder, see `drpo.generators.adapter_file`.

        It replaces the adapter that is there. The new weights are new parameters, so make an optimizer afterwards.

        Raises:
            ModelLoadError: there is no adapter, it is damaged, or it does not fit the U-Net. Nothing has changed.
            UnsupportedModelError: it is an adapter of another kind. Nothing has changed.
        """
        updates = read_adapter(Path(path), self._unet)
        self.remove()
        ranks = {name: one.rank for name, one in updates.items()}
        alphas = {name: one.alpha for name, one in updates.items()}
        rank, alpha = statistics.mode(ranks.values()), statistics.mode(alphas.values())
        settings: dict[str, Any] = {  # peft's type hint of alpha is int, but any number works
            "lora_alpha": alpha,
            "rank_pattern": {_exactly(name): one for name, one in ranks.items() if one != rank},
            "alpha_pattern": {_exactly(name): one for name, one in alphas.items() if one != alpha},
        }
        self._add(PeftConfig(r=rank, target_modules=list(updates), **settings))
        state = {f"{name}.lora_A.weight": one.down for name, one in updates.items()}
        state |= {f"{name}.lora_B.weight": one.up for name, one in updates.items()}
        self.load_state(state)

    def remove(self) -> None:
        """Removes the adapter, if there is one."""
        if self.present:
            self._unet.unload_lora()
        self.present = False

    def _add(self, config: PeftConfig) -> None:
        self._unet.add_adapter(config, adapter_name=_NAME)
        self.present = True
        for parameter in self.parameters():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)

    def _weights(self) -> dict[str, Tensor]:
        """The weights themselves, by peft's names, without their gradients."""
        self._check_present()
        weights = get_peft_model_state_dict(self._unet, adapter_name=_NAME)
        return {name: weight.detach() for name, weight in weights.items()}

    def _config(self) -> Any:
        return self._unet.peft_config[_NAME]

    def _check_present(self) -> None:
        if not self.present:
            raise ConfigError(
                "this generator has no adapter: load the generator with lora=LoraConfig(), or call adapter.load(folder)"
            )


def _check_targets(unet: nn.Module, targets: Sequence[str]) -> None:
    """Checks that each name selects layers of a U-Net, and only such as take an update. Peft ignores unknown names."""
    layers = dict(unet.named_modules())
    fitting = {name for name, layer in layers.items() if isinstance(layer, nn.Linear | nn.Conv2d)}
    ends = {".".join(name.split(".")[-length:]) for name in fitting for length in (1, 2)}
    for target in targets:
        selected = {name for name in layers if name == target or name.endswith(f".{target}")}
        problem = f"no layer of the U-Net has a name that ends with {target!r}" if not selected else ""
        for name in sorted(selected - fitting):
            problem = f"{name}, which {target!r} selects, takes no update (it is a {type(layers[name]).__name__})"
        if problem:
            raise ConfigError(f"lora.target_modules: {problem}{did_you_mean(target, sorted(ends))}")


def _exactly(layer: str) -> str:
    """The pattern by which peft finds this layer alone; without the anchor it would also match longer names."""
    return f"^{re.escape(layer)}"
