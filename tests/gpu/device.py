"""How an op's own checks run on the device: `check(call, function=on_device(op))`.

Operands are made, and references computed, on the CPU; only the call itself is on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

DEVICE = "cuda"
Result = TypeVar("Result")


def moved(value: Any, device: str) -> Any:
    """Tensors, also within lists, tuples, named tuples and dicts, on another device, strides kept."""
    if isinstance(value, Tensor):
        return moved_tensor(value, device)
    if isinstance(value, dict):
        return {name: moved(v, device) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        items = [moved(v, device) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def moved_tensor(tensor: Tensor, device: str) -> Tensor:
    memory = tensor.detach().untyped_storage().to(device=torch.device(device))
    result = torch.empty(0, dtype=tensor.dtype, device=device)
    return result.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())


def on_device(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function, run on the device with operands from the CPU and results for it."""

    def run(*arguments: Any, **options: Any) -> Result:
        results = function(*moved(arguments, DEVICE), **moved(options, DEVICE))
        return moved(results, "cpu")

    return run
