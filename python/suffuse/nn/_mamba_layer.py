"""Parameters and computation of a Mamba layer, whatever the signature of its forward."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.nn._selective_layer import convolve, inverse_softplus_steps
from suffuse.ops import causal_conv1d_update, selective_scan, selective_state_update


class MambaLayer(nn.Module):
    """Base of `suffuse.nn.Mamba` and of mamba_ssm's class; the names are those of its checkpoints."""

    def __init__(
        self,
        d_model: int,
        d_state: int,
        d_conv: int,
        expand: float,
        dt_rank: int | None,
        dt_min: float,
        dt_max: float,
        dt_init: str,
        dt_scale: float,
        dt_init_floor: float,
        conv_bias: bool,
        bias: bool,
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self.conv1d = nn.Conv1d(
            self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1,
            bias=conv_bias,
        )  # fmt: skip
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self._init_steps(dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        rates = torch.arange(1, d_state + 1, dtype=torch.float32)  # S4D-real, section 3.6
        self.A_log = nn.Parameter(rates.log().repeat(self.d_inner, 1))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    @torch.no_grad()
    def _init_steps(
        self, dt_min: float, dt_max: float, dt_init: str, dt_scale: float, floor: float
    ) -> None:
        bound = dt_scale * self.dt_rank**-0.5  # keeps the variance
        if dt_init == "constant":
            nn.init.constant_(self.dt_proj.weight, bound)
        elif dt_init == "random":
            nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        else:
            raise ValueError(f"Mamba: dt_init: expected 'random' or 'constant', got {dt_init!r}")
        bias = inverse_softplus_steps(self.d_inner, dt_min, dt_max, floor)
        self.dt_proj.bias.copy_(bias)

    def _rates(self) -> Tensor:
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        return -self.A_log.to(wide).exp()

    def _filter(self) -> Tensor:
        return self.conv1d.weight.squeeze(1)

    def _sequence(
        self,
        x: Tensor,
        conv_state: Tensor | None = None,
        ssm_state: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> Tensor:
        """[B, T, d_model], going on from the states [B, D, W - 1] and [B, D, N] and leaving the last ones."""
        u, z = self.in_proj(x).mT.chunk(2, 1)
        u = convolve(u, self._filter(), self.conv1d.bias, conv_state, seq_idx)
        delta, B, C = self.x_proj(u.mT).split([self.dt_rank, self.d_state, self.d_state], -1)
        delta = F.linear(delta, self.dt_proj.weight)
        y, last = selective_scan(
            u, delta.mT, self._rates(), B.mT, C.mT, self.D, z, self.dt_proj.bias,
            delta_softplus=True, seq_idx=seq_idx, return_last_state=True,
            initial_state=None if ssm_state is None else ssm_state.clone(),
        )  # fmt: skip
        if ssm_state is not None:
            ssm_state.copy_(last.detach())
        return self.out_proj(y.mT)

    def _token(self, x: Tensor, conv_state: Tensor, ssm_state: Tensor) -> Tensor:
        """[B, d_model], one step, with the states updated in place."""
        u, z = self.in_proj(x).chunk(2, -1)
        u = causal_conv1d_update(u, conv_state, self._filter(), self.conv1d.bias, activation="silu")
        delta, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], -1)
        y = selective_state_update(
            ssm_state, u, F.linear(delta, self.dt_proj.weight), self._rates(), B, C, self.D, z,
            self.dt_proj.bias, dt_softplus=True,
        )  # fmt: skip
        return self.out_proj(y)

    def _states(
        self, batch_size: int, places: int, conv_dtype: torch.dtype, ssm_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        like = self.out_proj.weight
        conv = like.new_zeros(batch_size, self.d_inner, places, dtype=conv_dtype)
        return conv, like.new_zeros(batch_size, self.d_inner, self.d_state, dtype=ssm_dtype)
