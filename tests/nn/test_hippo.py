"""HiPPO matrices against the functions that they are made for, and the identities of their normal forms."""

from __future__ import annotations

import math

import pytest
import torch

from suffuse.nn import hippo

RANK = {"legs": 1, "legt": 2, "lagt": 1, "fout": 1}


def response(measure: str, size: int, time: float) -> torch.Tensor:
    """What an impulse leaves in the state after a while: e^(tA) B."""
    A, B = hippo.transition(measure, size)
    return torch.linalg.matrix_exp(A * time) @ B


def legendre(count: int, x: float) -> list[float]:
    values = [1.0, x]
    for n in range(1, count - 1):
        values.append(((2 * n + 1) * x * values[n] - n * values[n - 1]) / (n + 1))
    return values[:count]


def laguerre(count: int, x: float) -> list[float]:
    values = [1.0, 1 - x]
    for n in range(1, count - 1):
        values.append(((2 * n + 1 - x) * values[n] - n * values[n - 1]) / (n + 1))
    return values[:count]


@pytest.mark.parametrize("time", [0.0, 0.1, 0.7, 3.0])
def test_legs_holds_legendre_polynomials_of_the_exponential(time):
    decay = math.exp(-time)
    expected = [math.sqrt(2 * n + 1) * p * decay for n, p in enumerate(legendre(8, 2 * decay - 1))]
    got = response("legs", 8, time)
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("time", [0.0, 0.1, 0.7, 3.0])
def test_lagt_holds_laguerre_functions(time):
    expected = [math.exp(-time / 2) * p for p in laguerre(8, time)]
    got = response("lagt", 8, time)
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("measure", ["legt", "fout"])
def test_windows_end_after_two_units(measure):
    """The constant's coefficient is the mean of the window: 1/2 inside and 0 behind, better with N."""
    times = [0.1 * i + 0.05 for i in range(40)]
    errors = []
    for size in (8, 64):
        got = torch.stack([response(measure, size, time)[0] for time in times])
        wanted = torch.tensor([0.5 if time < 2 else 0.0 for time in times], dtype=torch.float64)
        errors.append(float((got - wanted).square().mean().sqrt()))
    assert errors[1] < 0.06 and errors[1] < errors[0] / 2


@pytest.mark.parametrize("size", [2, 4, 64])
@pytest.mark.parametrize("measure", hippo.MEASURES)
def test_normal_form(measure, size):
    A, B = hippo.transition(measure, size)
    w, P, B_eigen, V = hippo.nplr(measure, size, RANK[measure])
    W, P = torch.cat([V, V.conj()], 1), torch.cat([P, P.conj()], 1)
    one = torch.eye(size, dtype=torch.complex128)
    assert torch.allclose(W.mH @ W, one, atol=1e-10)
    spectrum = torch.diag(torch.cat([w, w.conj()]))
    assert torch.allclose(W @ (spectrum - P.T @ P.conj()) @ W.mH, A + 0 * one, atol=1e-9)
    assert torch.allclose(W @ torch.cat([B_eigen, B_eigen.conj()]), B + 0j, atol=1e-10)
    assert bool((w.real <= 0).all()) and bool((w.imag >= 0).all())
    assert torch.equal(w.imag, w.imag.sort().values)


@pytest.mark.parametrize("measure", hippo.MEASURES)
def test_stable(measure):
    A, _ = hippo.transition(measure, 16)
    assert float(torch.linalg.eigvals(A).real.max()) < 1e-9


def test_more_rank_than_needed_is_zero():
    P = hippo.low_rank("legs", 4, 3)
    assert P.shape == (3, 4) and bool((P[1:] == 0).all())


def test_diagonal_starts():
    for name in hippo.DIAGONALS:
        A, B = hippo.diagonal(name, 64)
        assert A.shape == B.shape == (32,) and bool((A.real < 0).all())
    lin, one = hippo.diagonal("lin", 8)
    assert torch.allclose(lin, -0.5 + 1j * math.pi * torch.arange(4).double()) and bool(
        (one == 1).all()
    )
    inv, _ = hippo.diagonal("inv", 8)
    assert math.isclose(float(inv[0].imag), 8 / math.pi * 7)
    assert torch.equal(hippo.diagonal("legs", 8)[0], hippo.nplr("legs", 8)[0])
    # The largest frequencies of LegS grow as N^2 / pi, which S4D-Inv has.
    legs = hippo.diagonal("legs", 64)[0].imag.max()
    assert math.isclose(float(legs), 64**2 / math.pi, rel_tol=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hippo.transition("leg", 4), "measure: expected one of .*, got 'leg'"),
        (lambda: hippo.transition("legs", 0), "N: expected at least 1, got 0"),
        (lambda: hippo.transition("fout", 3), "N: expected even, got 3"),
        (lambda: hippo.nplr("legs", 3), "N: expected even, got 3"),
        (lambda: hippo.low_rank("legt", 4, 1), "rank: expected at least 2 for 'legt', got 1"),
        (lambda: hippo.diagonal("cos", 4), "initialisation: expected one of .*, got 'cos'"),
        (lambda: hippo.diagonal("lin", 5), "N: expected even, got 5"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=f"hippo: {message}"):
        call()
