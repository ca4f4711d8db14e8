"""HiPPO matrices, which make a state-space model remember its input, and their diagonal forms.

A state x' = A x + B u with these matrices holds the coefficients of the past of u in a basis of
orthogonal functions of a measure on the past (Gu et al. 2020, "HiPPO: Recurrent Memory with Optimal
Polynomial Projections"; Gu et al. 2022, "How to Train Your HiPPO"). All results are float64 or
complex128.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MEASURES = ("legs", "legt", "lagt", "fout")
DIAGONALS = ("legs", "lin", "inv", "real")


def transition(measure: str, N: int) -> tuple[Tensor, Tensor]:
    """The HiPPO matrices A [N, N] and B [N] of a measure.

    Args:
        measure: "legs": Legendre polynomials of e^-t on the whole past, e^(tA) B = sqrt(2n + 1)
            P_n(2 e^-t - 1) e^-t; "legt": Legendre polynomials on the last 2 units of time; "lagt":
            Laguerre functions, e^(tA) B = e^(-t/2) L_n(t); "fout": Fourier's basis of the last 2
            units, N even.
        N: size of the state.

    Raises:
        ValueError: an unknown measure, N below 1, or odd for "fout".
    """
    _check("measure", measure, MEASURES)
    if N < 1 or (measure == "fout" and N % 2):
        kind = "even" if measure == "fout" else "at least 1"
        raise ValueError(f"hippo: N: expected {kind}, got {N}")
    n = torch.arange(N, dtype=torch.float64)
    if measure == "legs":
        B = (2 * n + 1).sqrt()
        return -torch.tril(B[:, None] * B, -1) - torch.diag(n + 1), B
    if measure == "legt":
        B = (2 * n + 1).sqrt()
        alternating = (-1.0) ** (n[:, None] - n)
        signs = torch.where(n[:, None] < n, alternating, 1.0)
        return -signs * (B[:, None] * B) / 2, B / 2
    if measure == "lagt":
        ones = torch.ones(N, dtype=torch.float64)
        return torch.diag(ones) / 2 - torch.tril(torch.ones(N, N, dtype=torch.float64)), ones
    B = _fourier_at_zero(N)
    turn = torch.zeros(N - 1, dtype=torch.float64)
    turn[::2] = math.pi * torch.arange(N // 2, dtype=torch.float64)
    # State 0 is the constant, state 1 the sine of frequency 0; pairs that turn follow.
    return torch.diag(turn, -1) - torch.diag(turn, 1) - B[:, None] * B, B


def _fourier_at_zero(N: int) -> Tensor:
    """The basis functions at the present: a constant, then cosines and sines."""
    B = torch.zeros(N, dtype=torch.float64)
    B[::2] = math.sqrt(2)
    B[0] = 1
    return B


def low_rank(measure: str, N: int, rank: int = 1) -> Tensor:
    """P [rank, N] with which A + P^T P is normal: a multiple of 1 plus a skew-symmetric matrix.

    Args:
        measure: as of `transition`.
        N: size of the state.
        rank: at least 1, and 2 for "legt"; rows that are not needed are 0.

    Raises:
        ValueError: an unknown measure, or too small a rank.
    """
    _check("measure", measure, MEASURES)
    n = torch.arange(N, dtype=torch.float64)
    if measure == "legs":
        P = (n + 0.5).sqrt()[None]
    elif measure == "legt":
        even = n % 2 == 0
        P = (n + 0.5).sqrt() * torch.stack([~even, even])
    elif measure == "lagt":
        P = torch.full((1, N), math.sqrt(0.5), dtype=torch.float64)
    else:
        P = _fourier_at_zero(N)[None]
    if rank < len(P):
        raise ValueError(f"hippo: rank: expected at least {len(P)} for {measure!r}, got {rank}")
    return torch.cat([P, P.new_zeros(rank - len(P), N)])


def nplr(measure: str, N: int, rank: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The normal-plus-low-rank form in the eigenbasis, one of each pair of conjugates.

    With W = [V, V*], which is unitary, A = W (diag([w, w*]) - [P, P*]^T [P*, P]) W^H and B_hippo =
    W [B, B*]: theorem 1 of Gu, Goel and Re 2022, "Efficiently Modeling Long Sequences with
    Structured State Spaces".

    Args:
        measure: as of `transition`.
        N: size of the state, even.
        rank: of P, as of `low_rank`.

    Returns:
        w [N / 2], of growing imaginary part >= 0; P [rank, N / 2]; B [N / 2]; V [N, N / 2].

    Raises:
        ValueError: an unknown measure, too small a rank, or an odd N.
    """
    if N % 2:
        raise ValueError(f"hippo: N: expected even, got {N}")
    A, B = transition(measure, N)
    P = low_rank(measure, N, rank)
    normal = A + P.T @ P
    decay = normal.diagonal().mean().clamp(max=0)  # 0 but for rounding, or negative
    skew = (normal - normal.T) / 2
    frequencies, vectors = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    frequencies, V = frequencies[N // 2 :], vectors[:, N // 2 :]
    if frequencies[0] <= 1e-9 * frequencies[-1]:  # two zeros, which eigh does not tell apart
        real = torch.linalg.svd(skew).Vh[-2:]
        V = torch.cat([torch.complex(real[0], real[1])[:, None] / math.sqrt(2), V[:, 1:]], 1)
        frequencies = torch.cat([frequencies.new_zeros(1), frequencies[1:]])
    w = torch.complex(decay.expand_as(frequencies).contiguous(), frequencies)
    return w, (V.mH @ P.T.to(V.dtype)).T, V.mH @ B.to(V.dtype), V


def diagonal(initialisation: str, N: int) -> tuple[Tensor, Tensor]:
    """Starting values of a diagonal SSM, one of each pair of conjugates: A and B [N / 2].

    Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models",
    section 4: "legs": the eigenvalues of LegS without its low-rank part (S4D-LegS); "lin": -1/2 + i
    pi n (S4D-Lin); "inv": -1/2 + i (N / pi) (N / (2 n + 1) - 1) (S4D-Inv); "real": -(n + 1)
    (S4D-Real). B is all ones, but for "legs", where it is that of the eigenbasis.

    Raises:
        ValueError: an unknown initialisation, or an odd N.
    """
    _check("initialisation", initialisation, DIAGONALS)
    if N % 2:
        raise ValueError(f"hippo: N: expected even, got {N}")
    if initialisation == "legs":
        w, _, B, _ = nplr("legs", N)
        return w, B
    n = torch.arange(N // 2, dtype=torch.float64)
    half, one = torch.full_like(n, -0.5), torch.ones_like(n).to(torch.complex128)
    if initialisation == "lin":
        return torch.complex(half, math.pi * n), one
    if initialisation == "inv":
        return torch.complex(half, N / math.pi * (N / (2 * n + 1) - 1)), one
    return torch.complex(-(n + 1), torch.zeros_like(n)), one


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"hippo: {name}: expected one of {known}, got {value!r}")
