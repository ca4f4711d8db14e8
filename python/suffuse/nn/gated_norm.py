"""Root-mean-square and layer norm with a gate and in groups, as Mamba-2 ends with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gated_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    gate: Tensor | None = None,
    *,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    centred: bool = False,
) -> Tensor:
    """norm(x) silu(gate), or norm(x silu(gate)); computed in float32 (float64 for a float64 x).

    Args:
        x: [..., D].
        weight, bias: [D]; bias may be None.
        gate: x's shape, or None for no gate.
        eps: added to the mean square (variance).
        group_size: norms are over groups of this many neighbours; None: over D.
        norm_before_gate: whether the gate comes behind the norm.
        centred: whether the mean is taken away first (layer norm), or not (RMS norm).

    Returns:
        x's shape and dtype.

    Raises:
        ValueError: a group_size that does not divide D.
    """
    size = x.shape[-1] if group_size is None else group_size
    if size < 1 or x.shape[-1] % size:
        raise ValueError(f"gated_norm: group_size: expected a divisor of {x.shape[-1]}, got {size}")
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = x.to(wide)
    factor = None if gate is None else F.silu(gate.to(wide))
    if factor is not None and not norm_before_gate:
        out = out * factor
    out = out.unflatten(-1, (-1, size))
    if centred:
        out = out - out.mean(-1, keepdim=True)
    out = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + eps)
    out = out.flatten(-2) * weight.to(wide)
    if bias is not None:
        out = out + bias.to(wide)
    if factor is not None and norm_before_gate:
        out = out * factor
    return out.to(x.dtype)


class GatedRMSNorm(nn.Module):
    """`gated_norm` with a weight that starts as 1.

    Args:
        hidden_size: D.
        eps, group_size, norm_before_gate: see `gated_norm`.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
    ) -> None:
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return gated_norm(
            x, self.weight, gate=gate, eps=self.eps, group_size=self.group_size,
            norm_before_gate=self.norm_before_gate,
        )  # fmt: skip
