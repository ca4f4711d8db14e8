"""Tensors that the backward pass makes again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class Again:
    """Knows a tensor by its memory, and how to make it; made once, and freed with the graph.

    Args:
        tensor: is not kept.
        make: gives it again, in the same memory layout.
    """

    def __init__(self, tensor: Tensor, make: Callable[[], Tensor]) -> None:
        self.under_autocast = torch.is_autocast_enabled(tensor.device.type)
        compiling = torch.compiler.is_compiling()
        self.memory = None if compiling else tensor.untyped_storage().data_ptr()
        self._make = make
        self._made: Tensor | None = None

    def view(self, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
        if self._made is None:
            with torch.no_grad():
                self._made = self._make()
        return self._made.as_strided(size, stride, offset)


def remade(*tensors: Again) -> AbstractContextManager[Any]:
    """What is saved for backward inside keeps no memory of these tensors, nor of views of them.

    Nothing happens while compiling, and under autocast, which the backward pass does not see.
    """
    if torch.compiler.is_compiling() or any(again.under_autocast for again in tensors):
        return nullcontext()

    def pack(tensor: Tensor) -> Any:
        for again in tensors:
            if tensor.numel() and tensor.untyped_storage().data_ptr() == again.memory:
                return again, tensor.size(), tensor.stride(), tensor.storage_offset()
        return tensor

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        again, *geometry = packed
        return again.view(*geometry)

    return saved_tensors_hooks(pack, unpack)
