"""A masked autoencoder over images (ViT-MAE) as a feature map, the paper's choice for SDXL-Turbo.

`features.path` is `facebook/vit-mae-base` or a folder in its layout. The features are the mean and the deviation of the
last layer's patch tokens, and its class token, before the final LayerNorm.

The model hides a share of the patches from itself. Two published variants differ in that:

paper      Nothing is hidden, as for a feature map of whole images. If `mask_ratio` is set, the same patches are hidden
           in every call of an optimizer step, so that features of one image are equal.
released   The authors' trainer leaves the model's mask as it is: 75 % of the patches, other ones for each image and in
           each call, even for the same image as candidate, as support and as reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from drpo.generators.base import Layout
from drpo.method.drift import Variant
from drpo.method.features.base import FeatureContext, FeatureSettings, ListedFeatureMap
from drpo.method.features.vision import Preprocessor, check_transformer, layer_features, load_transformer


class ImageMAESettings(FeatureSettings):
    """Which features of the ViT-MAE are used. `variant: released` changes the default of mask_ratio to 0.75.

    Example:
        features:
          name: image_mae
          path: facebook/vit-mae-base
          options:
            variant: paper
            mask_ratio: 0.0
    """

    variant: Variant = Field(
        default="paper", description="paper: one mask per step; released: another one for each image"
    )
    mask_ratio: float = Field(default=0.0, ge=0, lt=1, description="share of the patches that the model does not see")
    keys: tuple[str, ...] = Field(
        default=("layer12_patch_mean", "layer12_patch_std", "layer12_cls"),
        min_length=1,
        description="the features, such as [layer12_patch_mean, layer6_cls]",
    )

    @model_validator(mode="before")
    @classmethod
    def _add_released_defaults(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("variant") == "released":
            return {"mask_ratio": 0.75, **values}
        return values


class ImageMAEFeatures(ListedFeatureMap):
    """A frozen ViT-MAE as a feature map over images.

    Args:
        source: a folder or hub id.
        settings: which features to compute, and what is hidden; None: the defaults.
        device: where the model computes.
        dtype: of the model; images of another dtype are converted.
    """

    settings_class = ImageMAESettings
    weights = "files"

    def __init__(
        self,
        source: str | Path,
        settings: ImageMAESettings | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        from transformers import ViTMAEModel

        self.settings = settings or ImageMAESettings()
        model = load_transformer(ViTMAEModel, source, mask_ratio=self.settings.mask_ratio)
        self.model = model.to(device=device, dtype=dtype)
        self.preprocess = Preprocessor(source, size=model.config.image_size)
        self.dtype = dtype

    @classmethod
    def check(cls, settings: ImageMAESettings, path: Path | None, layout: Layout | None) -> None:
        """See `ListedFeatureMap.check`."""
        from transformers import ViTMAEModel

        check_transformer(ViTMAEModel, settings.keys, path)

    def of_images(self, images_N3HW: Tensor, context: FeatureContext) -> dict[str, Tensor]:
        """The features {key: (N, T, D)} of images (N, 3, H, W), roughly in [-1, 1]."""
        pixels_N3HW = self.preprocess(images_N3HW.to(self.dtype))
        order_NT = self._draw_order(len(pixels_N3HW), context).to(pixels_N3HW.device)
        states = self.model(pixel_values=pixels_N3HW, noise=order_NT, output_hidden_states=True).hidden_states
        return layer_features(states, self.settings.keys)

    def _draw_order(self, count: int, context: FeatureContext) -> Tensor:
        """A number for each patch, (N, T); the model sees the patches with the smallest numbers.

        Without these numbers the model would draw its own from the global random state.
        """
        patches = self.model.embeddings.patch_embeddings.num_patches
        if not self.settings.mask_ratio:
            return torch.arange(patches).expand(count, -1)
        released = self.settings.variant == "released"
        random = torch.Generator().manual_seed(context.call_seed if released else context.step_seed)
        return torch.rand(count if released else 1, patches, generator=random).expand(count, -1)
