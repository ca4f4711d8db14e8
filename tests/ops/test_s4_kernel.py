"""s4_kernel against powers of dense matrices, and the products it is made of against their formulas."""

from __future__ import annotations

import re

import pytest
import torch
from ops.s4_kernel_calls import compare, double, normal, parts, poles

from suffuse import ops
from suffuse.reference.s4_kernel import s4_kernel as reference
from suffuse.testing import assert_close_to_reference, cpu_isas, relative_error, use_isa

DOUBLE, SINGLE = torch.complex128, torch.complex64
HEADS, CHANNELS, STATES = 2, 3, 4


def system(dtype=DOUBLE, rank=0, seed=0):
    """Stable, with steps of the size that models use."""
    A = poles(CHANNELS, STATES, seed) - 0.1
    tensors = {
        "A": A,
        "B": normal(CHANNELS, STATES, seed=seed + 1),
        "C": normal(HEADS, CHANNELS, STATES, seed=seed + 2),
        "dt": torch.linspace(0.05, 0.4, CHANNELS, dtype=torch.float64),
    }
    if rank:
        tensors["P"] = normal(rank, CHANNELS, STATES, seed=seed + 3) / 2
    real = torch.empty(0, dtype=dtype).real.dtype
    return {name: t.to(dtype if t.is_complex() else real) for name, t in tensors.items()}


@pytest.mark.parametrize("length", [0, 1, 2, 11, 300])
@pytest.mark.parametrize("method", ["zoh", "bilinear", None])
def test_diagonal_systems(method, length):
    tensors = system()
    got = ops.s4_kernel(**tensors, L=length, discretization=method)
    expected = reference(**tensors, L=length, discretization=method)
    assert got.shape == (HEADS, CHANNELS, length) and got.dtype == torch.float64
    assert length == 0 or relative_error(got, expected) < 1e-13


@pytest.mark.parametrize("length", [0, 1, 2, 11, 12, 300])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("truncation", [None, "same", "longer", "shorter"])
def test_low_rank_systems(truncation, rank, length):
    tensors = system(rank=rank)
    cut = {None: None, "same": max(length, 1), "longer": length + 7, "shorter": length // 2 or 1}
    options = {"L": length, "truncation": cut[truncation]}
    got, expected = ops.s4_kernel(**tensors, **options), reference(**tensors, **options)
    assert got.shape == (HEADS, CHANNELS, length)
    assert length == 0 or relative_error(got, expected) < 1e-12


def test_one_head_and_shared_inputs():
    tensors = system()
    whole = ops.s4_kernel(**tensors, L=9)
    one = ops.s4_kernel(**{**tensors, "C": tensors["C"][1]}, L=9)
    assert torch.equal(one, whole[1])
    tensors["B"] = tensors["B"][0]
    full = {**tensors, "B": tensors["B"].repeat(CHANNELS, 1)}
    assert torch.equal(ops.s4_kernel(**tensors, L=9), ops.s4_kernel(**full, L=9))


def test_an_integrator_has_a_constant_response():
    one = torch.ones(1, 1, dtype=DOUBLE)
    kernel = ops.s4_kernel(0 * one, one, one, torch.tensor([0.25]).double(), 6)
    assert torch.allclose(kernel, torch.full((1, 6), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("rank", [0, 1])
def test_error_in_single_precision(rank, isa):
    """Against the system in double; the plain version does the same with the formulas' sums."""
    tensors = system(SINGLE, rank)
    wide = {name: t.to(double(t).dtype) for name, t in tensors.items()}
    exact, plain = reference(**wide, L=200), reference(**tensors, L=200)
    with use_isa(isa):
        assert_close_to_reference(ops.s4_kernel(**tensors, L=200), plain, exact, 2e-6, "K")


@pytest.mark.parametrize(("rank", "options"), [
    (0, {"discretization": "zoh"}), (0, {"discretization": "bilinear"}), (1, {}),
    (2, {"truncation": 6}), (1, {"truncation": 4}),
])  # fmt: skip
def test_gradcheck(rank, options):
    tensors = {name: t.requires_grad_() for name, t in system(rank=rank).items()}
    tensors["C"] = tensors["C"].detach()[:1, :, :].requires_grad_()
    names = list(tensors)

    def function(*values):
        return ops.s4_kernel(**dict(zip(names, values, strict=True)), L=6, **options)

    assert torch.autograd.gradcheck(function, list(tensors.values()))
    assert torch.autograd.gradgradcheck(function, list(tensors.values()), fast_mode=True)


def test_gradients_in_single_precision():
    """Of the loss that a long kernel has, by the error rule."""

    def gradients(function, tensors):
        leaves = {name: t.clone().requires_grad_() for name, t in tensors.items()}
        kernel = function(**leaves, L=700)
        weight = torch.linspace(-1, 1, 700, dtype=kernel.dtype)
        return torch.autograd.grad((kernel * weight).sum(), list(leaves.values()))

    tensors = system(SINGLE)
    wide = {name: t.to(double(t).dtype) for name, t in tensors.items()}
    ours = gradients(ops.s4_kernel, tensors)
    for name, got, plain, exact in zip(
        tensors, ours, gradients(reference, tensors), gradients(reference, wide), strict=True
    ):
        compare(got, plain, exact, 2e-6, name)


def test_compile_without_a_graph_break():
    tensors = system(SINGLE, rank=1)
    A = tensors.pop("A").requires_grad_()

    def loss(A):
        return ops.s4_kernel(A, **tensors, L=12).square().sum()

    (expected,) = torch.autograd.grad(loss(A), A)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(A), A)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("shape", [(2, 3, 17), (1, 1, 1), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, DOUBLE], ids=str)
def test_convolution(dtype, shape):
    _, channels, length = shape
    u, k = normal(*shape), normal(channels, length, seed=1)
    u, k = (u, k) if dtype == DOUBLE else (u.real.to(dtype), k.real)
    D = torch.linspace(-1, 1, channels, dtype=torch.float64)
    got = ops.fft_conv(u, k.to(dtype if dtype != torch.bfloat16 else torch.float32), D)
    expected = D[:, None] * double(u)
    for t in range(length):
        for s in range(t + 1):
            expected[..., t] += k[:, s] * double(u)[..., t - s]
    assert got.dtype == dtype and got.shape == shape
    tolerance = {torch.float64: 1e-14, DOUBLE: 1e-14, torch.float32: 1e-6}.get(dtype, 6e-3)
    assert length == 0 or relative_error(parts(got), parts(expected)) < tolerance


def test_convolution_with_several_heads_and_a_short_kernel():
    u, k = normal(2, 3, 20).real, normal(4, 1, 3, 5).real
    got = ops.fft_conv(u, k)
    assert got.shape == (4, 2, 3, 20)
    padded = torch.cat([k, torch.zeros(4, 1, 3, 15, dtype=k.dtype)], -1)
    assert torch.allclose(got, ops.fft_conv(u, padded)) and torch.allclose(
        got[0], ops.fft_conv(u, k[0])
    )
    assert torch.autograd.gradcheck(
        ops.fft_conv, (u[:1, :1, :6].requires_grad_(), k[0, 0, :1].requires_grad_())
    )


def test_a_kernel_convolved_is_the_recurrence():
    tensors = system(rank=1)
    u = normal(1, CHANNELS, 30, seed=9).real
    y = ops.fft_conv(u, ops.s4_kernel(**tensors, L=30)[0])
    impulse = reference(**tensors, L=30)[0]
    expected = sum(impulse[:, s] * u[0, :, 29 - s] for s in range(30))
    assert torch.allclose(y[0, :, 29], expected)


WRONG = {
    "A": ({"A": normal(4)}, RuntimeError, "[H, N]", "(4,)"),
    "A dtype": ({"A": normal(3, 4).real}, RuntimeError, "complex64 or complex128", "float64"),
    "A kind": ({"A": 1.0}, TypeError, "a tensor", "float"),
    "B": ({"B": normal(3, 5)}, RuntimeError, "(3, 4)", "(3, 5)"),
    "B dtype": ({"B": normal(3, 4).to(SINGLE)}, RuntimeError, "complex128", "complex64"),
    "C": ({"C": normal(2, 4)}, RuntimeError, "(3, 4)", "(2, 4)"),
    "dt": ({"dt": torch.ones(4).double()}, RuntimeError, "(3,)", "(4,)"),
    "dt dtype": ({"dt": torch.ones(3)}, RuntimeError, "float64", "float32"),
    "P": ({"P": normal(3, 4)}, RuntimeError, "[rank, H, N]", "(3, 4)"),
    "L": ({"L": -1}, ValueError, "at least 0", "-1"),
    "discretization": ({"discretization": "euler"}, ValueError, "'zoh'", "'euler'"),
    "discretization with P": (
        {"discretization": "zoh", "P": normal(1, 3, 4)},
        NotImplementedError,
        "'bilinear'",
        "'zoh'",
    ),
    "truncation": ({"truncation": 5}, ValueError, "None or, with P, at least 1", "5"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call(name):
    changed, error, expected, got = WRONG[name]
    with pytest.raises(error) as raised:
        ops.s4_kernel(**{**system(), "L": 5, **changed})
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"s4_kernel: {name.split()[0]}: expected ", message), message
    assert expected in message and got in message, message


def test_wrong_convolution():
    with pytest.raises(TypeError, match="fft_conv: k: expected a tensor, got NoneType"):
        ops.fft_conv(torch.ones(3), None)
    with pytest.raises(RuntimeError, match=r"fft_conv: u: expected shape \[..., L\], got \(\)"):
        ops.fft_conv(torch.ones(()), torch.ones(3))


def test_forward_mode_is_refused():
    tensors = system()
    A = tensors.pop("A")
    with pytest.raises(NotImplementedError, match="s4_kernel: forward-mode"):
        torch.func.jvp(lambda A: ops.s4_kernel(A, **tensors, L=3), (A,), (A,))
