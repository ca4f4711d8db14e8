"""The layer of S5 (Smith, Warrington and Linderman 2023, "Simplified State Space Layers for Sequence Modeling")."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from suffuse.nn import _diagonal, hippo

__all__ = ["S5"]


class S5(_diagonal.DiagonalLayer):
    """One diagonal state-space model with many inputs and outputs: [B, T, H] -> [B, T, H].

    x' = Lambda x + B u, y = 2 Re(C x) + D u, discretised, as a scan. The states are one of each pair
    of conjugates. Lambda starts as the eigenvalues of the normal part of HiPPO-LegS, in blocks, and B
    and C in its eigenbasis (section 4.3). Parameters have the names of the authors' code.

    Args:
        d_model: H.
        d_state: real states, 2 P; a multiple of 2 blocks.
        blocks: independent HiPPO matrices that the state begins as.
        discretization: "zoh" (zero-order hold) or "bilinear".
        dt_min, dt_max: between which the step sizes start, log-uniformly.

    Raises:
        ValueError: another discretization; blocks that do not divide.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        blocks: int = 1,
        discretization: str = "zoh",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(
                f"S5: discretization: expected 'zoh' or 'bilinear', got {discretization!r}"
            )
        if blocks < 1 or d_state % (2 * blocks):
            raise ValueError(
                f"S5: blocks: expected half a divisor of {d_state} states, got {blocks}"
            )
        self.d_model, self.d_state, self.discretization = d_model, d_state, discretization
        self.complex_states = d_state // 2
        w, _, _, basis = hippo.nplr("legs", d_state // blocks)
        self.Lambda_re = nn.Parameter(w.real.repeat(blocks).float())
        self.Lambda_im = nn.Parameter(w.imag.repeat(blocks).float())
        V = torch.block_diag(*[basis] * blocks)  # [2 P, P]
        B = torch.randn(d_state, d_model, dtype=torch.float64) / math.sqrt(d_model)
        C = torch.randn(d_model, d_state, dtype=torch.complex128) / math.sqrt(d_state / 2)
        self.B = nn.Parameter(_parts(V.mH @ B.to(V.dtype)))
        self.C = nn.Parameter(_parts(C @ V))
        self.D = nn.Parameter(torch.randn(d_model))
        span = math.log(dt_max / dt_min)
        self.log_step = nn.Parameter(torch.rand(d_state // 2, 1) * span + math.log(dt_min))

    def _system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Discretised: decay [P], B [P, H], and 2 C [H, P]."""
        wide = _diagonal.wide_of(self.D)
        rates = torch.complex(self.Lambda_re.to(wide), self.Lambda_im.to(wide))
        steps = self.log_step[:, 0].to(wide).exp()
        B, C = (torch.view_as_complex(t.to(wide)) for t in (self.B, self.C))
        if self.discretization == "zoh":
            decay, gain = torch.exp(rates * steps), torch.expm1(rates * steps) / rates
        else:
            half = 1 / (1 - rates * steps / 2)
            decay, gain = half * (1 + rates * steps / 2), half * steps
        return decay, gain[:, None] * B, 2 * C


def _parts(values: Tensor) -> Tensor:
    return torch.view_as_real(values.resolve_conj()).float().contiguous()
