"""The convolution kernel of S4 and the products it is made of, written as their sums."""

from __future__ import annotations

import torch
from torch import Tensor


def s4_kernel(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    L: int,
    *,
    P: Tensor | None = None,
    discretization: str | None = None,
    truncation: int | None = None,
) -> Tensor:
    """The slow, obvious form of `suffuse.ops.s4_kernel`: powers of a dense matrix, step by step."""
    A, B, C = torch.broadcast_tensors(A, B, C)
    system = dense(A) if P is None else dense(A) - dense_columns(P).mT @ dense_columns(P).conj()
    inputs = torch.cat([B, B.conj()], -1)[..., None] * dt[..., None, None]
    system = system * dt[..., None, None]
    one = torch.eye(system.shape[-1], dtype=system.dtype)
    if (discretization or ("zoh" if P is None else "bilinear")) == "zoh":
        step = torch.linalg.matrix_exp(system)
        inputs = torch.linalg.solve(system, (step - one) @ inputs)
    else:
        step = torch.linalg.solve(one - system / 2, one + system / 2)
        inputs = torch.linalg.solve(one - system / 2, inputs)
    outputs = torch.cat([C, C.conj()], -1)[..., None, :]
    if truncation is not None:
        whole = one - torch.linalg.matrix_power(step, truncation)
        outputs = torch.linalg.solve(whole, outputs, left=False)
    kernel = []
    for _ in range(L):
        kernel.append((outputs @ inputs)[..., 0, 0].real)
        inputs = step @ inputs
    return torch.stack(kernel, -1) if kernel else dt.new_zeros((*A.shape[:-1], 0))


def dense(diagonal: Tensor) -> Tensor:
    """Of the eigenvalues [..., N] and their conjugates, the matrix [..., 2 N, 2 N]."""
    return torch.diag_embed(torch.cat([diagonal, diagonal.conj()], -1))


def dense_columns(P: Tensor) -> Tensor:
    """[rank, ..., N] -> with the conjugates, [..., rank, 2 N]."""
    return torch.cat([P, P.conj()], -1).movedim(0, -2)


def vandermonde(v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    """sum_n v_n exp(x_n l) for l < length, or twice its real part; v, x [R, N] -> [R, length]."""
    steps = torch.arange(length, device=x.device).to(x.dtype)
    total = torch.einsum("rn,rnl->rl", v, torch.exp(x[..., None] * steps))
    return 2 * total.real if real else total


def moments(u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """sum_l u_l exp(x_n l) and sum_l l u_l exp(x_n l); u [R, L], x [R, N] -> [R, N] each."""
    steps = torch.arange(u.shape[-1], device=x.device).to(x.dtype)
    powers = torch.exp(x[..., None] * steps)
    u = u.to(x.dtype)
    return torch.einsum("rl,rnl->rn", u, powers), torch.einsum("rl,rnl->rn", u * steps, powers)


def cauchy(
    v: Tensor, z: Tensor, w: Tensor, power: int, conj: bool, both: bool
) -> tuple[Tensor, Tensor]:
    """sum_n v_n / (z_l - w_n)^power, and with power + 1 where `both` (else empty).

    v [R, N], z [R or 1, L], w [R or 1, N] -> [R, L]. conj: plus the terms of the conjugates of v, w.
    """
    if conj:
        v, w = torch.cat([v, v.conj()], -1), torch.cat([w, w.conj()], -1)
    inverse = 1 / (z[:, :, None] - w[:, None, :])

    def total(exponent: int) -> Tensor:
        return (v[:, None, :] * inverse**exponent).sum(-1)

    return total(power), total(power + 1) if both else v.new_empty(0, z.shape[1])
