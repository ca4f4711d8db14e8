"""mamba_ssm.ops.triton.layernorm_gated: norms with a gate, as plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suffuse.nn.gated_norm import gated_norm

__all__ = ["LayerNorm", "RMSNorm", "layernorm_fn", "rms_norm_ref", "rmsnorm_fn"]


def layernorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
) -> Tensor:
    """norm(x) silu(z), or norm(x silu(z)) without norm_before_gate, over groups of group_size."""
    return gated_norm(
        x, weight, bias, z, eps=eps, group_size=group_size, norm_before_gate=norm_before_gate,
        centred=not is_rms_norm,
    )  # fmt: skip


def rmsnorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """`layernorm_fn` without taking the mean away."""
    return layernorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate, True)


def rms_norm_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    upcast: bool = True,
) -> Tensor:
    """`rmsnorm_fn`, which is plain PyTorch already, in float32 whatever x is.

    Raises:
        NotImplementedError: upcast=False.
    """
    if not upcast:
        raise NotImplementedError("rms_norm_ref: upcast: expected True, got False")
    return rmsnorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate)


class _Norm(nn.Module):
    """Weight and options of both norms."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))


class RMSNorm(_Norm):
    """`rmsnorm_fn` with a weight."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.register_parameter("bias", None)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return rmsnorm_fn(x, self.weight, None, z, self.eps, self.group_size, self.norm_before_gate)


class LayerNorm(_Norm):
    """`layernorm_fn` with a weight and a bias."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.zeros_like(self.weight))

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return layernorm_fn(
            x, self.weight, self.bias, z, self.eps, self.group_size, self.norm_before_gate
        )
