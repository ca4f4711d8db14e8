"""mamba_ssm.modules.ssd_minimal: the bare scan of Mamba-2."""

from __future__ import annotations

from torch import Tensor

from suffuse.nn.ssd import ssd

__all__ = ["ssd_minimal_discrete"]


def ssd_minimal_discrete(
    X: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    block_len: int,
    initial_states: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`suffuse.nn.ssd.ssd` with the arguments of mamba_ssm's function of this name.

    Args:
        X: inputs times step sizes [B, L, H, P].
        A: logarithms of the decays [B, L, H].
        B, C: [B, L, H, N].
        block_len: the largest chunk; L need not be a multiple.
        initial_states: [B, 1, H, P, N], or None for 0.

    Returns:
        (Y [B, L, H, P], the state after the last step [B, H, P, N]).
    """
    initial = None if initial_states is None else initial_states[:, 0]
    return ssd(X, A, B, C, chunk_size=block_len, initial_state=initial)
