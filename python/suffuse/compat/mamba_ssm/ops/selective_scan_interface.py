"""mamba_ssm.ops.selective_scan_interface: the scan of Mamba-1, alone and with all around it."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse import ops
from suffuse.compat.mamba_ssm.ops._remake import Again, remade
from suffuse.reference import causal_conv1d as conv_formula
from suffuse.reference import selective_scan as scan_formula

__all__ = ["mamba_inner_fn", "mamba_inner_ref", "selective_scan_fn", "selective_scan_ref"]


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`suffuse.selective_scan` with the arguments of mamba_ssm's function of this name.

    Args:
        u, delta, z: [B, D, L]; z may be None.
        A: [D, N], real or complex.
        B, C: [D, N], [B, N, L] or [B, G, N, L]. With a complex A: [D, N] complex, or real with
            2 L in place of L, real and imaginary parts in turn.
        D, delta_bias: [D], or None.
        delta_softplus: whether delta + delta_bias goes through softplus.
        return_last_state: also return the state after the last step [B, D, N]. Gradients flow
            through it, as they do not in the original.

    Returns:
        out [B, D, L], or (out, last state).
    """
    return ops.selective_scan(
        u, delta, A, _complex_pairs(B, A), _complex_pairs(C, A), D, z, delta_bias,
        delta_softplus=delta_softplus, return_last_state=return_last_state,
    )  # fmt: skip


def selective_scan_ref(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The plain formula of `selective_scan_fn`: a loop over time."""
    return scan_formula.selective_scan(
        u, delta, A, _complex_pairs(B, A), _complex_pairs(C, A), D, z, delta_bias,
        delta_softplus=delta_softplus, return_last_state=return_last_state,
    )  # fmt: skip


def _complex_pairs(matrix: Tensor, A: Tensor) -> Tensor:
    """Real [.., N, 2 L] as complex [.., N, L] where A is complex; what is right already as it is."""
    if not A.is_complex() or matrix.is_complex() or matrix.dim() == 2:
        return matrix
    wide = torch.float64 if A.dtype == torch.complex128 else torch.float32
    return torch.view_as_complex(matrix.to(wide).unflatten(-1, (-1, 2)).contiguous())


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """A Mamba layer behind its first projection: convolution, scan, gate, last projection.

    Args:
        xz: the first projection's output [B, 2 D, L]: input and gate.
        conv1d_weight, conv1d_bias: [D, 1, W] and [D] (or None).
        x_proj_weight: [R + 2 N, D] (N twice for a complex A): step-size rank, B and C.
        delta_proj_weight: [D, R].
        out_proj_weight, out_proj_bias: [E, D] and [E] (or None).
        A: [D, N], real or complex.
        B, C: as in `selective_scan_fn`; None: from the input, by x_proj_weight.
        D, delta_bias: [D], or None.
        B_proj_bias, C_proj_bias: added to a B or C from the input [N], or None.
        delta_softplus: whether delta + delta_bias goes through softplus.
        checkpoint_lvl: 1: the convolution's output and delta are made again for the backward pass
            (not under autocast; `torch.func` needs 0). 0: they are kept.
        b_rms_weight, c_rms_weight, dt_rms_weight: weights of an RMS norm over the states of B [N] and
            C [N] and over the channels of delta [D] before its bias, or None for no norm.
        b_c_dt_rms_eps: their eps.

    Returns:
        [B, L, E].

    Raises:
        ValueError: another checkpoint_lvl.
    """
    if checkpoint_lvl not in (0, 1):
        raise ValueError(f"mamba_inner_fn: checkpoint_lvl: expected 0 or 1, got {checkpoint_lvl}")
    if dt_rms_weight is not None and not torch.compiler.is_compiling():
        _warn_of_late_norm()
    x, z = xz.chunk(2, dim=1)
    rank, eps = delta_proj_weight.shape[1], b_c_dt_rms_eps

    def convolved() -> Tensor:
        u = ops.causal_conv1d(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
        assert isinstance(u, Tensor)  # no state asked for
        return u

    def step_sizes() -> Tensor:
        delta = F.linear(projected[..., :rank], delta_proj_weight)
        return _rms_norm(delta, dt_rms_weight, eps).mT.to(xz.dtype)

    u = convolved()
    inputs = Again(u, convolved)
    with remade(inputs) if checkpoint_lvl else nullcontext():
        projected = F.linear(u.mT, x_proj_weight)  # [B, L, R + 2 N]
    states = A.shape[1] * (2 if A.is_complex() else 1)
    if B is None:
        rows = projected[..., rank : rank + states]
        B = _scan_matrix(rows, A, B_proj_bias, b_rms_weight, eps).to(u.dtype)
    if C is None:
        C = _scan_matrix(projected[..., -states:], A, C_proj_bias, c_rms_weight, eps).to(u.dtype)
    delta = step_sizes()
    with remade(inputs, Again(delta, step_sizes)) if checkpoint_lvl else nullcontext():
        y = selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)
    return F.linear(y.mT, out_proj_weight, out_proj_bias)


@cache
def _warn_of_late_norm() -> None:
    warnings.warn(
        "mamba_inner_fn: dt_rms_weight norms delta behind its projection, as mamba_ssm does; a model "
        "that norms before it elsewhere (FalconMamba in evaluation) differs in training",
        stacklevel=3,
    )


def _scan_matrix(
    rows: Tensor, A: Tensor, bias: Tensor | None, norm: Tensor | None, eps: float
) -> Tensor:
    """B or C of the scan [B, N, L] (complex: [B, N, 2 L]) from its part of the projection."""
    if bias is not None:
        rows = rows + bias.to(rows.dtype)
    rows = _rms_norm(rows, norm, eps)
    if A.is_complex():
        return rows.unflatten(-1, (-1, 2)).permute(0, 2, 1, 3).flatten(2)
    return rows.mT


def _rms_norm(rows: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        return rows
    return F.rms_norm(rows, rows.shape[-1:], weight.to(rows.dtype), eps)


def mamba_inner_ref(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """The plain formula of `mamba_inner_fn`, without its norms."""
    x, z = xz.chunk(2, dim=1)
    u = conv_formula.causal_conv1d(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    assert isinstance(u, Tensor)
    projected = F.linear(u.mT, x_proj_weight)
    rank = delta_proj_weight.shape[1]
    delta = F.linear(projected[..., :rank], delta_proj_weight).mT
    states = A.shape[1] * (2 if A.is_complex() else 1)
    if B is None:
        B = _scan_matrix(projected[..., rank : rank + states], A, B_proj_bias, None, 0.0)
    if C is None:
        C = _scan_matrix(projected[..., -states:], A, C_proj_bias, None, 0.0)
    y = selective_scan_ref(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    assert isinstance(y, Tensor)
    return F.linear(y.mT, out_proj_weight, out_proj_bias)
