"""What the tests of selective_state_update share: calls, and the error rule on out and state."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse import ops
from suffuse.reference.selective_scan import selective_state_update as reference
from suffuse.testing import assert_close_to_reference

F64, FLOAT, BF16, HALF = torch.float64, torch.float32, torch.bfloat16, torch.float16
NARROW = (FLOAT, BF16, HALF)
MIXES = [(F64, F64), *((x, state) for x in NARROW for state in NARROW)]  # of x and the state


def make(
    size: tuple[int, ...],
    states: int,
    dtype: torch.dtype,
    *,
    groups: int = 1,
    slots: int | None = None,
    state_dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """The operands by name, for x of that size; groups 0: B and C [B, N]."""
    generator = torch.Generator().manual_seed(sum(size) + states)
    wide = F64 if dtype == F64 else FLOAT
    batch, *channels = size

    def normal(*shape: int, to: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=F64).to(to)

    projected = (batch, groups, states) if groups else (batch, states)
    return {
        "state": normal(slots or batch, *channels, states, to=state_dtype or wide),
        "x": normal(*size),
        "dt": normal(*size) - 1,
        "A": -torch.rand(*channels, states, generator=generator, dtype=F64).to(wide) * 4,
        "B": normal(*projected),
        "C": normal(*projected),
        "D": normal(*channels, to=wide),
        "z": normal(*size),
        "dt_bias": normal(*channels, to=wide),
    }


def plain(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, *, dt_softplus=False,
          state_batch_indices=None):  # fmt: skip
    """What one writes without the op, in the dtype of the arithmetic."""
    wide = F64 if x.dtype == F64 else FLOAT
    slots = torch.arange(len(x)) if state_batch_indices is None else state_batch_indices.long()
    out = torch.zeros_like(x)
    for i, slot in enumerate(slots.tolist()):
        if slot < 0:
            continue
        step, u = dt[i].to(wide), x[i].to(wide)
        step = step if dt_bias is None else step + dt_bias
        step = F.softplus(step) if dt_softplus else step
        b, c = (
            m[i].to(wide).view(-1, m.shape[-1]).repeat_interleave(
                x.shape[1] // m[i].view(-1, m.shape[-1]).shape[0], 0
            )
            for m in (B.contiguous(), C.contiguous())
        )  # fmt: skip
        if x.dim() == 3:
            b, c = b[:, None], c[:, None]
        h = torch.exp(step[..., None] * A) * state[slot].to(wide) + (step * u)[..., None] * b
        state[slot] = h.to(state.dtype)
        y = (h * c).sum(-1)
        y = y if D is None else y + D * u
        y = y if z is None else y * F.silu(z[i].to(wide))
        out[i] = y.to(x.dtype)
    return out


def check(
    call: dict[str, Tensor], run: Callable | None = None, *, floor: float = 1.0, dt_softplus: bool = True
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The error rule on out and the state; returns both.

    Args:
        run: in place of the public function.
        floor: times a few units in the last place.
    """
    results = []
    for function, wide in ((run or ops.selective_state_update, False), (plain, False), (reference, True)):  # fmt: skip
        given = {n: v.double() if wide and v.is_floating_point() else v for n, v in call.items()}
        given["state"] = given["state"].clone()
        out = function(**given, dt_softplus=dt_softplus)
        results.append((out, given["state"]))
    for name, ours, naive, exact in zip(("out", "state"), *results, strict=True):
        eps = torch.finfo(ours.dtype).eps
        allowed = floor * (4 if ours.dtype.itemsize > 2 else 1) * eps
        assert_close_to_reference(ours, naive, exact, allowed, name)
    return results[0]
