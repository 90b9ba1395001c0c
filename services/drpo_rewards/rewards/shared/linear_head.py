"""The small network at the end of `aesthetic` and `image_reward`."""

from __future__ import annotations

from torch import Tensor, nn

_WIDTHS = (1024, 128, 64, 16, 1)


class LinearHead(nn.Module):
    """Five linear layers without activations, as in the public files. Dropouts leave gaps in the layers' names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        linear = [nn.Linear(a, b) for a, b in zip((width, *_WIDTHS[:-1]), _WIDTHS, strict=True)]
        self.layers = nn.ModuleDict(dict(zip("02467", linear, strict=True)))

    def forward(self, vectors_ND: Tensor) -> Tensor:
        """Compute (N,) scores from (N, D) float32 vectors."""
        for layer in self.layers.values():
            vectors_ND = layer(vectors_ND)
        return vectors_ND[:, 0]
