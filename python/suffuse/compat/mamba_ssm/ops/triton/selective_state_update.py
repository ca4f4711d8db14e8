"""mamba_ssm.ops.triton.selective_state_update: one step of the scan on a state kept between calls."""

from __future__ import annotations

from torch import Tensor

from suffuse import ops
from suffuse.reference import selective_scan as formula

__all__ = ["selective_state_update", "selective_state_update_ref"]


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """`suffuse.selective_state_update` with the arguments of mamba_ssm's function of this name.

    Args:
        state: [B, D, N] or [B, H, P, N], updated in place; with state_batch_indices any number of
            slots in place of B.
        x, dt, z: [B, D] or [B, H, P]; z may be None.
        A: [D, N] or [H, P, N].
        B, C: [B, N] or [B, G, N].
        D, dt_bias: [D] or [H, P], or None.
        dt_softplus: whether dt + dt_bias goes through softplus.
        state_batch_indices: int32 [B], the slot of each batch entry; negative: padding.

    Returns:
        out in x's shape.
    """
    return ops.selective_state_update(
        state.detach(), x, dt, A, B, C, D, z, dt_bias,
        dt_softplus=dt_softplus, state_batch_indices=state_batch_indices,
    )  # fmt: skip


def selective_state_update_ref(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """The plain formula of `selective_state_update`."""
    return formula.selective_state_update(
        state.detach(), x, dt, A, B, C, D, z, dt_bias, dt_softplus=dt_softplus
    )
