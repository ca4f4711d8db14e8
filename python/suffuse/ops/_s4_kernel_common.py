"""The products behind s4_kernel, without gradients: kernels, or formulas on devices without."""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops._dispatch import has_kernel
from suffuse.reference import s4_kernel as formula


def check_tensors(op: str, **named: object) -> None:
    """Raises TypeError where a value is no tensor."""
    for name, value in named.items():
        if not isinstance(value, Tensor):
            got = type(value).__name__
            raise TypeError(f"{op}: {name}: expected a tensor, got {got}")


def check_complex(op: str, **named: Tensor) -> None:
    """Raises RuntimeError where dtypes are not the same complex one."""
    wanted = None
    for name, value in named.items():
        allowed = (torch.complex64, torch.complex128) if wanted is None else (wanted,)
        if value.dtype not in allowed:
            expected = " or ".join(str(dtype)[6:] for dtype in allowed)
            raise RuntimeError(
                f"{op}: {name}: expected dtype {expected}, got {str(value.dtype)[6:]}"
            )
        wanted = value.dtype


def vandermonde(v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    """See the formula of that name."""
    if not has_kernel("s4_kernel", x):
        return formula.vandermonde(v, x, length, real)
    return torch.ops.suffuse.s4_kernel_vandermonde.default(v, x, length, real)


def moments(u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """See the formula of that name."""
    if not has_kernel("s4_kernel", x):
        return formula.moments(u, x)
    return torch.ops.suffuse.s4_kernel_moments.default(u, x)


def cauchy(
    v: Tensor, z: Tensor, w: Tensor, power: int, conj: bool, both: bool
) -> tuple[Tensor, Tensor]:
    """See the formula of that name."""
    if not has_kernel("s4_kernel", v):
        return formula.cauchy(v, z, w, power, conj, both)
    return torch.ops.suffuse.s4_kernel_cauchy.default(v, z, w, power, conj, both)


@torch.library.register_fake("suffuse::s4_kernel_vandermonde")
def _vandermonde_fake(v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    return v.new_empty(v.shape[0], length, dtype=v.real.dtype if real else v.dtype)


@torch.library.register_fake("suffuse::s4_kernel_moments")
def _moments_fake(u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@torch.library.register_fake("suffuse::s4_kernel_cauchy")
def _cauchy_fake(
    v: Tensor, z: Tensor, w: Tensor, power: int, conj: bool, next: bool
) -> tuple[Tensor, Tensor]:
    rows, outputs = v.shape[0], z.shape[1]
    return v.new_empty(rows, outputs), v.new_empty(rows if next else 0, outputs)
