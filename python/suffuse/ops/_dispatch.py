"""What every public op asks before it runs: is there a kernel, is a gradient needed, is the mode supported."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.autograd import forward_ad

from suffuse import _library

_warned: set[tuple[str, str]] = set()


def has_kernel(op: str, x: Tensor, on_cuda: bool = True) -> bool:
    """Whether a kernel takes x; warns once for an op and a device without.

    Args:
        op: the public function's name.
        x: decides by its device.
        on_cuda: False where the call is one that the CUDA kernels do not take: the formula runs, and no one is warned.
    """
    if x.is_cpu or x.is_meta:
        return True
    if x.is_cuda and "cuda" in _library.LOADED:
        return on_cuda
    device = x.device.type
    if (op, device) not in _warned and not torch.compiler.is_compiling():
        _warned.add((op, device))
        warnings.warn(
            f"{op}: no kernel for device {device!r} in this build; the plain PyTorch formula runs instead",
            stacklevel=3,
        )
    return False


def needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def refuse_forward_mode(op: str, *tensors: Tensor | None) -> None:
    """Raises NotImplementedError where an input has a tangent."""
    if forward_ad._current_level < 0:
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise NotImplementedError(
            f"{op}: forward-mode differentiation: expected reverse mode (backward, torch.func.grad "
            "or vjp), got an input with a tangent"
        )
