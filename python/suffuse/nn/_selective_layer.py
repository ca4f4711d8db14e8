"""What layers around a selective scan share: start values of the step sizes, the cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from suffuse.ops import causal_conv1d


@dataclass
class SelectiveCache:
    """What generation keeps of one layer; updated in place.

    Attributes:
        conv: the last inputs of the convolution [B, C, W - 1], the newest last.
        state: of the scan, [B, D, N] or [B, H, P, N].
    """

    conv: Tensor
    state: Tensor


def inverse_softplus_steps(
    count: int,
    smallest: float,
    largest: float,
    floor: float,
    device: torch.device | str | None = None,
) -> Tensor:
    """[count] biases whose softplus is log-uniform in [smallest, largest], and `floor` at least.

    Gu and Dao 2023, section 3.6.
    """
    span = math.log(largest) - math.log(smallest)
    steps = torch.exp(torch.rand(count, device=device) * span + math.log(smallest))
    steps = steps.clamp(min=floor)
    return steps + torch.log(-torch.expm1(-steps))


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, seq_idx: Tensor | None
) -> Tensor:
    """SiLU of the causal convolution of [B, C, T], going on from state [B, C, W - 1 or more].

    The state moves on in place: its last W - 1 places.
    """
    if state is None:
        out = causal_conv1d(x, weight, bias, activation="silu", seq_idx=seq_idx)
        assert isinstance(out, Tensor)  # no state asked for
        return out
    kept = state[..., state.shape[-1] - weight.shape[-1] + 1 :]
    out, last = causal_conv1d(
        x, weight, bias, activation="silu", initial_state=kept.clone(), return_final_state=True,
        seq_idx=seq_idx,
    )  # fmt: skip
    kept.copy_(last.detach())
    return out
