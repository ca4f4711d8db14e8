"""Calls of the products behind s4_kernel, checked against the formulas in complex128."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from suffuse.reference import s4_kernel as formula
from suffuse.testing import assert_close_to_reference

DTYPES = (torch.complex64, torch.complex128)
PARTS = {torch.complex64: torch.float32, torch.complex128: torch.float64}

Vandermonde = Callable[[Tensor, Tensor, int, bool], Tensor]
Moments = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Cauchy = Callable[[Tensor, Tensor, Tensor, int, bool, bool], tuple[Tensor, Tensor]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.complex128)


def logarithms(rows: int, terms: int, seed: int = 1) -> Tensor:
    """Of slow decays with phases of any size below pi."""
    x = normal(rows, terms, seed=seed)
    return torch.complex(-0.01 * x.real.abs(), x.imag.clamp(-3, 3))


def poles(rows: int, terms: int, seed: int = 2) -> Tensor:
    w = normal(rows, terms, seed=seed)
    return torch.complex(-0.01 - w.real.abs(), 3 * w.imag)


def points(rows: int, count: int) -> Tensor:
    """On the imaginary axis, as the roots of unity are under the bilinear transform."""
    turn = torch.arange(count, dtype=torch.float64) / (2 * count)
    z = torch.complex(torch.zeros_like(turn), 2 * torch.tan(torch.pi * turn))
    return z * (1 + 0.1 * torch.arange(rows, dtype=torch.float64)[:, None])


def floor(x: Tensor, length: int = 0) -> float:
    """Some units in the last place; in complex128, where the formula in complex128 is the exact one,
    also what it loses itself: in its sums, and by rounding x l."""
    eps = torch.finfo(PARTS[x.dtype]).eps
    if x.dtype == torch.complex64 or x.numel() == 0:
        return 4 * eps
    return eps * (8 + float(x.abs().max()) * length)


def parts(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def double(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def compare(ours: Tensor, plain: Tensor, exact: Tensor, allowed: float, name: str) -> None:
    assert_close_to_reference(parts(ours), parts(plain), parts(exact), allowed, name)


def check_vandermonde(function: Vandermonde, v: Tensor, x: Tensor, length: int, real: bool) -> None:
    exact = formula.vandermonde(double(v), double(x), length, real)
    plain = formula.vandermonde(v, x, length, real)
    compare(function(v, x, length, real), plain, exact, floor(x, length), "K")


def check_moments(function: Moments, u: Tensor, x: Tensor) -> None:
    values = function(u, x), formula.moments(u, x), formula.moments(double(u), double(x))
    for name, ours, plain, exact in zip(("zeroth", "first"), *values, strict=True):
        compare(ours, plain, exact, floor(x, u.shape[1]), name)


def check_cauchy(
    function: Cauchy, v: Tensor, z: Tensor, w: Tensor, power: int, conj: bool, both: bool
) -> None:
    exact = formula.cauchy(double(v), double(z), double(w), power, conj, both)
    values = function(v, z, w, power, conj, both), formula.cauchy(v, z, w, power, conj, both), exact
    for name, ours, plain, wanted in zip(("out", "next"), *values, strict=True):
        compare(ours, plain, wanted, floor(v), name)
