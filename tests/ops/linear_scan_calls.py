"""Calls of linear_scan, and of the torch op behind it, checked against float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from suffuse.testing import assert_close_to_reference

REAL = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
COMPLEX = (torch.complex128, torch.complex64)

Call = dict[str, Tensor]
# a [B, C, T], x, initial state, seq_idx, reverse, lagged -> h, last state
Scan = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, bool, bool], tuple[Tensor, Tensor]]


def floor(dtype: torch.dtype) -> float:
    return (4 if dtype not in (torch.bfloat16, torch.float16) else 0.5) * torch.finfo(dtype).eps


def wide_of(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def double_of(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def make(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    seed: int = 0,
    constant: bool = False,
    wide_a: bool = False,
) -> Call:
    """Operands with decays of any sign and phase. wide_a: decays in float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=double_of(dtype))

    a = normal(shape[1]) if constant else normal(*shape)
    a = a / a.abs().clamp(min=1) * 0.95  # no longer than 1
    return {
        "a": a.to(wide_of(dtype) if wide_a else dtype),
        "x": normal(*shape).to(dtype),
        "initial_state": normal(*shape[:2]).to(wide_of(dtype)),
    }


def packed(x: Tensor, starts: Sequence[int]) -> Tensor:
    """seq_idx of sequences that start at 0 and at these steps."""
    length = x.shape[2]
    cuts = [0, *(start for start in starts if start < length), length]
    sizes = torch.tensor([end - begin for begin, end in itertools.pairwise(cuts)])
    index = torch.repeat_interleave(torch.arange(len(sizes), dtype=torch.int32), sizes)
    return index.expand(x.shape[0], -1)


def parts(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def check_scan(
    scan: Scan, call: Call, sequence: Tensor | None, reverse: bool, lagged: bool
) -> tuple[Tensor, Tensor]:
    """Checks the op of another device by the error rule and returns its results; the CPU's kernel
    goes step by step, and its float64 results stand in for the formula's loop over long rows."""
    a, x, initial = call["a"], call["x"], call["initial_state"]
    a = (a[:, None] if a.dim() == 1 else a).expand(x.shape)
    loop = torch.ops.suffuse.linear_scan.default
    wide = double_of(x.dtype)
    exact = loop(a.to(wide), x.to(wide), initial.to(wide), sequence, reverse, lagged)
    naive = loop(a, x, initial, sequence, reverse, lagged)
    ours = scan(a, x, initial, sequence, reverse, lagged)
    for name, *values in zip(("h", "last"), ours, naive, exact, strict=True):
        assert_close_to_reference(*map(parts, values), floor(x.dtype), name)
    return ours
