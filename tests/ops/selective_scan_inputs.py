"""What the selective_scan tests share: inputs, the plain PyTorch version, and the error rule on every result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse import ops
from suffuse.reference.selective_scan import selective_scan as reference
from suffuse.testing import assert_close_to_reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
# A few units in the last place. In half precision the gradient of z has one rounding more than the plain version's:
# that of the result before the gate, which is kept in u's dtype.
FLOOR = {dtype: (4 if dtype.itemsize > 2 else 1) * torch.finfo(dtype).eps for dtype in DTYPES}


@dataclass(frozen=True)
class Shape:
    B: int
    D: int
    L: int
    N: int
    G: int = 1
    constant_B: bool = False
    constant_C: bool = False

    def __str__(self) -> str:
        kinds = "-constB" * self.constant_B + "-constC" * self.constant_C
        return f"B{self.B}-D{self.D}-L{self.L}-N{self.N}-G{self.G}{kinds}"


def make(
    shape: Shape, dtype: torch.dtype, seed: int = 0, without: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """The operands by name; those of `without` are left out."""
    s, generator = shape, torch.Generator().manual_seed(seed)
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*size: int, to: torch.dtype = dtype) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(to)

    rows = (s.B, s.D, s.L)
    tensors = {
        "u": normal(*rows),
        "delta": normal(*rows) - 1,
        "A": -torch.rand(s.D, s.N, generator=generator, dtype=torch.float64).to(wide) * 4,
        "B": normal(s.D, s.N, to=wide) if s.constant_B else normal(s.B, s.G, s.N, s.L),
        "C": normal(s.D, s.N, to=wide) if s.constant_C else normal(s.B, s.G, s.N, s.L),
        "D": normal(s.D, to=wide),
        "z": normal(*rows),
        "delta_bias": normal(s.D, to=wide),
        "initial_state": normal(s.B, s.D, s.N, to=wide),
    }
    return {name: x for name, x in tensors.items() if name not in without}


def plain(u, delta, A, B, C, D=None, z=None, delta_bias=None, *, delta_softplus=False, initial_state=None,
          return_last_state=True, seq_idx=None, reverse=False):  # fmt: skip
    """What one writes without the op, in the dtype of the states; rounded to u's dtype at the end."""
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, step = u.to(wide), delta.to(wide)
    if delta_bias is not None:
        step = step + delta_bias[:, None]
    if delta_softplus:
        step = F.softplus(step)

    def spread(m: Tensor) -> Tensor:  # [B, D, N, L]
        if m.dim() == 2:
            return m[None, :, :, None].expand(*u.shape[:2], m.shape[1], u.shape[2])
        return m.to(wide).repeat_interleave(u.shape[1] // m.shape[1], 1)

    decay = torch.exp(step[:, :, None] * A[None, :, :, None])
    entering = (step * x)[:, :, None] * spread(B)
    state = torch.zeros_like(decay[..., 0]) if initial_state is None else initial_state
    states = [state] * u.shape[2]
    order = list(range(u.shape[2]))[:: -1 if reverse else 1]
    for i, t in enumerate(order):
        if seq_idx is not None and i:
            state = state * (seq_idx[:, t] == seq_idx[:, order[i - 1]])[:, None, None]
        state = decay[..., t] * state + entering[..., t]
        states[t] = state
    out = (torch.stack(states, -1) * spread(C)).sum(2) if states else torch.zeros_like(x)
    if D is not None:
        out = out + D[:, None] * x
    if z is not None:
        out = out * F.silu(z.to(wide))
    return out.to(u.dtype), state


def cotangents(u: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Fixed gradients of out and the last state."""
    generator = torch.Generator().manual_seed(1)
    of_out, of_last = (
        torch.randn(y.shape, generator=generator, dtype=torch.float64).to(u.dtype).to(y.dtype)
        for y in (u, last)
    )
    return of_out, of_last


def results(function: Callable, tensors: dict[str, Tensor], **options) -> dict[str, Tensor]:
    """out, the last state and all gradients, for fixed cotangents of both."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    out, last = function(**leaves, **options, return_last_state=True)
    grads = torch.autograd.grad(
        (out, last), list(leaves.values()), cotangents(tensors["u"], last), materialize_grads=True
    )
    named = {f"grad_{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {"out": out.detach(), "last_state": last.detach(), **named}


def check(
    tensors: dict[str, Tensor], run: Callable | None = None, floor: float = 1.0, **options
) -> None:
    """The error rule on the results and all gradients.

    Args:
        run: tensors and options -> the same as `results`; by default the public function's.
        floor: times FLOOR.
    """
    ours = run(tensors, **options) if run else results(ops.selective_scan, tensors, **options)
    naive = results(plain, tensors, **options)
    wide = {name: x.double() for name, x in tensors.items()}
    exact = results(reference, wide, **options)
    floor *= FLOOR[tensors["u"].dtype]
    assert ours.keys() == exact.keys()
    for name, expected in exact.items():
        assert_close_to_reference(
            ours[name], naive[name].to(ours[name].dtype), expected, floor, name
        )
