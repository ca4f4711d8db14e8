"""Shifts of flow times: more steps at high noise, as larger pictures and videos need."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def shifted(times: Tensor, shift: float, *, power: float = 1.0) -> Tensor:
    """Flow times t in [0, 1] moved to shift / (shift + (1 / t - 1)^power); shift > 1 adds noise.

    Esser et al. 2024, "Scaling Rectified Flow Transformers", eq. 23, where power = 1 and it reads
    shift t / (1 + (shift - 1) t): every signal-to-noise ratio is divided by shift^2. Shifts that
    depend on the resolution are `resolution_shift`, with exp(mu) for a given mu.

    times: any shape, floating-point; 0 and 1 stay where they are.
    """
    if not (shift > 0 and power > 0):
        raise ValueError(f"shifted: shift, power are {shift}, {power}, expected more than 0")
    if power == 1:
        return shift * times / (1 + (shift - 1) * times)
    return shift / (shift + (1 / times - 1) ** power)


def resolution_shift(
    tokens: int,
    *,
    base_tokens: int = 256,
    max_tokens: int = 4096,
    base_mu: float = 0.5,
    max_mu: float = 1.15,
) -> float:
    """The shift exp(mu) for a picture of `tokens` patches, mu linear in the number of patches.

    mu is base_mu at base_tokens and max_mu at max_tokens, and goes on beyond both. The defaults are
    those of FLUX.1.
    """
    if not (tokens > 0 and base_tokens != max_tokens):
        raise ValueError(
            f"resolution_shift: tokens, base_tokens, max_tokens are {tokens}, {base_tokens}, "
            f"{max_tokens}, expected tokens > 0 and two different bounds"
        )
    slope = (max_mu - base_mu) / (max_tokens - base_tokens)
    return math.exp(base_mu + slope * (tokens - base_tokens))


def stretched(times: Tensor, terminal: float) -> Tensor:
    """Flow times stretched so that the last one above clean data is `terminal`; t = 1 stays.

    1 - (1 - t) (1 - terminal) / (1 - t_last), the terminal shift of LTX-Video.

    times: [steps + 1], falling to 0.

    Raises:
        ValueError: terminal is outside (0, 1), or times do not end at 0 after a time below 1.
    """
    if not 0 < terminal < 1:
        raise ValueError(f"stretched: terminal is {terminal}, expected a number in (0, 1)")
    if times.dim() != 1 or len(times) < 2 or times[-1] != 0 or not 0 < times[-2] < 1:
        raise ValueError("stretched: times must be [steps + 1], end at 0 and be below 1 before")
    above = 1 - (1 - times[:-1]) * ((1 - terminal) / (1 - times[-2]))
    return torch.cat([above, times[-1:]])
