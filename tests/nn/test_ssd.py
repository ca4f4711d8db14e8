"""The chunked scan against its loop over time."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse.nn.ssd import scan_with_steps, ssd
from suffuse.testing import assert_close_to_reference


def loop(
    x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    heads = x.shape[2]
    B, C = (v.repeat_interleave(heads // v.shape[2], 2) for v in (B, C))
    outputs = []
    for t in range(x.shape[1]):
        state = log_decay[:, t, :, None, None].exp() * state
        state = state + x[:, t, :, :, None] * B[:, t, :, None]
        outputs.append((state * C[:, t, :, None]).sum(-1))
    return torch.stack(outputs, 1), state


def operands(steps: int, groups: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Batch 2, 4 heads of 3, 5 states: x, log decay, B, C, initial state."""
    x, decay = torch.randn(2, steps, 4, 3), -2 * torch.rand(2, steps, 4)
    B, C = torch.randn(2, steps, groups, 5), torch.randn(2, steps, groups, 5)
    return tuple(t.to(dtype) for t in (x, decay, B, C, torch.randn(2, 4, 3, 5)))


@pytest.mark.parametrize(
    ("steps", "chunk_size"), [(1, 4), (4, 4), (13, 4), (16, 4), (7, 64), (9, 1)]
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_against_the_loop(steps: int, chunk_size: int, groups: int) -> None:
    *rows, initial = operands(steps, groups)
    result = ssd(*rows, chunk_size=chunk_size, initial_state=initial)
    torch.testing.assert_close(result, loop(*rows, initial))
    result = ssd(*rows, chunk_size=chunk_size)
    torch.testing.assert_close(result, loop(*rows, torch.zeros_like(initial)))


def test_error_is_that_of_the_loop() -> None:
    *rows, initial = operands(300, 2, torch.float32)
    actual = ssd(*rows, chunk_size=64, initial_state=initial)
    plain = loop(*rows, initial)
    exact = loop(*(t.double() for t in rows), initial.double())
    for name, a, p, e in zip(("y", "last"), actual, plain, exact, strict=True):
        assert_close_to_reference(a, p, e, 1e-6, name)


def test_sequences_in_one_row() -> None:
    *rows, initial = operands(14, 2)
    seq_idx = torch.tensor([[3] * 5 + [1] + [2] * 8, [0] * 4 + [1] * 8 + [0] * 2])
    y, last = ssd(*rows, chunk_size=4, initial_state=initial, seq_idx=seq_idx)
    for b, cuts in ((0, (0, 5, 6, 14)), (1, (0, 4, 12, 14))):
        state = initial[b : b + 1]
        for begin, end in pairwise(cuts):
            part = [t[b : b + 1, begin:end] for t in rows]
            expected, final = loop(*part, state)
            torch.testing.assert_close(y[b : b + 1, begin:end], expected)
            state = torch.zeros_like(state)
        torch.testing.assert_close(last[b : b + 1], final)


def test_nothing_to_do() -> None:
    *rows, initial = operands(0, 2)
    y, last = ssd(*rows, initial_state=initial)
    assert y.shape == (2, 0, 4, 3) and torch.equal(last, initial)


def test_extreme_decays_stay_finite() -> None:
    x, _, B, C, _ = operands(40, 1, torch.float32)
    decay = (-1e4 * torch.ones(2, 40, 4)).requires_grad_()
    y, _ = ssd(x, decay, B, C, chunk_size=16)
    torch.testing.assert_close(y, x * (B * C).sum(-1, keepdim=True))
    y.sum().backward()
    assert decay.grad is not None and decay.grad.isfinite().all()


def test_gradients() -> None:
    *rows, initial = (t.requires_grad_() for t in operands(6, 2))
    seq_idx = torch.tensor([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]])

    def function(*values: Tensor) -> tuple[Tensor, Tensor]:
        return ssd(*values[:4], chunk_size=4, initial_state=values[4], seq_idx=seq_idx)

    assert torch.autograd.gradcheck(function, (*rows, initial))
    assert torch.autograd.gradgradcheck(function, (*rows, initial))


def test_with_step_sizes() -> None:
    x, dt, B, C, initial = operands(9, 2)
    A, bias, D = -torch.rand(4).double(), torch.randn(4).double(), torch.randn(4, 3).double()
    z = torch.randn_like(x)
    steps = F.softplus(dt + bias).clamp(0.2, 0.9)
    y, last = loop(x * steps[..., None], steps * A, B, C, initial)
    expected = ((y + D * x) * F.silu(z), last)
    result = scan_with_steps(
        x, dt, A, B, C, D=D, z=z, dt_bias=bias, dt_softplus=True, dt_limit=(0.2, 0.9), chunk_size=4,
        initial_state=initial,
    )  # fmt: skip
    torch.testing.assert_close(result, expected)
    head = scan_with_steps(x, dt, A, B, C, D=D[:, 0])[0]
    torch.testing.assert_close(head, scan_with_steps(x, dt, A, B, C)[0] + D[:, :1] * x)


def test_refusals() -> None:
    *rows, _ = operands(4, 2)
    with pytest.raises(ValueError, match="chunk_size: expected 1 or more, got 0"):
        ssd(*rows, chunk_size=0)
    with pytest.raises(ValueError, match="expected a divisor of 3 heads as groups, got 2"):
        ssd(rows[0][:, :, :3], rows[1][:, :, :3], *rows[2:])
