"""Optimal pairing: against all permutations, scipy's assignment and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from suffuse.diffusion import optimal_pairing
from suffuse.diffusion.coupling import assignment


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_no_permutation_costs_less(n):
    generator = torch.Generator().manual_seed(n)
    x0, noise = torch.randn(2, n, 3, generator=generator).unbind(0)
    pairs = optimal_pairing(x0, noise)
    assert sorted(pairs.tolist()) == list(range(n))
    cost = torch.cdist(x0.double(), noise.double()) ** 2
    rows = torch.arange(n)
    best = min(cost[rows, list(order)].sum() for order in itertools.permutations(range(n)))
    torch.testing.assert_close(cost[rows, pairs].sum(), best, rtol=1e-6, atol=0)


@pytest.mark.parametrize("n", [3, 64, 200])
@pytest.mark.parametrize("kind", ["normal", "integers", "negative"])
def test_assignment_costs_what_that_of_scipy_costs(n, kind):
    random = np.random.default_rng(n)
    cost = random.integers(0, 5, (n, n)).astype(float)  # many ties
    if kind != "integers":
        cost = random.normal(size=(n, n)) - 3 * (kind == "negative")
    columns = assignment(cost)
    assert sorted(columns) == list(range(n))
    rows, best = linear_sum_assignment(cost)
    assert cost[range(n), columns].sum() == pytest.approx(cost[rows, best].sum(), abs=1e-9)


def test_on_a_line_the_order_is_kept():
    x0, noise = torch.randn(2, 50, 1).unbind(0)
    paired = noise[optimal_pairing(x0, noise)]
    order = x0[:, 0].argsort()
    assert (paired[order, 0].diff() >= 0).all()


def test_the_pairing_is_found_again_after_shuffling():
    x0 = torch.randn(40, 2, 3, 3)
    shuffled = torch.randperm(40)
    assert torch.equal(optimal_pairing(x0, x0[shuffled])[shuffled], torch.arange(40))


def test_low_precision_and_gradients():
    x0 = torch.randn(10, 4)
    noise = torch.randn(10, 4, requires_grad=True)
    pairs = optimal_pairing(x0.bfloat16(), noise.bfloat16())
    assert pairs.dtype == torch.int64
    assert not pairs.requires_grad


@pytest.mark.parametrize(
    ("x0", "noise", "message"),
    [
        (torch.ones(3, 2), torch.ones(3, 4), r"noise has shape \(3, 4\), expected \(3, 2\)"),
        (torch.full((3, 2), float("nan")), torch.ones(3, 2), "not finite"),
    ],
)
def test_wrong_arguments_are_named(x0, noise, message):
    with pytest.raises(ValueError, match=message):
        optimal_pairing(x0, noise)
