"""The drop-in of causal-conv1d: the original's arguments, over ops that have their own tests."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F

from suffuse.compat import causal_conv1d
from suffuse.compat.causal_conv1d import (
    causal_conv1d_fn,
    causal_conv1d_update,
    causal_conv1d_varlen_states,
)
from suffuse.compat.causal_conv1d.causal_conv1d_interface import (
    causal_conv1d_ref,
    causal_conv1d_update_ref,
)


def test_signatures() -> None:
    def names(function: object) -> str:
        return ",".join(inspect.signature(function).parameters)  # type: ignore[arg-type]

    states = "initial_states,return_final_states,final_states_out,activation"
    assert names(causal_conv1d_fn) == f"x,weight,bias,seq_idx,{states}"
    assert names(causal_conv1d_ref) == f"x,weight,bias,{states}"
    update = "x,conv_state,weight,bias,activation,cache_seqlens"
    assert names(causal_conv1d_update) == f"{update},conv_state_indices"
    assert names(causal_conv1d_update_ref) == update
    assert names(causal_conv1d_varlen_states) == "x,cu_seqlens,state_len"
    assert causal_conv1d.__version__ == "1.6.1"


def test_convolution_with_states() -> None:
    x, weight, bias = torch.randn(2, 6, 9), torch.randn(6, 4), torch.randn(6)
    initial = torch.randn(2, 6, 3)
    padded = torch.cat([initial, x], 2)
    expected = F.silu(F.conv1d(padded, weight[:, None], bias, groups=6))
    given = torch.empty(2, 6, 3)
    for function in (causal_conv1d_fn, causal_conv1d_ref):
        out, final = function(
            x, weight, bias, initial_states=initial, return_final_states=True,
            final_states_out=given, activation="silu",
        )  # fmt: skip
        torch.testing.assert_close(out, expected)
        assert final is given and torch.equal(final, x[..., -3:])
        out, final = function(x, weight, return_final_states=True)
        assert final is not given and torch.equal(final, x[..., -3:])


def test_packed_sequences() -> None:
    x, weight = torch.randn(1, 5, 8), torch.randn(5, 3)
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 1, -1, -1]], dtype=torch.int32)
    out = causal_conv1d_fn(x, weight, seq_idx=seq_idx, activation="swish")
    for begin, end in ((0, 3), (3, 6)):
        alone = causal_conv1d_fn(x[..., begin:end], weight, activation="swish")
        torch.testing.assert_close(out[..., begin:end], alone)
    assert not out[..., 6:].any()


@pytest.mark.parametrize("ring", [False, True])
def test_update(ring: bool) -> None:
    x, weight, bias = torch.randn(2, 6, 7), torch.randn(6, 4), torch.randn(6)
    expected = causal_conv1d_fn(x, weight, bias, activation="silu")
    state, plain = torch.zeros(2, 6, 5), torch.zeros(2, 6, 5)
    state.requires_grad_()  # as where a model is called without no_grad: the state is data
    for t in range(7):
        lengths = torch.full((2,), t, dtype=torch.int32) if ring else None
        out = causal_conv1d_update(x[..., t], state, weight, bias, "silu", lengths)
        torch.testing.assert_close(out, expected[..., t])
        out = causal_conv1d_update_ref(x[..., t], plain, weight, bias, "silu", lengths)
        torch.testing.assert_close(out, expected[..., t])
    assert torch.equal(state, plain)


def test_update_of_chosen_states() -> None:
    x, weight = torch.randn(2, 6), torch.randn(6, 3)
    states = torch.randn(4, 6, 2)
    before = states.clone()
    indices = torch.tensor([2, -1], dtype=torch.int32)
    out = causal_conv1d_update(x, states, weight, conv_state_indices=indices)
    window = torch.cat([before[2], x[0][:, None]], 1)
    torch.testing.assert_close(out[0], (window * weight).sum(1))
    assert not out[1].any()
    assert torch.equal(states[2], window[:, 1:]) and torch.equal(
        states[[0, 1, 3]], before[[0, 1, 3]]
    )


def test_states_of_packed_sequences() -> None:
    x = torch.randn(7, 3)
    states = causal_conv1d_varlen_states(x, torch.tensor([0, 2, 7]), 4)
    assert torch.equal(states[0], torch.cat([torch.zeros(3, 2), x[:2].mT], 1))
    assert torch.equal(states[1], x[3:].mT)


def test_another_activation_is_refused() -> None:
    with pytest.raises(
        ValueError, match="activation: expected None, 'silu' or 'swish', got 'relu'"
    ):
        causal_conv1d_fn(torch.randn(1, 2, 3), torch.randn(2, 2), activation="relu")
