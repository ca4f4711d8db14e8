"""qk_norm against its float64 reference: dtypes, layouts, tables, ISAs."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.qk_norm_calls import BF16, DOUBLE, DTYPES, FLOAT, HALF, check, example, results

from suffuse import ops
from suffuse.reference.qk_norm import qk_norm as reference
from suffuse.testing import cpu_isas, use_isa, use_threads

# batch, steps, heads of q, heads of k, columns; columns that are rotated, None: no tables
SHAPES = [
    ((1, 1, 1, 1, 2), None),
    ((2, 5, 3, 1, 64), 64),
    ((1, 4, 2, 2, 40), None),
    ((2, 3, 4, 2, 96), 24),
    ((3, 2, 1, 5, 37), 22),
    ((1, 3, 2, 1, 1200), 1100),
    ((2, 3, 2, 1, 10), 0),
]


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "rotated"), SHAPES, ids=str)
def test_error_rule(shape, rotated, dtype, isa):
    with use_isa(isa):
        for weights in (False, True):
            tensors = example(shape, rotated, dtype, weights)
            check(tensors, interleaved=weights)
            check(tensors, interleaved=not weights, eps=0.1)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*(st.integers(0, 4),) * 4, st.integers(2, 70)),
    pairs=st.one_of(st.none(), st.integers(0, 35)),
    dtype=st.sampled_from(DTYPES),
    interleaved=st.booleans(),
)
def test_any_shape(shape, pairs, dtype, interleaved):
    rotated = None if pairs is None else 2 * min(pairs, shape[4] // 2)
    check(example(shape, rotated, dtype), interleaved=interleaved)


def test_one_column():
    """It is the weight but for eps, so that the gradient of q is what is left of 1 - 1."""
    tensors = example((2, 3, 4, 2, 1), dtype=DOUBLE)
    ours, exact = results(ops.qk_norm, tensors), results(reference, tensors)
    for name, value in ours.items():
        size = tensors[f"{name}_weight"] / tensors[name].abs() if name in "qk" else exact[name]
        assert ((value - exact[name]).abs() <= 8 * torch.finfo(DOUBLE).eps * size.abs()).all(), name


def test_no_columns():
    q, k = ops.qk_norm(torch.zeros(2, 3, 4, 0), torch.zeros(2, 3, 1, 0))
    assert q.shape == (2, 3, 4, 0) and k.shape == (2, 3, 1, 0)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_table_for_each_batch_entry(interleaved):
    tensors = example((3, 4, 2, 1, 24), 16, own=True)
    check(tensors, interleaved=interleaved)
    shared = {name: t[:1] if name in ("cos", "sin") else t for name, t in tensors.items()}
    check(shared, interleaved=interleaved)


def test_only_one_weight():
    tensors = example((2, 3, 4, 2, 24), 16)
    for name in ("q_weight", "k_weight"):
        check({key: t for key, t in tensors.items() if key != name})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_dtype_of_weights_and_tables(dtype):
    tensors = example((2, 3, 4, 2, 24), 16, HALF)
    others = {name: t.to(dtype) for name, t in tensors.items() if name not in "qk"}
    exact = ops.qk_norm(tensors["q"], tensors["k"], **{k: t.float() for k, t in others.items()})
    got = ops.qk_norm(tensors["q"], tensors["k"], **others)
    for a, b in zip(got, exact, strict=True):
        assert a.dtype == HALF and torch.equal(a, b)


LAYOUTS = {
    "heads first": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "part of q, k and v": lambda x: torch.stack([x, x, x], 2)[:, :, 1],
    "columns apart": lambda x: torch.stack([x, x], -1)[..., 0],
    "unaligned": lambda x: torch.cat([x.new_zeros(1), x.reshape(-1)])[1:].reshape(x.shape),
    "one step for all": lambda x: x[:, :1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    for dtype in (FLOAT, BF16):
        tensors = example((2, 5, 3, 2, 40), 24, dtype)
        strided = {name: LAYOUTS[layout](t) if name in "qk" else t for name, t in tensors.items()}
        dense = {name: t.contiguous() for name, t in strided.items()}
        for got, expected in zip(ops.qk_norm(**strided), ops.qk_norm(**dense), strict=True):
            assert got.is_contiguous() and torch.equal(got, expected)
        grads = [torch.randn_like(tensors[name]) for name in "qk"]
        given = torch.ops.suffuse.qk_norm_bwd.default
        for a, b in zip(
            given(*map(LAYOUTS[layout], grads), *strided.values(), 1e-6, False),
            given(*(LAYOUTS[layout](g).contiguous() for g in grads), *dense.values(), 1e-6, False),
            strict=True,
        ):
            assert torch.equal(a, b)


def test_it_is_torchs_norm_and_our_rotation():
    tensors = example((2, 5, 3, 2, 40), 24, DOUBLE)
    for interleaved in (False, True):
        q, k = ops.qk_norm(**tensors, interleaved=interleaved)
        for got, x, weight in ((q, "q", "q_weight"), (k, "k", "k_weight")):
            normal = F.rms_norm(tensors[x], (40,), tensors[weight], 1e-6)
            expected = ops.rotary(normal, tensors["cos"], tensors["sin"], interleaved=interleaved)
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("rotated", [None, 24])
def test_bad_numbers_stay_in_their_head(rotated, bad):
    for dtype in DTYPES:
        tensors = example((2, 5, 3, 2, 40), rotated, dtype, weights=False)
        tensors["q"][1, 2, 0, 3], tensors["k"][0, 1, 1, 30] = bad, bad
        got = check(tensors)
        for name, place in (("q", (1, 2, 0)), ("k", (0, 1, 1))):
            bad_ones = ~got[f"out {name}"].isfinite()
            assert int(bad_ones.sum()) == int(bad_ones[place].sum()) > 0


def test_large_and_small_heads():
    for scale in (1e-18, 1e15):
        tensors = example((2, 3, 4, 2, 64), 32)
        tensors["q"] *= scale
        check(tensors, eps=1e-12)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("interleaved", [False, True])
def test_same_bits_for_any_number_of_threads(interleaved, isa):
    tensors = example((3, 150, 4, 2, 72), 50)
    with use_isa(isa):
        expected = results(ops.qk_norm, tensors, interleaved=interleaved)
        for threads in (2, 3):
            with use_threads(threads):
                got = results(ops.qk_norm, tensors, interleaved=interleaved)
            assert all(torch.equal(value, expected[name]) for name, value in got.items())


def test_inputs_are_left_alone():
    tensors = example((2, 5, 3, 2, 40), 24, HALF)
    before = {name: t.clone() for name, t in tensors.items()}
    results(ops.qk_norm, tensors)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


def test_autocast_leaves_dtypes_alone():
    tensors = example((2, 5, 3, 2, 40), 24)
    with torch.autocast("cpu", dtype=BF16):
        q, k = ops.qk_norm(**tensors)
    expected = ops.qk_norm(**tensors)
    assert torch.equal(q, expected[0]) and torch.equal(k, expected[1])


Q, C = torch.zeros(2, 3, 4, 8), torch.zeros(5, 3)
WRONG = {
    "q_rank": ({"q": Q[0]}, RuntimeError, "q", "[B, T, H, D]", "(3, 4, 8)"),
    "q_kind": ({"q": 1}, TypeError, "q", "a tensor", "int"),
    "q_dtype": ({"q": Q.long()}, RuntimeError, "q", "dtype float64, float32", "Long"),
    "k_rank": ({"k": Q[0]}, RuntimeError, "k", "[B, T, G, D]", "(3, 4, 8)"),
    "k_shape": ({"k": Q[:, :2]}, RuntimeError, "k", "(2, 3, 4, 8) with B, T and D", "(2, 2, 4, 8)"),
    "k_dtype": ({"k": Q.half()}, RuntimeError, "k", "float32 like q", "float16"),
    "k_device": ({"k": Q.to("meta")}, RuntimeError, "k", "device cpu like q", "meta"),
    "weight_shape": ({"q_weight": C[0]}, RuntimeError, "q_weight", "(8,) [D]", "(3,)"),
    "weight_kind": ({"k_weight": 1.0}, TypeError, "k_weight", "a tensor", "float"),
    "cos_alone": ({"cos": C}, TypeError, "sin", "a tensor with cos", "None"),
    "sin_alone": ({"sin": C}, TypeError, "cos", "a tensor with sin", "None"),
    "cos_rank": ({"cos": C[0], "sin": C}, RuntimeError, "cos", "[S, R/2] or [B, S", "(3,)"),
    "cos_short": ({"cos": C[:2], "sin": C[:2]}, RuntimeError, "cos", "at least 3", "(2, 3)"),
    "cos_batch": (
        {"cos": C.expand(3, -1, -1), "sin": C.expand(3, -1, -1)},
        *(RuntimeError, "cos", "B = 2", "(3, 5, 3)"),
    ),
    "cos_wide": (
        {"cos": torch.zeros(5, 5), "sin": torch.zeros(5, 5)},
        *(RuntimeError, "cos", "at most 4, half of D", "5"),
    ),
    "sin_shape": ({"cos": C, "sin": C[1:]}, RuntimeError, "sin", "(5, 3) like cos", "(4, 3)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_call(name):
    change, error, argument, expected, got = WRONG[name]
    with pytest.raises(error) as raised:
        ops.qk_norm(**{"q": Q, "k": Q, **change})
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"qk_norm: {argument}: expected ", message), message
    assert expected in message.split(", got ")[0] and got in message.split(", got ")[1], message


def test_opcheck():
    forward = torch.ops.suffuse.qk_norm_fwd.default
    backward = torch.ops.suffuse.qk_norm_bwd.default
    for dtype, weights, rotated in ((FLOAT, True, 6), (HALF, False, 6), (DOUBLE, True, None)):
        tensors = example((2, 3, 2, 1, 10), rotated, dtype, weights)
        names = ("q", "k", "q_weight", "k_weight", "cos", "sin")
        operands = [tensors.get(name) for name in names]
        torch.library.opcheck(forward, (*operands, 1e-6, True))
        grads = [torch.randn_like(tensors[name]) for name in "qk"]
        torch.library.opcheck(backward, (*grads, *operands, 1e-6, False))
