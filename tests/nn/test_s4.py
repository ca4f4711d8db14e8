"""S4: convolution and recurrence are the same function; caches, lengths, gradients, training."""

from __future__ import annotations

import pytest
import torch

from suffuse.nn.hippo import MEASURES
from suffuse.nn.s4 import S4


def make(**options) -> S4:
    torch.manual_seed(0)
    return S4(5, **{"d_state": 16, "l_max": 40, **options}).double()


def inputs(length: int, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, 5, generator=generator, dtype=torch.float64)


def stepped(layer: S4, x: torch.Tensor, cache) -> torch.Tensor:
    return torch.stack([layer.step(x[:, t], cache) for t in range(x.shape[1])], 1)


@pytest.mark.parametrize("length", [1, 7, 40, 100])
@pytest.mark.parametrize("measure", MEASURES)
def test_forward_is_the_recurrence(measure, length):
    layer, x = make(measure=measure), inputs(length)
    whole, cache = layer(x), layer.allocate_cache(3)
    assert torch.allclose(whole, stepped(layer, x, cache), rtol=0, atol=1e-8)


@pytest.mark.parametrize("cut", [0, 1, 64, 89])
def test_pieces_joined_by_their_cache_are_the_whole(cut):
    layer, x = make(rank=2), inputs(100)
    cache, other = layer.allocate_cache(3), layer.allocate_cache(3)
    pieces = [
        layer(x[:, :cut], cache),
        layer(x[:, cut:90], cache),
        stepped(layer, x[:, 90:], cache),
    ]
    assert torch.allclose(torch.cat(pieces, 1), layer(x), rtol=0, atol=1e-8)
    assert torch.allclose(layer(x, other), layer(x), rtol=0, atol=1e-8)
    assert torch.allclose(cache.state, other.state, rtol=0, atol=1e-8)


def test_later_inputs_do_not_matter():
    layer, x = make(mix=False), inputs(30)
    changed = x.clone()
    changed[:, 20:] += 1
    assert torch.allclose(layer(x)[:, :20], layer(changed)[:, :20], rtol=0, atol=1e-12)


def test_single_precision():
    layer, x = make(), inputs(40)
    wide, narrow = layer(x), layer.float()(x.float())
    assert narrow.dtype == torch.float32
    assert float((narrow.detach() - wide.detach()).norm() / wide.detach().norm()) < 1e-5


def test_bfloat16_inputs_and_weights():
    layer, x = make(), inputs(40)
    wide, narrow = layer(x), layer.bfloat16()(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert float((narrow.detach() - wide.detach()).norm() / wide.detach().norm()) < 0.1


def test_gradients():
    layer, x = make(d_state=4, l_max=6, mix=False), inputs(6, 1).requires_grad_()
    parameters = dict(layer.named_parameters())

    def function(x, *values):
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, named, (x,))

    assert torch.autograd.gradcheck(function, (x, *parameters.values()))


def test_learns_a_delay():
    """The last of 16 inputs comes back 12 steps later."""
    torch.manual_seed(0)
    layer = torch.nn.Sequential(
        torch.nn.Linear(1, 8), S4(8, d_state=16, l_max=32), torch.nn.Linear(8, 1)
    )
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        x = torch.randn(16, 32, 1)
        loss = (layer(x)[:, 12:] - x[:, :-12]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l_max": 0}, "S4: l_max: expected at least 1, got 0"),
        ({"measure": "x"}, "hippo: measure: expected one of"),
        ({"measure": "legt", "rank": 1}, "hippo: rank: expected at least 2 for 'legt', got 1"),
        ({"d_state": 3}, "hippo: N: expected even, got 3"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        S4(2, **options)
