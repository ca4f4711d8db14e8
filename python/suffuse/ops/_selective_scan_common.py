"""What the public functions of selective_scan have in common."""

from __future__ import annotations

import torch

CUDA_STATES = 256  # the most that the CUDA kernels of the scan take


def fits_cuda(dtype: torch.dtype, states: int = 0) -> bool:
    """Whether the CUDA kernels compute in this dtype with so many states."""
    return dtype != torch.float64 and states <= CUDA_STATES
