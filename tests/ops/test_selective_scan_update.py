"""selective_state_update: one step against its float64 reference, against the scan, and what it refuses."""

from __future__ import annotations

import re

import pytest
import torch
from selective_state_update_calls import BF16, F64, FLOAT, HALF, MIXES, check, make

from suffuse import ops
from suffuse.testing import cpu_isas, use_isa, use_threads


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize(("dtype", "state_dtype"), MIXES)
def test_error_rule(dtype, state_dtype, isa):
    with use_isa(isa):
        for size, states, groups in (((2, 33), 16, 1), ((3, 24), 5, 3), ((2, 6, 7), 20, 2)):
            check(make(size, states, dtype, groups=groups, state_dtype=state_dtype))


@pytest.mark.parametrize("states", [1, 2, 15, 17, 64, 130])
@pytest.mark.parametrize("missing", ["D", "z", "dt_bias", "groups"])
def test_numbers_of_states_and_optional_operands(states, missing):
    call = make((2, 19), states, FLOAT, groups=0)
    call.pop(missing, None)
    check(call)
    call["dt"] = call["dt"].abs()
    check(call, dt_softplus=False)


@pytest.mark.parametrize("isa", cpu_isas())
def test_slots_and_padding(isa):
    call = make((5, 18), 9, FLOAT, slots=8)
    call["state_batch_indices"] = torch.tensor([3, -1, 7, 0, -2], dtype=torch.int32)
    call["z"][1] = torch.nan  # of padding
    with use_isa(isa):
        out, state = check(call)
    assert (out[[1, 4]] == 0).all()
    untouched = [1, 2, 4, 5, 6]
    assert torch.equal(state[untouched], call["state"][untouched])


def test_expanded_operands_and_strided_states():
    """As Mamba-2 has them: one decay, step size and skip a head; a state that is a slice of a cache."""
    call = make((2, 4, 6), 8, FLOAT, groups=2)
    for name, size in (("A", (4, 6, 8)), ("D", (4, 6)), ("dt_bias", (4, 6))):
        call[name] = torch.rand(4, *[1] * (len(size) - 1)).neg().expand(size)
    call["dt"] = call["dt"][..., :1].expand(2, 4, 6)
    call["B"] = torch.stack([call["B"]] * 2, -1)[..., 0]
    cache = torch.full((2, 3, 4, 6, 8), 7.0)
    cache[:, 1] = call["state"]
    expected, state = check(call)
    out = ops.selective_state_update(**{**call, "state": cache[:, 1]}, dt_softplus=True)
    assert torch.equal(out, expected) and torch.equal(cache[:, 1], state)
    assert (cache[:, [0, 2]] == 7).all()


@pytest.mark.parametrize("dtype", [FLOAT, F64])
def test_steps_are_the_scan(dtype):
    call = make((2, 21), 6, dtype, groups=3)
    rows = {name: torch.randn(2, 21, 9, dtype=dtype) for name in ("u", "delta", "z")}
    b, c = (torch.randn(2, 3, 6, 9, dtype=dtype) for _ in range(2))
    whole, last = ops.selective_scan(
        rows["u"], rows["delta"], call["A"], b, c, call["D"], rows["z"], call["dt_bias"],
        delta_softplus=True, initial_state=call["state"], return_last_state=True,
    )  # fmt: skip
    state = call["state"].clone()
    for t in range(9):
        out = ops.selective_state_update(
            state, rows["u"][..., t], rows["delta"][..., t], call["A"], b[..., t], c[..., t],
            call["D"], rows["z"][..., t], call["dt_bias"], dt_softplus=True,
        )  # fmt: skip
        torch.testing.assert_close(out, whole[..., t])
    torch.testing.assert_close(state, last)


def test_mixed_dtypes_are_computed_in_the_wider():
    call = make((2, 16), 4, FLOAT)
    narrow = {
        **call,
        "x": call["x"].to(BF16),
        "C": call["C"].to(HALF),
        "state": call["state"].clone(),
    }
    out = ops.selective_state_update(**narrow, dt_softplus=True)
    wide = {n: v.float() for n, v in narrow.items()} | {"state": call["state"].clone()}
    assert out.dtype == BF16
    assert torch.equal(out, ops.selective_state_update(**wide, dt_softplus=True).to(BF16))


def test_nothing_to_do():
    for size in ((0, 5), (2, 0)):
        call = make(size, 3, FLOAT)
        assert ops.selective_state_update(**call).shape == size


def test_same_bits_for_any_number_of_threads():
    call = make((7, 3000), 16, FLOAT)
    results = []
    for threads in (1, 2, 3):
        with use_threads(threads):
            state = call["state"].clone()
            results.append((ops.selective_state_update(**{**call, "state": state}), state))
    for out, state in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(state, results[0][1])


def test_gradients_take_the_formula_and_leave_the_same_state():
    call = make((2, 6), 3, F64)
    names = [n for n in call if n != "state"]
    leaves = [call[n].requires_grad_() for n in names]

    def function(*values):
        given = dict(zip(names, values, strict=True))
        return ops.selective_state_update(call["state"].clone(), **given, dt_softplus=True)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)
    states = [call["state"].clone() for _ in range(2)]
    ops.selective_state_update(states[0], **{n: call[n] for n in names}, dt_softplus=True)
    with torch.no_grad():
        ops.selective_state_update(states[1], **{n: call[n] for n in names}, dt_softplus=True)
    torch.testing.assert_close(states[0], states[1])


def test_opcheck_and_compile():
    call = make((2, 6), 3, FLOAT)
    order = ("state", "x", "dt", "A", "B", "C", "D", "z", "dt_bias")
    torch.library.opcheck(
        torch.ops.suffuse.selective_state_update.default, (*(call[n] for n in order), True, None)
    )
    compiled = torch.compile(ops.selective_state_update, fullgraph=True, backend="aot_eager")
    states = [call.pop("state"), None]
    states[1] = states[0].clone()
    outs = [f(s, **call, dt_softplus=True)
            for f, s in zip((ops.selective_state_update, compiled), states, strict=True)]  # fmt: skip
    assert torch.equal(*outs) and torch.equal(*states)


WRONG = {
    "x_rank": ("x", torch.zeros(6), "[B, D] or [B, H, P]", "(6,)"),
    "state_shape": ("state", torch.zeros(2, 5, 3), "(2, 6, 3)", "(2, 5, 3)"),
    "state_rank": ("state", torch.zeros(2, 6), "[B, D, N]", "(2, 6)"),
    "state_dtype": ("state", torch.zeros(2, 6, 3, dtype=F64), "float64 with a float64 x", "float64"),
    "state_stride": ("state", torch.zeros(2, 3, 6).mT, "adjacent states", "6"),
    "dt_shape": ("dt", torch.zeros(2, 5), "(2, 6)", "(2, 5)"),
    "A_shape": ("A", torch.zeros(6, 4), "(6, 3)", "(6, 4)"),
    "B_groups": ("B", torch.zeros(2, 4, 3), "divide the 6 channels", "G = 4"),
    "C_groups": ("C", torch.zeros(2, 3, 3), "(2, 2, 3)", "(2, 3, 3)"),
    "C_rank": ("C", torch.zeros(2, 3), "[B, G, N] like B", "(2, 3)"),
    "D_shape": ("D", torch.zeros(5), "(6,)", "(5,)"),
    "z_shape": ("z", torch.zeros(2, 6, 1), "(2, 6)", "(2, 6, 1)"),
    "dt_bias_shape": ("dt_bias", torch.zeros(1), "(6,)", "(1,)"),
    "indices_shape": ("state_batch_indices", torch.zeros(3, dtype=torch.int32), "(2,)", "(3,)"),
    "indices_dtype": ("state_batch_indices", torch.zeros(2, dtype=torch.int64), "int32", "Long"),
    "indices_range": (
        "state_batch_indices", torch.tensor([0, 2], dtype=torch.int32), "slots below 2", "2"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call(name):
    argument, value, expected, got = WRONG[name]
    call = {**make((2, 6), 3, FLOAT, groups=2), argument: value}
    with pytest.raises(RuntimeError) as raised:
        ops.selective_state_update(**call)
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"selective_state_update: {argument}: expected ", message), message
    assert expected in message and got in message, message


def test_wrong_kinds():
    call = make((2, 6), 3, FLOAT)
    with pytest.raises(TypeError, match="selective_state_update: D: expected a tensor, got float"):
        ops.selective_state_update(**{**call, "D": 1.0})
    with pytest.raises(TypeError, match="selective_state_update: B: expected a tensor, got None"):
        ops.selective_state_update(**{**call, "B": None})
    call["state"].requires_grad_()
    with pytest.raises(
        ValueError, match="selective_state_update: state: expected a tensor without"
    ):
        ops.selective_state_update(**call)
