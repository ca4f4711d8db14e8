"""Parameters and computation of a Mamba-2 layer, whatever the signature of its forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.nn._selective_layer import convolve, inverse_softplus_steps
from suffuse.nn.gated_norm import GatedRMSNorm
from suffuse.nn.ssd import scan_with_steps
from suffuse.ops import causal_conv1d_update, selective_state_update


class Mamba2Layer(nn.Module):
    """Base of `suffuse.nn.Mamba2` and of mamba_ssm's class; the names are those of its checkpoints."""

    def __init__(
        self,
        d_model: int,
        d_state: int,
        d_conv: int,
        conv_init: float | None,
        expand: float,
        headdim: int,
        d_ssm: int | None,
        ngroups: int,
        A_init_range: tuple[float, float],
        D_has_hdim: bool,
        rmsnorm: bool,
        norm_before_gate: bool,
        dt_min: float,
        dt_max: float,
        dt_init_floor: float,
        dt_limit: tuple[float, float],
        bias: bool,
        conv_bias: bool,
        chunk_size: int,
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.headdim, self.ngroups, self.chunk_size = headdim, ngroups, chunk_size
        self.D_has_hdim, self.rmsnorm, self.dt_limit = D_has_hdim, rmsnorm, dt_limit
        self.norm_before_gate = norm_before_gate
        self.d_inner = int(expand * d_model)
        self.d_ssm = self.d_inner if d_ssm is None else d_ssm
        self._check()
        self.nheads = self.d_ssm // headdim
        mixed = self.d_ssm + 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner + mixed - self.d_ssm + self.nheads, bias)
        self.conv1d = nn.Conv1d(
            mixed, mixed, d_conv, groups=mixed, padding=d_conv - 1, bias=conv_bias
        )
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        self.dt_bias = nn.Parameter(
            inverse_softplus_steps(self.nheads, dt_min, dt_max, dt_init_floor)
        )
        self.A_log = nn.Parameter(torch.empty(self.nheads).uniform_(*A_init_range).log())
        self.D = nn.Parameter(torch.ones(self.d_ssm if D_has_hdim else self.nheads))
        if rmsnorm:
            self.norm = GatedRMSNorm(
                self.d_ssm, norm_before_gate=norm_before_gate, group_size=self.d_ssm // ngroups
            )
        self.out_proj = nn.Linear(self.d_inner, d_model, bias)

    def _check(self) -> None:
        if self.d_ssm % self.headdim or self.d_ssm > self.d_inner:
            raise ValueError(
                f"Mamba2: headdim: expected a divisor of {self.d_ssm} channels of the scan (of "
                f"{self.d_inner}), got {self.headdim}"
            )
        if (self.d_ssm // self.headdim) % self.ngroups:
            raise ValueError(
                f"Mamba2: ngroups: expected a divisor of {self.d_ssm // self.headdim} heads, got "
                f"{self.ngroups}"
            )

    def _rates(self) -> Tensor:
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        return -self.A_log.to(wide).exp()

    def _skip(self) -> Tensor:
        return self.D.unflatten(0, (-1, self.headdim)) if self.D_has_hdim else self.D

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        """MLP gate and value, gate, convolved part, step sizes."""
        keys = 2 * self.ngroups * self.d_state
        mlp = self.d_inner - self.d_ssm
        return projected.split([mlp, mlp, self.d_ssm, self.d_ssm + keys, self.nheads], -1)

    def _parts(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [..., H, P], B and C [..., G, N]."""
        keys = self.ngroups * self.d_state
        x, B, C = mixed.split([self.d_ssm, keys, keys], -1)
        return (
            x.unflatten(-1, (self.nheads, self.headdim)),
            B.unflatten(-1, (self.ngroups, self.d_state)),
            C.unflatten(-1, (self.ngroups, self.d_state)),
        )

    def _finish(self, y: Tensor, z: Tensor, mlp_gate: Tensor, mlp_value: Tensor) -> Tensor:
        """Norm with gate, the MLP's channels, last projection of y [..., H, P]."""
        y = y.flatten(-2)
        if self.rmsnorm:
            y = self.norm(y, z)
        if mlp_gate.shape[-1]:
            y = torch.cat([F.silu(mlp_gate) * mlp_value, y], -1)
        return self.out_proj(y)

    def _gate(self, z: Tensor) -> Tensor | None:
        """[..., H, P] where no norm has it."""
        return None if self.rmsnorm else z.unflatten(-1, (self.nheads, self.headdim))

    def _sequence(
        self,
        x: Tensor,
        conv_state: Tensor | None = None,
        ssm_state: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> Tensor:
        """[B, T, d_model], going on from the states and leaving the last ones in them."""
        mlp_gate, mlp_value, z, mixed, dt = self._split(self.in_proj(x))
        mixed = convolve(
            mixed.mT, self.conv1d.weight.squeeze(1), self.conv1d.bias, conv_state, seq_idx
        ).mT
        x, B, C = self._parts(mixed)
        y, last = scan_with_steps(
            x, dt, self._rates(), B, C, D=self._skip(), z=self._gate(z), dt_bias=self.dt_bias,
            dt_softplus=True, dt_limit=self.dt_limit, chunk_size=self.chunk_size,
            initial_state=None if ssm_state is None else ssm_state.clone(), seq_idx=seq_idx,
        )  # fmt: skip
        if ssm_state is not None:
            ssm_state.copy_(last.detach())
        return self._finish(y, z, mlp_gate, mlp_value)

    def _token(self, x: Tensor, conv_state: Tensor, ssm_state: Tensor) -> Tensor:
        """[B, d_model], one step, with the states updated in place."""
        mlp_gate, mlp_value, z, mixed, dt = self._split(self.in_proj(x))
        mixed = causal_conv1d_update(
            mixed, conv_state, self.conv1d.weight.squeeze(1), self.conv1d.bias, activation="silu"
        )
        x, B, C = self._parts(mixed)
        dt = F.softplus(dt.to(self._rates().dtype) + self.dt_bias).clamp(*self.dt_limit)
        skip = self._skip() if self.D_has_hdim else self.D[:, None].expand(-1, self.headdim)
        y = selective_state_update(
            ssm_state, x, dt[..., None].expand(x.shape),
            self._rates()[:, None, None].expand(ssm_state.shape[1:]), B, C, skip, self._gate(z),
        )  # fmt: skip
        return self._finish(y, z, mlp_gate, mlp_value)

    def _states(
        self, batch_size: int, places: int, conv_dtype: torch.dtype, ssm_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        like, channels = self.out_proj.weight, self.conv1d.weight.shape[0]
        conv = like.new_zeros(batch_size, places, channels, dtype=conv_dtype).mT
        state = (batch_size, self.nheads, self.headdim, self.d_state)
        return conv, like.new_zeros(state, dtype=ssm_dtype)
