"""What a case of the benchmarks is, and what the cases share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Functions = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        op: the op's word.
        name: shape, dtype and variant in a few characters.
        make: device -> name -> function without arguments; "suffuse" is ours, the rest are peers.
        check: compares the functions' results; a sentence where they disagree, else None.
        flops: floating-point operations that the mathematics needs; 0 if memory-bound.
        bytes: compulsory traffic: every input read once, every output written once.
        dtype: whose multiply-add ceiling the FLOPs are compared with.
    """

    op: str
    name: str
    make: Callable[[str], Functions]
    check: Callable[[Functions], str | None] | None
    flops: float
    bytes: float
    dtype: torch.dtype | None = None


def same(tolerance: float) -> Callable[[Functions], str | None]:
    """A check that all results are as ours, to a relative difference of `tolerance` in norm."""

    def check(functions: Functions) -> str | None:
        ours = functions["suffuse"]()
        for name, function in functions.items():
            other = function()
            for a, b in zip(_tensors(ours), _tensors(other), strict=False):
                a, b = (t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (a, b))
                error = float((a - b).norm() / b.norm())
                if not error <= tolerance:
                    return f"relative difference {error:.1e} to {name}, allowed {tolerance:.0e}"
        return None

    return check


def _tensors(value: object) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for t in value if t is not None]  # type: ignore[attr-defined]


def described(shape: tuple[int, ...]) -> str:
    """2x4x64x64."""
    return "x".join(map(str, shape))
