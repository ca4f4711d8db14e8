"""The layer of Mamba (Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces")."""

from __future__ import annotations

from suffuse.nn._mamba_layer import MambaLayer
from suffuse.nn._selective_layer import CachedLayer, SelectiveCache

__all__ = ["Mamba", "SelectiveCache"]


class Mamba(CachedLayer, MambaLayer):
    """Projection, causal convolution, selective scan, gate, projection: [B, T, D] -> [B, T, D].

    Parameters have the names of the package mamba_ssm, whose checkpoints load.

    Args:
        d_model: D.
        d_state: states a channel, N.
        d_conv: width of the convolution, W.
        expand: inner channels a model channel.
        dt_rank: rank of the step sizes; None: a sixteenth of d_model.
        dt_min, dt_max: between which the step sizes start, log-uniformly.
        dt_init: "random" or "constant" start of the projection to the step sizes.
        dt_scale: its scale.
        dt_init_floor: smallest start value of a step size.
        conv_bias, bias: of the convolution, of the first and last projection.

    Raises:
        ValueError: another dt_init.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__(
            d_model, d_state, d_conv, expand, dt_rank, dt_min, dt_max, dt_init, dt_scale,
            dt_init_floor, conv_bias, bias,
        )  # fmt: skip
