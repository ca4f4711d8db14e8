"""RMSNorm of the heads of queries and keys, written as its formula, with a rotation behind it.

    y = x / sqrt(mean(x^2) + eps) * weight

Half-precision inputs are computed in float32, as the kernels do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse.reference.rotary import rotary_fwd, wide_like


def qk_norm(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    *,
    eps: float = 1e-6,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    """The slow, obvious form of `suffuse.ops.qk_norm`, with the same arguments and results."""
    return qk_norm_fwd(q, k, q_weight, k_weight, cos, sin, eps, interleaved)


def qk_norm_fwd(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    eps: float,
    interleaved: bool,
) -> tuple[Tensor, Tensor]:
    """Returns (q, k); differentiable as often as one likes."""

    def heads(x: Tensor, weight: Tensor | None) -> Tensor:
        wide = x.to(wide_like(x))
        y = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        if weight is not None:
            y = y * weight.to(y.dtype)
        if cos is not None and sin is not None:
            y = rotary_fwd(y, cos, sin, None, None, 0, interleaved, False)
        return y.to(x.dtype)

    return heads(q, q_weight), heads(k, k_weight)
