"""What layers around a selective scan share: start values of the step sizes, the cache, how they are called."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suffuse.ops import causal_conv1d


@dataclass
class SelectiveCache:
    """What generation keeps of one layer; updated in place.

    Attributes:
        conv: the last inputs of the convolution [B, C, W - 1], the newest last.
        state: of the scan, [B, D, N] or [B, H, P, N].
    """

    conv: Tensor
    state: Tensor


class CachedLayer(nn.Module):
    """The calls of `Mamba` and `Mamba2`; stands before the layer that has the arithmetic."""

    in_proj: nn.Linear
    d_conv: int
    _sequence: Any
    _token: Any
    _states: Any

    def forward(
        self, x: Tensor, cache: SelectiveCache | None = None, *, seq_idx: Tensor | None = None
    ) -> Tensor:
        """All steps at once.

        Args:
            x: [B, T, D].
            cache: goes on from it and leaves the last state in it; None: from 0.
            seq_idx: int32 [B, T]: sequences packed into one row. The cache belongs to the first, and
                is of the last afterwards.
        """
        if cache is None:
            return self._sequence(x, seq_idx=seq_idx)
        return self._sequence(x, cache.conv, cache.state, seq_idx)

    def step(self, x: Tensor, cache: SelectiveCache) -> Tensor:
        """One step [B, D] -> [B, D]; the cache moves on in place. The states are data: no gradient."""
        return self._token(x, cache.conv, cache.state)

    def allocate_cache(
        self, batch_size: int, *, dtype: torch.dtype | None = None
    ) -> SelectiveCache:
        """A cache of zeros.

        Args:
            batch_size: B.
            dtype: of the inputs, and so of the convolution's cache; None: the weights'. The state is
                float32 (float64 for float64).
        """
        dtype = self.in_proj.weight.dtype if dtype is None else dtype
        wide = torch.promote_types(dtype, torch.float32)
        return SelectiveCache(*self._states(batch_size, self.d_conv - 1, dtype, wide))


def inverse_softplus_steps(
    count: int,
    smallest: float,
    largest: float,
    floor: float,
    device: torch.device | str | None = None,
) -> Tensor:
    """[count] biases whose softplus is log-uniform in [smallest, largest], and `floor` at least.

    Gu and Dao 2023, section 3.6.
    """
    span = math.log(largest) - math.log(smallest)
    steps = torch.exp(torch.rand(count, device=device) * span + math.log(smallest))
    steps = steps.clamp(min=floor)
    return steps + torch.log(-torch.expm1(-steps))


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, seq_idx: Tensor | None
) -> Tensor:
    """SiLU of the causal convolution of [B, C, T], going on from state [B, C, W - 1 or more].

    The state moves on in place: its last W - 1 places.
    """
    if state is None:
        out = causal_conv1d(x, weight, bias, activation="silu", seq_idx=seq_idx)
        assert isinstance(out, Tensor)  # no state asked for
        return out
    kept = state[..., state.shape[-1] - weight.shape[-1] + 1 :]
    out, last = causal_conv1d(
        x, weight, bias, activation="silu", initial_state=kept.clone(), return_final_state=True,
        seq_idx=seq_idx,
    )  # fmt: skip
    kept.copy_(last.detach())
    return out
