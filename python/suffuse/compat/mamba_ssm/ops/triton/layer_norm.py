"""mamba_ssm.ops.triton.layer_norm: norm behind a residual sum, as plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suffuse.nn.gated_norm import gated_norm

__all__ = ["RMSNorm", "layer_norm_fn", "rms_norm_fn"]

Norm = Tensor | tuple[Tensor, Tensor]


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Norm:
    """norm(x + residual), in float32 (float64 for float64).

    Args:
        x: [..., D].
        weight, bias: [D]; bias may be None.
        residual: x's shape, or None for 0.
        eps: of the norm.
        prenorm: also return the sum.
        residual_in_fp32: the sum is float32 where there is no residual; otherwise it has the
            residual's dtype.
        is_rms_norm: without taking the mean away.

    Returns:
        x's shape and dtype, or (that, the sum).

    Raises:
        NotImplementedError: x1, weight1, bias1, dropout_p, rowscale or return_dropout_mask.
    """
    refused = {
        "x1": x1 is not None,
        "weight1": weight1 is not None,
        "bias1": bias1 is not None,
        "dropout_p": dropout_p != 0.0,
        "rowscale": rowscale is not None,
        "return_dropout_mask": return_dropout_mask,
    }
    for name, given in refused.items():
        if given:
            raise NotImplementedError(f"layer_norm_fn: {name} is not supported")
    if residual is None:
        total = x.float() if residual_in_fp32 and x.dtype != torch.float64 else x
        kept = total
    else:
        wide = torch.promote_types(torch.promote_types(x.dtype, residual.dtype), torch.float32)
        total = x.to(wide) + residual.to(wide)
        kept = total.to(residual.dtype)
    out = gated_norm(total, weight, bias, eps=eps, centred=not is_rms_norm).to(x.dtype)
    return (out, kept) if prenorm else out


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Norm:
    """`layer_norm_fn` without taking the mean away."""
    return layer_norm_fn(
        x, weight, bias, residual, x1, weight1, bias1, eps, dropout_p, rowscale, prenorm,
        residual_in_fp32, True, return_dropout_mask,
    )  # fmt: skip


class RMSNorm(nn.Module):
    """`rms_norm_fn` with a weight.

    Raises:
        NotImplementedError: dropout_p.
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        dropout_p: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dropout_p:
            raise NotImplementedError("RMSNorm: dropout_p is not supported")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> Norm:
        return rms_norm_fn(
            x, self.weight, None, residual, eps=self.eps, prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
        )  # fmt: skip
