"""What every layer with a recurrence must keep: one result for all at once, in parts and step by step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def state_of(cache: Any) -> list[Tensor]:
    """The tensors of a cache."""
    return (
        [cache]
        if isinstance(cache, Tensor)
        else [t for t in vars(cache).values() if isinstance(t, Tensor)]
    )


def assert_steps_agree(layer: nn.Module, x: Tensor, **tolerance: float) -> None:
    """forward(x) == its steps == its parts from a cache, and both leave the same cache."""
    batch, steps = x.shape[:2]
    with torch.no_grad():
        whole = layer(x)
        cache = layer.allocate_cache(batch)
        rows = [layer.step(x[:, t], cache) for t in range(steps)]
        torch.testing.assert_close(torch.stack(rows, 1), whole, **tolerance)
        parts = layer.allocate_cache(batch)
        cuts = [0, 0, 1, steps // 2, steps]
        pieces = [layer(x[:, a:b], parts) for a, b in pairwise(cuts)]
        torch.testing.assert_close(torch.cat(pieces, 1), whole, **tolerance)
        for one, other in zip(state_of(parts), state_of(cache), strict=True):
            torch.testing.assert_close(one, other, **tolerance)


def assert_gradients(layer: nn.Module, x: Tensor, second: bool = True) -> None:
    """gradcheck (and gradgradcheck) of forward by input and parameters, in float64."""
    layer = layer.double()
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    inputs = (x.double().requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(function, inputs)
    if second:
        assert torch.autograd.gradgradcheck(function, inputs)


def assert_restarts(layer: nn.Module, x: Tensor, cuts: list[int]) -> None:
    """With seq_idx, packed sequences are as if alone."""
    seq_idx = torch.zeros(x.shape[:2], dtype=torch.int32)
    for cut in cuts:
        seq_idx[:, cut:] += 1
    with torch.no_grad():
        packed = layer(x, seq_idx=seq_idx)
        cache = layer.allocate_cache(len(x))
        torch.testing.assert_close(layer(x, cache, seq_idx=seq_idx), packed)
        ends = [0, *cuts, x.shape[1]]
        for begin, end in pairwise(ends):
            alone = layer.allocate_cache(len(x))
            torch.testing.assert_close(packed[:, begin:end], layer(x[:, begin:end], alone))
        for one, other in zip(state_of(cache), state_of(alone), strict=True):
            torch.testing.assert_close(one, other)


def assert_compiles(layer: nn.Module, x: Tensor) -> None:
    """Without a graph break, forward and backward, to the same numbers."""
    expected = layer(x)
    expected.square().sum().backward()
    grads = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    layer.zero_grad()
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    assert len(grads) == len(list(layer.parameters()))
    for p, grad in zip(layer.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, grad)
