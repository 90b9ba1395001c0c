"""Begin a generator of the SDXL layout with the weights of the embedded one, so that it trains in minutes, not hours.

Both U-Nets have the same blocks. They differ in three places:

- What were convolutions of one pixel before and after an attention block are linear layers.
- Cross-attention reads the states of two text encoders. From each of them a linear map to the old states is fitted by
  least squares. The mean of both is put in front of the keys and values, so each encoder has half of the say.
- The embedding of the pooled vector and of the time ids is new. Its last layer begins at zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

_RIDGE = 1e-3
"""The penalty of the fit, as a share of the mean square of the new states. It keeps the map's weights small."""


@torch.no_grad()
def take_weights(
    unet: UNet2DConditionModel,
    embedded: UNet2DConditionModel,
    states: Sequence[Tensor],
    embedded_states_PTD: Tensor,
) -> None:
    """Copies the weights of `embedded` into `unet`, which then predicts nearly the same.

    Args:
        unet: an untrained U-Net of the SDXL layout. It is changed in place.
        embedded: the embedded generator's U-Net.
        states: the text states that `unet` reads side by side, (P, T, D) of each encoder, of P prompts.
        embedded_states_PTD: those that `embedded` reads, of the same prompts.
    """
    targets_ND = embedded_states_PTD.flatten(0, 1)
    map_DD = torch.cat([_fit_linear_map(states_PTD.flatten(0, 1), targets_ND) for states_PTD in states]) / len(states)
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
