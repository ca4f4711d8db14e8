"""rotary and rotary_ against their float64 reference: dtypes, layouts, tables, positions, ISAs."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.rotary_calls import BF16, DOUBLE, DTYPES, FLOAT, HALF, check, check_out, example, integers

from suffuse import ops
from suffuse.testing import cpu_isas, use_isa, use_threads

# batch, steps, heads, columns; columns that are rotated
SHAPES = [
    ((1, 1, 1, 2), 2),
    ((2, 5, 3, 64), 64),
    ((1, 4, 2, 40), 40),
    ((2, 3, 5, 96), 24),
    ((3, 2, 1, 37), 22),
    ((1, 3, 2, 1200), 1100),
    ((2, 3, 2, 10), 0),
]


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "rotated"), SHAPES, ids=str)
def test_error_rule(shape, rotated, dtype, isa):
    with use_isa(isa):
        for interleaved in (False, True):
            for inverse in (False, True):
                tensors = example(shape, rotated, dtype)
                check(tensors, interleaved=interleaved, inverse=inverse)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("interleaved", [False, True])
def test_float32_tables(interleaved, dtype, isa):
    with use_isa(isa):
        check(example((2, 5, 3, 44), dtype=dtype, wide=True), interleaved=interleaved)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*(st.integers(0, 4),) * 3, st.integers(0, 70)),
    pairs=st.integers(0, 35),
    dtype=st.sampled_from(DTYPES),
    interleaved=st.booleans(),
)
def test_any_shape(shape, pairs, dtype, interleaved):
    tensors = example(shape, 2 * min(pairs, shape[3] // 2), dtype)
    check_out(tensors, interleaved=interleaved)


@pytest.mark.parametrize("interleaved", [False, True])
def test_offsets(interleaved):
    for own in (False, True):
        tensors = example((3, 4, 2, 24), positions=20, own=own)
        for offsets in (0, 7, 16, integers(0, 16, 5)):
            check(tensors, interleaved=interleaved, offsets=offsets)


def test_a_table_for_each_batch_entry():
    tensors = example((3, 4, 2, 24), own=True)
    check(tensors)
    shared = {name: t[:1] if name != "x" else t for name, t in tensors.items()}
    check(shared)
    two = {name: t[0] if name != "x" else t for name, t in tensors.items()}
    assert torch.equal(ops.rotary(**shared), ops.rotary(**two))


@pytest.mark.parametrize("cuts", [(0, 23), (0, 1, 1, 9, 20, 23), (0, 0, 22, 23, 23)], ids=str)
@pytest.mark.parametrize("interleaved", [False, True])
def test_packed_sequences(interleaved, cuts):
    tensors = example((1, 23, 2, 24), positions=40)
    count = len(cuts) - 1
    for offsets in (None, 3, integers(*range(0, 3 * count, 3))):
        check(tensors, interleaved=interleaved, offsets=offsets, cu_seqlens=integers(*cuts))
    whole = ops.rotary(**tensors, cu_seqlens=integers(*cuts))
    for first, last in itertools.pairwise(cuts):
        own = ops.rotary(tensors["x"][:, first:last], tensors["cos"], tensors["sin"])
        assert torch.equal(whole[:, first:last], own)


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
        tensors = example((2, 5, 3, 40), dtype=dtype)
        check_out({**tensors, "x": LAYOUTS[layout](tensors["x"])})


def test_strided_tables():
    tensors = example((2, 5, 3, 40))
    expected = ops.rotary(**tensors)
    wide = {name: torch.cat([t, t], -1)[..., :20] for name, t in tensors.items() if name != "x"}
    assert torch.equal(ops.rotary(tensors["x"], **wide), expected)
    apart = torch.stack([tensors["cos"], tensors["sin"]], -1)
    assert torch.equal(ops.rotary(tensors["x"], apart[..., 0], apart[..., 1]), expected)
    assert torch.equal(ops.rotary(tensors["x"], wide["cos"], tensors["sin"]), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forth_and_back(dtype):
    tensors = example((2, 5, 3, 40), 24, dtype)
    out = ops.rotary(**tensors)
    back = ops.rotary(**{**tensors, "x": out}, inverse=True)
    torch.testing.assert_close(back, tensors["x"], rtol=0, atol=8 * torch.finfo(dtype).eps)
    assert torch.equal(out[..., 24:], tensors["x"][..., 24:])
    assert torch.equal(out[:, 0], tensors["x"][:, 0])  # the first position turns nothing


def test_layouts_of_pairs_are_the_same_up_to_a_permutation():
    tensors = example((2, 5, 3, 40))
    order = torch.arange(40).view(2, 20).T.flatten()
    mixed = ops.rotary(**{**tensors, "x": tensors["x"][..., order]}, interleaved=True)
    torch.testing.assert_close(mixed, ops.rotary(**tensors)[..., order])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("interleaved", [False, True])
def test_bad_numbers_stay_in_their_pair(interleaved, bad):
    for dtype in DTYPES:
        tensors = example((2, 5, 3, 40), 24, dtype)
        tensors["x"][1, 2, 0, 3], tensors["x"][0, 1, 1, 30] = bad, bad
        out = check_out(tensors, interleaved=interleaved)
        assert int((~out.isfinite()).sum()) == 3


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("interleaved", [False, True])
def test_same_bits_for_any_number_of_threads(interleaved, isa):
    tensors = example((3, 150, 4, 72), 50)
    with use_isa(isa):
        expected = ops.rotary(**tensors, interleaved=interleaved)
        for threads in (2, 3):
            with use_threads(threads):
                assert torch.equal(ops.rotary(**tensors, interleaved=interleaved), expected)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place(dtype, isa):
    with use_isa(isa):
        for shape, rotated in SHAPES:
            for interleaved in (False, True):
                tensors = example(shape, rotated, dtype, positions=9)
                options = {"interleaved": interleaved, "inverse": interleaved, "offsets": 2}
                expected = ops.rotary(**tensors, **options)
                assert ops.rotary_(**tensors, **options) is tensors["x"]
                assert torch.equal(tensors["x"], expected)


def test_in_place_touches_its_own_elements_only():
    cache = torch.randn(2, 30, 3, 40)
    before, tensors = cache.clone(), example((2, 5, 3, 24), 16, positions=30)
    part = cache[:, 7:12, :, 4:28]
    expected = ops.rotary(part, tensors["cos"], tensors["sin"], offsets=integers(7, 9))
    ops.rotary_(part, tensors["cos"], tensors["sin"], offsets=integers(7, 9))
    before[:, 7:12, :, 4:28] = expected
    assert torch.equal(cache, before)


def test_inputs_are_left_alone():
    tensors = example((2, 5, 3, 40), dtype=HALF)
    before = {name: t.clone() for name, t in tensors.items()}
    ops.rotary(**tensors)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


def test_autocast_leaves_dtypes_alone():
    tensors = example((2, 5, 3, 40))
    with torch.autocast("cpu", dtype=BF16):
        out = ops.rotary(**tensors)
    assert torch.equal(out, ops.rotary(**tensors))


X, C = torch.zeros(2, 3, 4, 8), torch.zeros(5, 3)
WRONG = {
    "x_rank": ({"x": X[0]}, RuntimeError, "x", "[B, T, H, D]", "(3, 4, 8)"),
    "x_kind": ({"x": 1}, TypeError, "x", "a tensor", "int"),
    "x_dtype": ({"x": X.long()}, RuntimeError, "x", "dtype float64, float32", "Long"),
    "cos_rank": ({"cos": C[0]}, RuntimeError, "cos", "[S, R/2] or [B, S, R/2]", "(3,)"),
    "cos_batch": (
        {"cos": C.expand(3, -1, -1), "sin": C.expand(3, -1, -1)},
        *(RuntimeError, "cos", "B = 2", "(3, 5, 3)"),
    ),
    "cos_wide": (
        {"cos": torch.zeros(5, 5), "sin": torch.zeros(5, 5)},
        *(RuntimeError, "cos", "at most 4, half of D", "5"),
    ),
    "cos_dtype": ({"cos": C.half(), "sin": C.half()}, RuntimeError, "cos", "float32", "float16"),
    "cos_device": ({"cos": C.to("meta")}, RuntimeError, "cos", "device cpu like x", "meta"),
    "sin_shape": ({"sin": C[1:]}, RuntimeError, "sin", "(5, 3) like cos", "(4, 3)"),
    "sin_dtype": ({"sin": C.half()}, RuntimeError, "sin", "float32 like cos", "float16"),
    "offset_large": ({"offsets": 3}, RuntimeError, "offsets", "within the 5", "3 to 5"),
    "offset_negative": ({"offsets": -1}, RuntimeError, "offsets", "within the 5", "-1 to 1"),
    "offset_kind": ({"offsets": 1.5}, TypeError, "offsets", "an int or a tensor", "float"),
    "offsets_large": (
        {"offsets": integers(0, 3)},
        *(RuntimeError, "offsets", "within the 5", "3 to 5"),
    ),
    "offsets_shape": ({"offsets": integers(0)}, RuntimeError, "offsets", "(2,) [B]", "(1,)"),
    "offsets_dtype": ({"offsets": torch.zeros(2)}, RuntimeError, "offsets", "int32", "float32"),
    "packed_batch": (
        {"cu_seqlens": integers(0, 3)},
        *(RuntimeError, "x", "[1, total, H, D]", "(2, 3, 4, 8)"),
    ),
}
PACKED_WRONG = {
    "cu_seqlens_kind": ({"cu_seqlens": [0, 3]}, TypeError, "cu_seqlens", "a tensor", "list"),
    "cu_seqlens_dtype": ({"cu_seqlens": torch.zeros(2)}, RuntimeError, "cu_seqlens", "int32", "32"),
    "cu_seqlens_rank": (
        {"cu_seqlens": integers(0, 3)[None]},
        RuntimeError,
        "cu_seqlens",
        "[N",
        "2",
    ),
    "cu_seqlens_none": ({"cu_seqlens": integers(0)}, RuntimeError, "cu_seqlens", "one seq", "(1,)"),
    "cu_seqlens_end": (
        {"cu_seqlens": integers(0, 2)},
        RuntimeError,
        "cu_seqlens",
        "0 to 3",
        "to 2",
    ),
    "cu_seqlens_start": (
        {"cu_seqlens": integers(1, 3)},
        RuntimeError,
        "cu_seqlens",
        "0 to",
        "1 to",
    ),
    "cu_seqlens_order": (
        {"cu_seqlens": integers(0, 2, 1, 3)},
        *(RuntimeError, "cu_seqlens", "not decrease", "1 behind 2"),
    ),
    "offsets_shape": (
        {"cu_seqlens": integers(0, 1, 3), "offsets": integers(0)},
        *(RuntimeError, "offsets", "(2,) [N]", "(1,)"),
    ),
    "offsets_large": (
        {"cu_seqlens": integers(0, 1, 3), "offsets": integers(0, 4)},
        *(RuntimeError, "offsets", "within the 5", "4 to 5"),
    ),
    "own_tables": (
        {"cu_seqlens": integers(0, 3), "cos": C[None], "sin": C[None]},
        *(RuntimeError, "cos", "[S, R/2] with cu_seqlens", "three"),
    ),
}
CALLS = {
    **{name: ({"x": X, "cos": C, "sin": C}, *case) for name, case in WRONG.items()},
    **{
        f"packed_{name}": ({"x": X[:1], "cos": C, "sin": C}, *case)
        for name, case in PACKED_WRONG.items()
    },
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("op", ["rotary", "rotary_"])
def test_wrong_call(op, name):
    good, change, error, argument, expected, got = CALLS[name]
    with pytest.raises(error) as raised:
        getattr(ops, op)(**{**good, **change})
    message = str(raised.value).splitlines()[0]
    assert re.match(rf"{op}: {argument}: expected ", message), message
    assert expected in message.split(", got ")[0] and got in message.split(", got ")[1], message


IN_PLACE_WRONG = {
    "columns": (torch.zeros(1, 3, 4, 16)[..., ::2], "stride 1 of the last", "(192, 64, 16, 2)"),
    "expanded": (torch.zeros(1, 1, 4, 8).expand(1, 3, 4, 8), "memory of its own", "(32, 0, 8, 1)"),
}


@pytest.mark.parametrize("name", IN_PLACE_WRONG)
def test_wrong_memory_in_place(name):
    x, expected, got = IN_PLACE_WRONG[name]
    with pytest.raises(RuntimeError, match="rotary_: x: expected") as raised:
        ops.rotary_(x, C, C)
    message = str(raised.value)
    assert expected in message and got in message


def test_opcheck():
    op, in_place = torch.ops.suffuse.rotary.default, torch.ops.suffuse.rotary_.default
    for tensors, places in (
        (example((2, 3, 2, 10), 6, positions=9), (integers(1, 5), None, 0)),
        (example((1, 7, 2, 10), 6, HALF, wide=True), (None, integers(0, 3, 7), 0)),
        (example((2, 3, 2, 10), dtype=DOUBLE, positions=9, own=True), (None, None, 4)),
    ):
        torch.library.opcheck(op, (*tensors.values(), *places, True, False))
        torch.library.opcheck(in_place, (*tensors.values(), *places, False, True))
