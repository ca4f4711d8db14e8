"""The layer of S4D (Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models")."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.nn import hippo
from suffuse.ops import fft_conv, log_vandermonde, log_vandermonde_transpose
from suffuse.ops._s4_kernel_system import diagonal_terms

__all__ = ["S4D"]


class S4DKernel(nn.Module):
    """A diagonal state-space model for each channel, with B = 1: its parameters and discretisation."""

    def __init__(
        self, d_model: int, d_state: int, initialisation: str, dt_min: float, dt_max: float
    ) -> None:
        super().__init__()
        A, B = hippo.diagonal(initialisation, d_state)
        C = torch.randn(d_model, d_state // 2, dtype=torch.complex128) * B
        self.C = nn.Parameter(torch.view_as_real(C).float())
        span = math.log(dt_max / dt_min)
        self.log_dt = nn.Parameter(torch.rand(d_model) * span + math.log(dt_min))
        self.log_A_real = nn.Parameter((-A.real).log().float().repeat(d_model, 1))
        self.A_imag = nn.Parameter(A.imag.float().repeat(d_model, 1))

    def forward(self) -> tuple[Tensor, Tensor]:
        """(v, x), complex [D, N / 2]: y_t = 2 Re(v h_t) with h_t = exp(x) h_{t-1} + u_t."""
        wide = torch.promote_types(self.C.dtype, torch.float32)
        A = torch.complex(-self.log_A_real.to(wide).exp(), self.A_imag.to(wide))
        C = torch.view_as_complex(self.C.to(wide))
        return diagonal_terms(A, torch.ones_like(A), C, self.log_dt.to(wide).exp(), "zoh")


class S4D(nn.Module):
    """State-space model of each channel, GELU, gated projection: [B, T, D] -> [B, T, D].

    Diagonal, discretised by zero-order hold. A forward pass is a convolution, O(T log T), and a step
    a recurrence; both give the same. Parameters have the names of the authors' minimal S4D.

    Args:
        d_model: D.
        d_state: real states a channel, N; even.
        initialisation: of the state matrix: "lin", "inv", "legs" or "real".
        dt_min, dt_max: between which the step sizes start, log-uniformly.
        mix: whether GELU and the gated projection across channels follow.

    Raises:
        ValueError: an unknown initialisation, or an odd d_state.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        initialisation: str = "lin",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        mix: bool = True,
    ) -> None:
        super().__init__()
        self.d_model, self.d_state = d_model, d_state
        self.D = nn.Parameter(torch.randn(d_model))
        self.kernel = S4DKernel(d_model, d_state, initialisation, dt_min, dt_max)
        self.output_linear = (
            nn.Sequential(nn.Conv1d(d_model, 2 * d_model, 1), nn.GLU(-2)) if mix else None
        )

    def forward(self, x: Tensor, cache: Tensor | None = None) -> Tensor:
        """All steps at once, as one convolution.

        Args:
            x: [B, T, D].
            cache: goes on from it and leaves the last state in it (which is data: no gradient);
                None: from 0.
        """
        steps = x.shape[1]
        v, log_decay = self.kernel()
        u = x.mT.to(v.real.dtype)
        y = fft_conv(u, log_vandermonde(v, log_decay, steps), self.D.to(u.dtype))
        if cache is not None:
            y = y + log_vandermonde(v * log_decay.exp() * cache.clone(), log_decay, steps)
            with torch.no_grad():
                one = torch.ones_like(log_decay)
                left = log_vandermonde_transpose(u.flip(-1), one, log_decay, steps)
                cache.copy_((log_decay * steps).exp() * cache + left)
        return self._mix(y.mT.to(x.dtype))

    def step(self, x: Tensor, cache: Tensor) -> Tensor:
        """One step [B, D] -> [B, D]; the cache moves on in place. The states are data: no gradient."""
        v, log_decay = self.kernel()
        u = x.to(v.real.dtype)
        state = log_decay.exp() * cache + u[..., None]
        cache.copy_(state.detach())
        y = 2 * (v * state).sum(-1).real + self.D.to(u.dtype) * u
        return self._mix(y.to(x.dtype))

    def allocate_cache(self, batch_size: int) -> Tensor:
        """The state before the first step: zeros, complex [B, D, N / 2]."""
        dtype = torch.complex128 if self.D.dtype == torch.float64 else torch.complex64
        return self.D.new_zeros(batch_size, self.d_model, self.d_state // 2, dtype=dtype)

    def _mix(self, y: Tensor) -> Tensor:
        if self.output_linear is None:
            return y
        projection = self.output_linear[0]  # a convolution of width 1, on rows of channels
        assert isinstance(projection, nn.Conv1d)
        return F.glu(F.linear(F.gelu(y), projection.weight[..., 0], projection.bias), -1)
