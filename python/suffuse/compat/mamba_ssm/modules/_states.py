"""What both layers do in the original's way: caches under inference_params, mixed dtypes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def states_of(
    layer: Any, inference_params: Any, batch_size: int, initialize_states: bool
) -> tuple[Tensor, Tensor]:
    """The layer's states in inference_params, made where there are none, zeroed where asked."""
    if layer.layer_idx is None:
        raise ValueError(f"{type(layer).__name__}: layer_idx: expected a number with a cache")
    caches = inference_params.key_value_memory_dict
    if layer.layer_idx not in caches:
        caches[layer.layer_idx] = layer.allocate_inference_cache(batch_size, 0)
    elif initialize_states:
        for state in caches[layer.layer_idx]:
            state.zero_()
    return caches[layer.layer_idx]


def keep_wide(
    layer: nn.Module,
    wide: tuple[nn.Parameter, ...],
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> None:
    """Moves all parameters to a device and all but `wide` to a dtype."""
    layer.to(device=device)
    if dtype is None:
        return
    for parameter in layer.parameters():
        if not any(parameter is kept for kept in wide):
            parameter.data = parameter.data.to(dtype)
