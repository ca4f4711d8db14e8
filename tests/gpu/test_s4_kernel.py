"""s4_kernel on a CUDA device against the formulas in complex128: products, kernels, gradients."""

from __future__ import annotations

import pytest
import torch
from ops.s4_kernel_calls import (
    DTYPES,
    PARTS,
    check_cauchy,
    check_moments,
    check_vandermonde,
    logarithms,
    normal,
    points,
    poles,
)

from gpu.device import DEVICE, moved, on_device
from suffuse import info
from suffuse.ops import s4_kernel

pytestmark = pytest.mark.gpu
OPS = torch.ops.suffuse
vandermonde = on_device(OPS.s4_kernel_vandermonde.default)
moments = on_device(OPS.s4_kernel_moments.default)
cauchy = on_device(OPS.s4_kernel_cauchy.default)

# One row a thread and four, several chunks, terms that do not fill a block.
SHAPES = [(1, 1, 1), (3, 17, 65), (2, 64, 9001), (300, 5, 4500)]


def test_there_is_a_kernel():
    assert info.has_kernel("s4_kernel", "cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(shape: tuple[int, int, int], dtype: torch.dtype):
    rows, terms, length = shape
    v, x = normal(rows, terms).to(dtype), logarithms(rows, terms).to(dtype)
    u, w = normal(rows, length, seed=5).to(dtype), poles(rows, terms).to(dtype)
    for real in (True, False):
        check_vandermonde(vandermonde, v, x, length, real)
        check_moments(moments, u.real.to(PARTS[dtype]).contiguous() if real else u, x)
        for z in (points(1, length).to(dtype), points(rows, length).to(dtype)):
            check_cauchy(cauchy, v, z, w, 1, real, False)
            check_cauchy(cauchy, v, z, w, 1, real, True)
            check_cauchy(cauchy, u, w, z, 2, real, True)


@pytest.mark.parametrize("rank", [0, 1])
def test_kernels_and_gradients_equal_the_cpus(rank: int):
    system = [
        poles(3, 4) - 0.1,
        normal(3, 4),
        normal(2, 3, 4),
        torch.linspace(0.1, 0.4, 3).double(),
    ]
    low = [normal(1, 3, 4) / 2] if rank else []
    results = []
    for device in ("cpu", DEVICE):
        leaves = [moved(t, device).requires_grad_() for t in (*system, *low)]
        kernel = s4_kernel(*leaves[:4], 50, P=leaves[4] if rank else None)
        grads = torch.autograd.grad(kernel.square().sum(), leaves)
        results.append(moved([kernel.detach(), *grads], "cpu"))
    for got, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, expected)


def test_same_bits_at_every_run():
    v, x = (moved(t.to(torch.complex64), DEVICE) for t in (normal(4, 40), logarithms(4, 40)))
    u = moved(normal(4, 20_000).real.float(), DEVICE)
    expected = [OPS.s4_kernel_vandermonde(v, x, 20_000, True), *OPS.s4_kernel_moments(u, x)]
    for _ in range(5):
        got = [OPS.s4_kernel_vandermonde(v, x, 20_000, True), *OPS.s4_kernel_moments(u, x)]
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
