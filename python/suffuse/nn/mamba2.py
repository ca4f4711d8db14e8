"""The layer of Mamba-2 (Dao and Gu 2024, "Transformers are SSMs").

Its scan is the chunked formula of `suffuse.nn.ssd`, as plain PyTorch.
"""

from __future__ import annotations

from suffuse.nn._mamba2_layer import Mamba2Layer
from suffuse.nn._selective_layer import CachedLayer, SelectiveCache

__all__ = ["Mamba2", "SelectiveCache"]


class Mamba2(CachedLayer, Mamba2Layer):
    """Projection, causal convolution, scan with one decay a head, norm with gate, projection.

    Parameters have the names of the package mamba_ssm, whose checkpoints load.

    Args:
        d_model: D.
        d_state: states a channel, N.
        d_conv: width of the convolution, W.
        conv_init: its weights start uniformly in this distance of 0; None: as torch.nn.Conv1d's.
        expand: inner channels a model channel.
        headdim: channels a head, P.
        d_ssm: inner channels with a scan, the rest is a gated MLP; None: all.
        ngroups: groups of heads that share B and C, G.
        A_init_range: between which the decay rates start, uniformly.
        D_has_hdim: whether the skip weight is of each channel, or of each head.
        rmsnorm: whether there is a norm with the gate, or the gate alone.
        norm_before_gate: norm(y) silu(z) instead of norm(y silu(z)).
        dt_min, dt_max: between which the step sizes start, log-uniformly.
        dt_init_floor: smallest start value of a step size.
        dt_limit: bounds of the step sizes.
        bias, conv_bias: of the first and last projection, of the convolution.
        chunk_size: the most steps that the scan takes at once; see `suffuse.nn.ssd.ssd`.

    Raises:
        ValueError: a headdim or ngroups that does not divide.
    """

    def __init__(
        self,
        d_model: int,
        *,
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
        chunk_size: int = 64,
    ) -> None:
        super().__init__(
            d_model, d_state, d_conv, conv_init, expand, headdim, d_ssm, ngroups, A_init_range,
            D_has_hdim, rmsnorm, norm_before_gate, dt_min, dt_max, dt_init_floor, dt_limit, bias,
            conv_bias, chunk_size,
        )  # fmt: skip
