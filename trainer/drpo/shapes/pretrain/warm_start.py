"""Begin a generator of the SDXL layout with the weights of the embedded one, so that it trains in minutes, not hours.

Both U-Nets have the same blocks. They differ in three places:

- What were convolutions of one pixel before and after an attention block are linear layers.
- Cross-attention reads other text states. A linear map from the new states to the old ones, fitted by least squares,
  is put in front of its keys and values.
- The embedding of the pooled vector and of the time ids is new. Its last layer begins at zero.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

_RIDGE = 1e-3
"""The penalty of the fit, as a share of the mean square of the new states. It keeps the map's weights small."""


@torch.no_grad()
def take_weights(
    unet: UNet2DConditionModel, embedded: UNet2DConditionModel, states_PTD: Tensor, embedded_states_PTD: Tensor
) -> None:
    """Copies the weights of `embedded` into `unet`, which then predicts nearly the same.

    Args:
        unet: an untrained U-Net of the SDXL layout. It is changed in place.
        embedded: the embedded generator's U-Net.
        states_PTD: the text states that `unet` reads, of some prompts.
        embedded_states_PTD: those that `embedded` reads, of the same prompts.
    """
    map_DD = _fit_linear_map(states_PTD.flatten(0, 1), embedded_states_PTD.flatten(0, 1))
    weights = unet.state_dict()
    for name, value in embedded.state_dict().items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            value = value @ map_DD.T
        weights[name].copy_(value.reshape(weights[name].shape))
    for parameter in unet.add_embedding.linear_2.parameters():
        parameter.zero_()


def _fit_linear_map(inputs_ND: Tensor, targets_ND: Tensor) -> Tensor:
    """The matrix whose product with the inputs comes nearest to the targets; (D of an input, D of a target)."""
    inputs_ND, targets_ND = inputs_ND.double(), targets_ND.double()
    penalty = _RIDGE * inputs_ND.square().mean() * len(inputs_ND)
    products_DD = inputs_ND.T @ inputs_ND
    products_DD.diagonal().add_(penalty)
    return torch.linalg.solve(products_DD, inputs_ND.T @ targets_ND).float()
