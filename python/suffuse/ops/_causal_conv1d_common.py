"""What the public functions of causal_conv1d have in common: checks of arguments, layouts."""

from __future__ import annotations

import torch
from torch import Tensor


def check_tensors(op: str, needed: tuple[str, ...], **named: object) -> None:
    """Raises TypeError where a value is no tensor; None is one where the name is not in `needed`."""
    for name, value in named.items():
        if not isinstance(value, Tensor) and (value is not None or name in needed):
            got = type(value).__name__
            raise TypeError(f"{op}: {name}: expected a tensor, got {got}")


def is_silu(op: str, activation: str | None) -> bool:
    """Whether it is SiLU. ValueError where it is anything else."""
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"{op}: activation: expected None, 'silu' or 'swish', got {activation!r}")
    return activation is not None


def wide_like(x: Tensor) -> torch.dtype:
    """The type of weights and sums."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def as_type(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x.to(dtype), of which the call alone is a tenth of a small convolution's time."""
    return x if x.dtype == dtype else x.to(dtype)


def empty_like_rows(x: Tensor) -> Tensor:
    """As the kernels lay out a result of x's shape [B, D, L]."""
    batch, channels, length = x.shape
    steps_adjacent = length <= 1 or x.stride(2) == 1
    channels_adjacent = channels <= 1 or x.stride(1) == 1
    if steps_adjacent or not channels_adjacent:
        return x.new_empty(batch, channels, length)
    return x.new_empty(batch, length, channels).transpose(1, 2)
