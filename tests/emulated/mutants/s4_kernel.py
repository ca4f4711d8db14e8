"""Bugs planted in the kernels of s4_kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ops.s4_kernel_calls import (
    check_cauchy,
    check_moments,
    check_vandermonde,
    logarithms,
    normal,
    points,
    poles,
)

from emulated.harness import Emulator, assert_coalesced
from emulated.mutants import Mutant
from emulated.s4_kernel_device import EmulatedS4

SINGLE = torch.complex64
KERNEL = "csrc/ops/s4_kernel/cuda/kernel.cuh"
POWER = "csrc/ops/s4_kernel/cuda/power.cuh"
POWERS = "csrc/ops/s4_kernel/cuda/powers.cuh"
MOMENTS = "csrc/ops/s4_kernel/cuda/moments.cuh"
CAUCHY = "csrc/ops/s4_kernel/cuda/cauchy.cuh"
CONFIG = "csrc/ops/s4_kernel/cuda/config.h"


def product(device: Emulator) -> None:
    """Two tiles a row, two blocks of terms, a ragged end."""
    v, x = normal(2, 19).to(SINGLE), logarithms(2, 19).to(SINGLE)
    s4 = EmulatedS4(device)
    check_vandermonde(s4.vandermonde, v, x, 1100, True)


def whole_tiles(device: Emulator) -> None:
    """Of which every access needs no more than its bytes do."""
    v, x = normal(2, 32).to(SINGLE), logarithms(2, 32).to(SINGLE)
    s4 = EmulatedS4(device)
    check_vandermonde(s4.vandermonde, v, x, 1024, True)
    assert_coalesced(s4.report.counters)


def late_steps(device: Emulator) -> None:
    """Phases that rounding would spoil."""
    x = torch.tensor([[-1e-6 + 3.1j]], dtype=SINGLE)
    ours = EmulatedS4(device).vandermonde(torch.ones_like(x), x, 20_000, True)[0, -1]
    exact = 2 * torch.exp(x.to(torch.complex128) * 19_999).real
    assert abs(float(ours - exact)) < 1e-6


def moments(device: Emulator) -> None:
    """Two chunks of complex inputs."""
    u, x = normal(1, 4200).to(SINGLE), logarithms(1, 18).to(SINGLE)
    check_moments(EmulatedS4(device).moments, u, x)


def cauchy_of_many_outputs(device: Emulator) -> None:
    z, w = points(2, 300).to(SINGLE), poles(2, 40).to(SINGLE)
    check_cauchy(EmulatedS4(device).cauchy, normal(2, 40).to(SINGLE), z, w, 1, True, False)


def cauchy_of_many_terms(device: Emulator) -> None:
    z, w = points(1, 40).to(SINGLE), poles(2, 600).to(SINGLE)
    s4 = EmulatedS4(device)
    check_cauchy(s4.cauchy, normal(2, 600).to(SINGLE), z, w, 2, True, True)


def bug(
    file: str, case: Callable[[Emulator], None], caught_by: str, name: str, old: str, new: str
) -> Mutant:
    return Mutant(name, "s4_kernel", file, old, new, case, caught_by)


RACE = "shared race|race|uninitialised|numbers"

MUTANTS = [
    bug(KERNEL, product, RACE, "tables are filled before all digits are there",
        "    __syncthreads();\n    fill_tables(shared);", "    fill_tables(shared);"),
    bug(KERNEL, product, RACE, "tables are read before they are full",
        "fill_tables(shared);\n    __syncthreads();", "fill_tables(shared);"),
    bug(KERNEL, product, "out of bounds|race between blocks", "results behind the end of a row",
        "if (l >= p.length) continue;", ""),
    bug(KERNEL, product, "numbers", "the conjugate of the powers",
        "fma(-factor.im, powers[j].im,", "fma(factor.im, powers[j].im,"),
    bug(POWERS, product, "numbers", "every block begins at step 0",
        "(place == 3 ? begin : 0)", "(place == 3 ? 0 : 0)"),
    bug(POWERS, whole_tiles, "counters", "digits lie in the same banks",
        "power[4][8][kS4Terms + 1]", "power[4][8][kS4Terms]"),
    bug(POWERS, product, "out of bounds", "terms behind the last one are read",
        "if (term < terms) {", "if (true) {"),
    bug(POWER, late_steps, "numbers", "a rounded phase",
        "static_cast<double>(x.im) * static_cast<double>(l)", "x.im * step"),
    bug(POWER, product, "numbers", "sine and cosine change places in even quadrants",
        "quarter == 1 || quarter == -1;", "quarter == 1 || quarter == 2;"),
    bug(MOMENTS, moments, "numbers", "the imaginary part counts as real",
        "S4Complex<T>{-sum.im, sum.re}", "sum"),
    bug(MOMENTS, moments, "numbers", "the step of the row is forgotten",
        "fma(l, sum.re, rows[i].first.re)", "rows[i].first.re"),
    bug(MOMENTS, moments, "numbers", "a chunk is left out of the sum",
        "c < chunks; c++", "c < chunks - 1; c++"),
    bug(MOMENTS, moments, "out of bounds|numbers", "inputs behind the end of u",
        "if (l < p.length && p.complex)", "if (p.complex)"),
    bug(MOMENTS, moments, RACE, "moments are added up before all are there",
        "shared.sums[1][group][term] = mine.first;\n      __syncthreads();",
        "shared.sums[1][group][term] = mine.first;"),
    bug(CAUCHY, cauchy_of_many_outputs, "numbers", "the partner's weight is not conjugate",
        "-2 * (v.im * w.im)", "2 * (v.im * w.im)"),
    bug(CAUCHY, cauchy_of_many_outputs, "numbers", "points of the first row for all",
        "+ row * p.z_row;", "+ 0 * p.z_row;"),
    bug(CAUCHY, cauchy_of_many_terms, "numbers|" + RACE, "threads of a group share no terms",
        "for (int i = 1; i < kGroups && group == 0; i++)", "for (int i = 2; i < kGroups; i++)"),
    bug(CAUCHY, cauchy_of_many_terms, RACE, "terms change while they are read",
        "    __syncthreads();  // the terms before are used up\n", ""),
    bug(CONFIG, cauchy_of_many_outputs, "numbers|uninitialised", "outputs that no block has",
        "return (p.outputs + tile - 1) / tile;", "return p.outputs / tile;"),
]  # fmt: skip
