"""DINOv2 as a feature map over decoded images. `features.path` is `facebook/dinov2-base` or a folder in its layout.

Each of several layers gives the mean and the deviation of its patch tokens, and its class token, before the final
LayerNorm. The paper's Table 3b has a row for it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from drpo.generators.base import Layout
from drpo.method.features.base import FeatureContext, FeatureSettings, ListedFeatureMap
from drpo.method.features.vision import Preprocessor, check_transformer, layer_features, load_transformer


class DINOv2Settings(FeatureSettings):
    """Which features of DINOv2 are used.

    Example:
        features:
          name: dinov2
          path: facebook/dinov2-base
          options:
            keys: [layer12_patch_mean, layer12_cls]
    """

    keys: tuple[str, ...] = Field(
        default=tuple(f"layer{layer}_{kind}" for layer in (3, 6, 9, 12) for kind in ("patch_mean", "patch_std", "cls")),
        min_length=1,
        description="the features, such as [layer12_patch_mean, layer12_cls]",
    )


class DINOv2Features(ListedFeatureMap):
    """A frozen DINOv2 as a feature map over images.

    Args:
        source: a folder or hub id.
        settings: which features to compute; None: the defaults.
        device: where the model computes.
        dtype: of the model; images of another dtype are converted.
    """

    settings_class = DINOv2Settings
    weights = "files"

    def __init__(
        self,
        source: str | Path,
        settings: DINOv2Settings | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        from transformers import Dinov2Model

        self.settings = settings or DINOv2Settings()
        self.preprocess = Preprocessor(source)
        self.model = load_transformer(Dinov2Model, source).to(device=device, dtype=dtype)
        self.dtype = dtype

    @classmethod
    def check(cls, settings: DINOv2Settings, path: Path | None, layout: Layout | None) -> None:
        """See `ListedFeatureMap.check`."""
        from transformers import Dinov2Model

        check_transformer(Dinov2Model, settings.keys, path)

    def of_images(self, images_N3HW: Tensor, context: FeatureContext | None = None) -> dict[str, Tensor]:
        """The features {key: (N, T, D)} of images (N, 3, H, W), roughly in [-1, 1]."""
        pixels_N3HW = self.preprocess(images_N3HW.to(self.dtype))
        states = self.model(pixel_values=pixels_N3HW, output_hidden_states=True).hidden_states
        return layer_features(states, self.settings.keys)
