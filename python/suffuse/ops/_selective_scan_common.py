"""What the public functions of selective_scan have in common: the choice between kernel and formula."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from suffuse import _library

CUDA_STATES = 256  # the most that the CUDA kernels of the scan take
_warned: set[str] = set()


def has_kernel(op: str, x: Tensor, dtype: torch.dtype, states: int = 0) -> bool:
    """Whether a kernel computes in `dtype` where x is; warns once for a device without."""
    if x.is_cpu or x.is_meta:
        return True
    if x.is_cuda and "cuda" in _library.LOADED:
        return dtype != torch.float64 and states <= CUDA_STATES
    device = x.device.type
    if device not in _warned and not torch.compiler.is_compiling():
        _warned.add(device)
        warnings.warn(
            f"{op}: no kernel for device {device!r} in this build; the plain PyTorch formula runs "
            "instead",
            stacklevel=3,
        )
    return False
