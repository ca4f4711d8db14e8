"""The real-gated linear recurrent unit (De et al. 2024, "Griffin")."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.ops import linear_scan

__all__ = ["RGLRU", "RGLRUCache"]

_POWER = 8.0  # c of the paper


@dataclass
class RGLRUCache:
    """What generation keeps; updated in place.

    Attributes:
        state: h [B, D], float32 (float64 for float64).
        started: whether a step was taken.
    """

    state: Tensor
    started: bool = False


class RGLRU(nn.Module):
    """h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t) with gates of x_t: [B, T, D] -> [B, T, D].

    a_t = exp(-8 softplus(recurrent_param) r_t); r_t and i_t are sigmoids of block-diagonal
    projections (section 2.4). As in the authors' code the first step of a sequence is
    h_1 = i_1 x_1. Parameters have the names of transformers' RecurrentGemma.

    Args:
        d_model: D.
        num_heads: blocks of the projections; divides D.
        min_decay, max_decay: between which exp(-8 softplus(recurrent_param)) starts, uniformly.

    Raises:
        ValueError: heads that do not divide D.
    """

    def __init__(
        self,
        d_model: int,
        *,
        num_heads: int = 1,
        min_decay: float = 0.9,
        max_decay: float = 0.999,
    ) -> None:
        super().__init__()
        if num_heads < 1 or d_model % num_heads:
            raise ValueError(f"RGLRU: num_heads: expected a divisor of {d_model}, got {num_heads}")
        self.d_model, self.num_heads = d_model, num_heads
        width = d_model // num_heads
        decay = torch.rand(d_model) * (max_decay - min_decay) + min_decay
        self.recurrent_param = nn.Parameter(torch.expm1(-decay.log() / _POWER).log())
        for name in ("input_gate", "recurrent_gate"):
            weight = torch.randn(num_heads, width, width) / math.sqrt(width)
            self.register_parameter(f"{name}_weight", nn.Parameter(weight))
            bias = nn.Parameter(torch.zeros(num_heads, width))
            self.register_parameter(f"{name}_bias", bias)

    def forward(
        self, x: Tensor, cache: RGLRUCache | None = None, *, seq_idx: Tensor | None = None
    ) -> Tensor:
        """All steps at once.

        Args:
            x: [B, T, D].
            cache: goes on from it and leaves the last state in it (which is data: no gradient);
                None: the beginning of a sequence.
            seq_idx: int32 [B, T]: sequences packed into one row. The cache belongs to the first, and
                is of the last afterwards.
        """
        first = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        if cache is None or not cache.started:
            first[:, :1] = True
        if seq_idx is not None:
            first[:, 1:] |= seq_idx[:, 1:] != seq_idx[:, :-1]
        decay, inputs = self._gates(x, first[..., None])
        h, last = linear_scan(
            decay.mT, inputs.mT, initial_state=None if cache is None else cache.state.clone(),
            return_last_state=True, seq_idx=seq_idx,
        )  # fmt: skip
        if cache is not None and x.shape[1]:
            cache.state.copy_(last.detach())
            cache.started = True
        return h.mT.to(x.dtype)

    def step(self, x: Tensor, cache: RGLRUCache) -> Tensor:
        """One step [B, D] -> [B, D]; the cache moves on in place. The states are data: no gradient."""
        first = torch.full((1, 1), not cache.started, device=x.device)
        decay, inputs = self._gates(x, first)
        h = decay * cache.state.clone() + inputs
        cache.state.copy_(h.detach())
        cache.started = True
        return h.to(x.dtype)

    def allocate_cache(self, batch_size: int) -> RGLRUCache:
        """A cache of zeros before the first step."""
        wide = torch.promote_types(self.recurrent_param.dtype, torch.float32)
        return RGLRUCache(self.recurrent_param.new_zeros(batch_size, self.d_model, dtype=wide))

    def _gates(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """a and what is added to a h, of x [..., D]; first: where a sequence begins."""
        wide = torch.promote_types(self.recurrent_param.dtype, torch.float32)
        rates = F.softplus(self.recurrent_param.to(wide))
        log_decay = -_POWER * rates * self._gate(x, "recurrent_gate").to(wide)
        # below the clamp the gradient would have no bound
        norm = (-torch.expm1(2 * log_decay)).clamp(min=1e-12).sqrt()
        inputs = torch.where(first, 1.0, norm) * (self._gate(x, "input_gate") * x).to(wide)
        return log_decay.exp(), inputs

    def _gate(self, x: Tensor, name: str) -> Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        blocks = torch.einsum("...hi,hij->...hj", x.unflatten(-1, (self.num_heads, -1)), weight)
        return (blocks + bias).flatten(-2).sigmoid()
