"""mamba_ssm.modules.mamba_simple: the layer of Mamba-1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse.compat.mamba_ssm.modules._states import keep_wide, states_of
from suffuse.compat.mamba_ssm.ops.selective_scan_interface import mamba_inner_fn
from suffuse.nn._mamba_layer import MambaLayer

__all__ = ["Mamba"]


class Mamba(MambaLayer):
    """`suffuse.nn.Mamba` with the arguments and methods of mamba_ssm's class of this name.

    Args:
        use_fast_path: whether sequences without a cache go through `mamba_inner_fn`.
        layer_idx: the layer's key in the caches of inference_params.
        device, dtype: of the parameters; A_log and D stay float32.

    The others: see `suffuse.nn.Mamba`.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        rank = None if dt_rank == "auto" else int(dt_rank)
        super().__init__(
            d_model, d_state, d_conv, expand, rank, dt_min, dt_max, dt_init, dt_scale,
            dt_init_floor, conv_bias, bias,
        )  # fmt: skip
        self.activation, self.act = "silu", torch.nn.SiLU()
        self.use_fast_path, self.layer_idx = use_fast_path, layer_idx
        keep_wide(self, (self.A_log, self.D), device, dtype)

    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor:
        """[B, L, D] -> [B, L, D].

        Args:
            inference_params: with key_value_memory_dict and seqlen_offset, as mamba_ssm's generation
                has it: 0 begins a sequence, more is one step (L = 1). None: no cache.
        """
        if inference_params is None:
            if self.use_fast_path:
                return self._fused(hidden_states)
            return self._sequence(hidden_states)
        conv_state, ssm_state = self._get_states_from_cache(
            inference_params, hidden_states.shape[0], inference_params.seqlen_offset == 0
        )
        if inference_params.seqlen_offset > 0:
            return self.step(hidden_states, conv_state, ssm_state)[0]
        return self._sequence(hidden_states, conv_state, ssm_state)

    def _fused(self, hidden_states: Tensor) -> Tensor:
        return mamba_inner_fn(
            self.in_proj(hidden_states).mT,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.out_proj.weight,
            self.out_proj.bias,
            self._rates(),
            D=self.D,
            delta_bias=self.dt_proj.bias,
        )

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step [B, 1, D] -> ([B, 1, D], conv_state, ssm_state), both updated in place."""
        if hidden_states.shape[1] != 1:
            raise ValueError(
                f"Mamba.step: hidden_states: expected one step, got {hidden_states.shape[1]}"
            )
        out = self._token(hidden_states.squeeze(1), conv_state, ssm_state)
        return out.unsqueeze(1), conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Zeros: (conv_state [B, D, W], ssm_state [B, D, N]). Its size knows no max_seqlen."""
        conv, ssm = self.conv1d.weight.dtype, self.dt_proj.weight.dtype
        return self._states(batch_size, self.d_conv, dtype or conv, dtype or ssm)

    def _get_states_from_cache(
        self, inference_params: Any, batch_size: int, initialize_states: bool = False
    ) -> tuple[Tensor, Tensor]:
        return states_of(self, inference_params, batch_size, initialize_states)
