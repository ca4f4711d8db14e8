"""The feed-forward part of a transformer block, with the parameter names of diffusers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.nn.linear import xavier_linear

GELU_APPROXIMATION = {"gelu-approximate": "tanh", "gelu": "none"}


class GELUProjection(nn.Module):
    """A linear layer and GELU: exact ("none") or its tanh form ("tanh")."""

    def __init__(self, inputs: int, outputs: int, *, approximate: str) -> None:
        super().__init__()
        self.proj, self.approximate = xavier_linear(inputs, outputs), approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate=self.approximate)


class FeedForward(nn.Module):
    """Two-layer perceptron on [..., width], four times as wide inside.

    activation: a key of `GELU_APPROXIMATION`. dropout: between the layers.
    """

    def __init__(self, width: int, *, activation: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GELUProjection(width, 4 * width, approximate=GELU_APPROXIMATION[activation]),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            xavier_linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
