"""State-space systems in the form that s4_kernel's products take: discretised, in the frequency domain."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from suffuse.ops._dispatch import refuse_forward_mode
from suffuse.ops._s4_kernel_common import check_complex, check_tensors

OP = "s4_kernel"


def check_system(
    A: Tensor, B: Tensor, C: Tensor, dt: Tensor, L: int, P: Tensor | None,
    discretization: str | None, truncation: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, str]:  # fmt: skip
    """A, B as large as A, C, P and the name of the discretisation. Raises as s4_kernel says."""
    named = {"A": A, "B": B, "C": C} | ({} if P is None else {"P": P})
    check_tensors(OP, **named, dt=dt)
    check_complex(OP, **named)
    refuse_forward_mode(OP, *named.values(), dt)
    methods = (None, "zoh", "bilinear")
    if discretization not in methods:
        raise ValueError(f"{OP}: discretization: expected one of {methods}, got {discretization!r}")
    if P is not None and discretization == "zoh":
        raise NotImplementedError(f"{OP}: discretization: expected 'bilinear' with P, got 'zoh'")
    if L < 0:
        raise ValueError(f"{OP}: L: expected at least 0, got {L}")
    if truncation is not None and (P is None or truncation < 1):
        raise ValueError(
            f"{OP}: truncation: expected None or, with P, at least 1; got {truncation}"
        )
    _check_shapes(A, B, C, dt, P)
    return A, B.expand(A.shape), C, P, discretization or ("zoh" if P is None else "bilinear")


def _check_shapes(A: Tensor, B: Tensor, C: Tensor, dt: Tensor, P: Tensor | None) -> None:
    def check(name: str, fits: bool, expected: str, value: Tensor) -> None:
        if not fits:
            got = tuple(value.shape)
            raise RuntimeError(f"{OP}: {name}: expected shape {expected}, got {got}")

    size = tuple(A.shape)
    check("A", A.dim() == 2, "[H, N]", A)
    padded = (1,) * (2 - B.dim()) + tuple(B.shape)
    fits = all(n in (1, m) for n, m in zip(padded, size, strict=False)) and B.dim() <= 2
    check("B", fits, f"{size} or what expands to it", B)
    fits = C.dim() in (2, 3) and C.shape[-2:] == A.shape
    check("C", fits, f"{size} or [heads, H, N] with the same H and N", C)
    check("dt", dt.shape == A.shape[:1], f"{size[:1]}", dt)
    if P is not None:
        check(
            "P", P.dim() == 3 and P.shape[1:] == A.shape, f"[rank, H, N] with {size} at the end", P
        )
    if dt.dtype != A.real.dtype:
        wanted, got = str(A.real.dtype)[6:], str(dt.dtype)[6:]
        raise RuntimeError(f"{OP}: dt: expected dtype {wanted} like A's parts, got {got}")


def diagonal_terms(
    A: Tensor, B: Tensor, C: Tensor, dt: Tensor, method: str
) -> tuple[Tensor, Tensor]:
    """v and x of the Vandermonde product: C Bbar and the logarithm of Abar."""
    step = A * dt[:, None]
    if method == "zoh":
        zero = A == 0
        integral = torch.where(
            zero, dt[:, None].to(A.dtype), torch.expm1(step) / torch.where(zero, 1, A)
        )
        return C * (B * integral), step
    half = step / 2
    return C * (B * (dt[:, None] / (1 - half))), 2 * torch.atanh(
        half
    )  # log((1 + half) / (1 - half))


class LowRankTerms(NamedTuple):
    """The Cauchy products that a diagonal-plus-low-rank kernel of some length is made of.

    With R = (z - dt A)^-1, at the points z that the roots of unity have under the bilinear
    transform: C R B, C R P, P* R B and P* R P.
    """

    v: Tensor  # [heads + rank, 1 + rank, H, N]
    z: Tensor  # [F]
    w: Tensor  # [H, N]
    dt: Tensor  # [H]
    slope: Tensor  # [F], real; z = 2 i slope
    last: Tensor | None  # [heads, H]: the spectrum at -1, where z is infinite; None for odd lengths
    length: int

    def kernel(self, products: Tensor) -> Tensor:
        """K [heads, H, length] from the results [heads + rank, 1 + rank, H, F]."""
        rank = self.v.shape[1] - 1
        outputs, low = products[:-rank], products[-rank:]
        one = torch.eye(rank, dtype=low.dtype, device=low.device)[..., None, None]
        inner = (one + low[:, 1:]).movedim((0, 1), (-2, -1))  # [H, F, rank, rank]
        weights = torch.linalg.solve(inner, low[:, 0].movedim(0, -1))  # [H, F, rank]
        resolvent = outputs[:, 0] - (outputs[:, 1:] * weights.movedim(-1, 0)).sum(1)
        spectrum = (
            self.dt[:, None] * torch.complex(torch.ones_like(self.slope), self.slope) * resolvent
        )
        if self.last is not None:
            spectrum = torch.cat([spectrum, self.last[..., None].to(spectrum.dtype)], -1)
        return torch.fft.irfft(spectrum, n=self.length)


def low_rank_terms(
    A: Tensor, B: Tensor, C: Tensor, dt: Tensor, P: Tensor, length: int
) -> LowRankTerms:
    """For C [heads, H, N] truncated at `length`, P [rank, H, N]."""
    turn = torch.arange((length + 1) // 2, device=A.device, dtype=torch.float64) / length
    slope = torch.tan(math.pi * turn).to(dt.dtype)
    P = P * dt.sqrt()[:, None]
    left, right = torch.cat([C, P.conj()]), torch.cat([B[None], P])
    last = dt * (C * B).sum(-1).real if length % 2 == 0 else None
    z = torch.complex(torch.zeros_like(slope), 2 * slope).to(A.dtype)
    return LowRankTerms(left[:, None] * right[None], z, A * dt[:, None], dt, slope, last, length)


def truncated_C(
    A: Tensor, P: Tensor, C: Tensor, dt: Tensor, before: int | None, length: int
) -> Tensor:
    """C (1 - Abar^length), of C or of C (1 - Abar^before).

    A pair of conjugates is two real numbers here, so that C x is a real row times a real column.
    """
    step = bilinear_matrix(A, P, dt)
    one = torch.eye(step.shape[-1], dtype=step.dtype, device=step.device)
    row = torch.cat([C.real, -C.imag], -1)[..., None, :]  # [heads, H, 1, 2 N]
    if before is not None:
        row = torch.linalg.solve(one - torch.linalg.matrix_power(step, before), row, left=False)
    row = (row - row @ torch.linalg.matrix_power(step, length))[..., 0, :]
    return torch.complex(*row.chunk(2, -1)).conj()


def bilinear_matrix(A: Tensor, P: Tensor, dt: Tensor) -> Tensor:
    """Abar of the real and imaginary parts of the states, [H, 2 N, 2 N]."""
    real, imaginary = torch.diag_embed(A.real), torch.diag_embed(A.imag)
    top, bottom = torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)
    low = torch.cat([P.real, P.imag], -1).movedim(0, -1)  # [H, 2 N, rank]
    half = (torch.cat([top, bottom], -2) - 2 * low @ low.mT) * (dt[:, None, None] / 2)
    one = torch.eye(half.shape[-1], dtype=half.dtype, device=half.device)
    return torch.linalg.solve(one - half, one + half)
