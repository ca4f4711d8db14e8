"""causal_conv1d.causal_conv1d_interface: the convolution and its update, with the original's arguments."""

from __future__ import annotations

from torch import Tensor

from suffuse import ops
from suffuse.reference import causal_conv1d as formula

__all__ = [
    "causal_conv1d_fn",
    "causal_conv1d_ref",
    "causal_conv1d_update",
    "causal_conv1d_update_ref",
]


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`suffuse.causal_conv1d` with the arguments of causal-conv1d's function of this name.

    Args:
        x: [B, D, L].
        weight: [D, W].
        bias: [D], or None.
        seq_idx: int32 [B, L]; -1 is padding, of which out is 0.
        initial_states: [B, D, W - 1], or None for 0.
        return_final_states: also return the last W - 1 inputs.
        final_states_out: [B, D, W - 1], written with them and returned; no gradient flows through it.
        activation: None, "silu" or "swish".

    Returns:
        out [B, D, L], or (out, final states).
    """
    result = ops.causal_conv1d(
        x,
        weight,
        bias,
        activation=activation,
        initial_state=initial_states,
        return_final_state=return_final_states,
        seq_idx=seq_idx,
    )
    return _with_final_states(result, final_states_out)


def causal_conv1d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The plain formula of `causal_conv1d_fn`."""
    result = formula.causal_conv1d(
        x,
        weight,
        bias,
        activation=activation,
        initial_state=initial_states,
        return_final_state=return_final_states,
    )
    return _with_final_states(result, final_states_out)


def _with_final_states(
    result: Tensor | tuple[Tensor, Tensor], given: Tensor | None
) -> Tensor | tuple[Tensor, Tensor]:
    if given is None or isinstance(result, Tensor):
        return result
    given.copy_(result[1].detach())
    return result[0], given


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """`suffuse.causal_conv1d_update` with the arguments of causal-conv1d's function of this name.

    Args:
        x: [B, D], or [B, D, L].
        conv_state: [B, D, S] or [N, D, S] with S >= W - 1, updated in place.
        weight: [D, W].
        bias: [D], or None.
        activation: None, "silu" or "swish".
        cache_seqlens: int32 [B]: conv_state is a ring, written from cache_seqlens mod S on.
        conv_state_indices: int32 [B], which state a batch entry has; -1: none, out is 0.

    Returns:
        out in x's shape.
    """
    return ops.causal_conv1d_update(
        x,
        conv_state.detach(),
        weight,
        bias,
        activation=activation,
        cache_seqlens=cache_seqlens,
        conv_state_indices=conv_state_indices,
    )


def causal_conv1d_update_ref(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    """The plain formula of `causal_conv1d_update`."""
    return formula.causal_conv1d_update(
        x,
        conv_state.detach(),
        weight,
        bias,
        activation=activation,
        cache_seqlens=cache_seqlens,
    )
