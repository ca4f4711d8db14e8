"""mamba_ssm.modules.mamba2: the layer of Mamba-2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse.compat.mamba_ssm.modules._states import keep_wide, states_of
from suffuse.nn._mamba2_layer import Mamba2Layer

__all__ = ["Mamba2"]


class Mamba2(Mamba2Layer):
    """`suffuse.nn.Mamba2` with the arguments and methods of mamba_ssm's class of this name.

    Args:
        use_mem_eff_path: has no effect: there is one path.
        layer_idx: the layer's key in the caches of inference_params.
        process_group: None.
        sequence_parallel: of no meaning without a process_group.
        device, dtype: of the parameters; D stays float32.

    The others: see `suffuse.nn.Mamba2`.

    Raises:
        NotImplementedError: a process_group.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        process_group: Any = None,
        sequence_parallel: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if process_group is not None:
            raise NotImplementedError("Mamba2: process_group is not supported")
        super().__init__(
            d_model, d_state, d_conv, conv_init, expand, headdim, d_ssm, ngroups, A_init_range,
            D_has_hdim, rmsnorm, norm_before_gate, dt_min, dt_max, dt_init_floor, dt_limit, bias,
            conv_bias, chunk_size,
        )  # fmt: skip
        self.activation, self.act = "silu", torch.nn.SiLU()
        self.use_mem_eff_path, self.layer_idx = use_mem_eff_path, layer_idx
        self.process_group, self.sequence_parallel = process_group, sequence_parallel
        keep_wide(self, (self.D,), device, dtype)

    def forward(
        self,
        u: Tensor,
        seqlen: int | None = None,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inference_params: Any = None,
    ) -> Tensor:
        """[B, L, D] -> [B, L, D].

        Args:
            u: [B, L, D], or [B L, D] with seqlen.
            seqlen: L.
            seq_idx: int32 [B, L]: sequences packed into one row.
            inference_params: with key_value_memory_dict and seqlen_offset, as mamba_ssm's generation
                has it: 0 begins a sequence, more is one step (L = 1). None: no cache.

        Raises:
            NotImplementedError: cu_seqlens; seq_idx keeps sequences apart.
        """
        if cu_seqlens is not None:
            raise NotImplementedError("Mamba2: cu_seqlens is not supported, seq_idx is")
        x = u if seqlen is None else u.unflatten(0, (-1, seqlen))
        if inference_params is None:
            out = self._sequence(x, seq_idx=seq_idx)
        else:
            beginning = inference_params.seqlen_offset == 0
            conv_state, ssm_state = self._get_states_from_cache(
                inference_params, x.shape[0], beginning
            )
            if beginning:
                out = self._sequence(x, conv_state, ssm_state, seq_idx)
            else:
                out = self.step(x, conv_state, ssm_state)[0]
        return out if seqlen is None else out.flatten(0, 1)

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step [B, 1, D] -> ([B, 1, D], conv_state, ssm_state), both updated in place."""
        if hidden_states.shape[1] != 1:
            raise ValueError(
                f"Mamba2.step: hidden_states: expected one step, got {hidden_states.shape[1]}"
            )
        out = self._token(hidden_states.squeeze(1), conv_state, ssm_state)
        return out.unsqueeze(1), conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Zeros: (conv_state [B, C, W], ssm_state [B, H, P, N]). Its size knows no max_seqlen."""
        conv, ssm = self.conv1d.weight.dtype, self.in_proj.weight.dtype
        return self._states(batch_size, self.d_conv, dtype or conv, dtype or ssm)

    def _get_states_from_cache(
        self, inference_params: Any, batch_size: int, initialize_states: bool = False
    ) -> tuple[Tensor, Tensor]:
        return states_of(self, inference_params, batch_size, initialize_states)
