"""What the network of a consistency model predicts."""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse.diffusion.prediction import Prediction


def consistency_prediction(sigma_data: float = 0.5, sigma_min: float = 0.002) -> Prediction:
    """The raw network of a consistency model: D = c_skip x + c_out F(c_in x, 250 ln sigma).

    Song et al. 2023, "Consistency Models", appendix C, for processes with alpha = 1: D is x itself
    at sigma = sigma_min.
    """
    d = sigma_data

    def skip(s: Tensor) -> Tensor:
        return d * d / ((s - sigma_min) ** 2 + d * d)

    def out(s: Tensor) -> Tensor:
        return (s - sigma_min) * d / torch.sqrt(s * s + d * d)

    return Prediction(
        "consistency",
        data=lambda a, s: (skip(s), out(s)),
        noise=lambda a, s: ((1 - skip(s)) / s, -out(s) / s),
        target=lambda a, s: ((1 - skip(s)) / out(s), -skip(s) * s / out(s)),
        input_scale=lambda a, s: 1 / torch.sqrt(s * s + d * d),
        model_time=lambda a, s: 250 * torch.log(s),
    )
