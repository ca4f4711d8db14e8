"""causal_conv1d against its float64 reference: widths, dtypes, instruction sets, layouts, packed sequences."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops.causal_conv1d_calls import DTYPES, channels_last, check, example, packed, results

from suffuse import ops
from suffuse.reference.causal_conv1d import causal_conv1d as reference
from suffuse.testing import cpu_isas, relative_error, use_isa, use_threads

LAYOUTS = {"steps": dict, "channels": channels_last}  # what is adjacent
# batch, channels, steps, width
SHAPES = [
    (1, 1, 1, 1),
    (2, 17, 35, 4),
    (1, 32, 64, 3),
    (2, 5, 2, 4),
    (1, 16, 50, 9),
    (1, 3, 40, 33),
    (3, 20, 31, 2),
]


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_rule(shape, layout, dtype, activation, isa):
    with use_isa(isa):
        check(LAYOUTS[layout](example(shape, dtype)), activation=activation)


def test_without_bias_and_state():
    tensors = example((2, 18, 40, 4), torch.float32, state=False)
    check(tensors)
    del tensors["bias"]
    check(tensors, activation="swish")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("width", "length"), [(4, 2300), (600, 1100)])
def test_parts_have_no_seams(layout, width, length):
    """Several chunks of steps and blocks of channels; a window longer than a chunk."""
    for shape in ((1, 2, length, width), (1, 530, 40, 4)):
        tensors = LAYOUTS[layout](example(shape, torch.float64))
        index = packed(1, shape[2])
        ours = results(ops.causal_conv1d, tensors, seq_idx=index)
        exact = results(reference, tensors, seq_idx=index)
        for name in ours:
            assert relative_error(ours[name], exact[name]) < 1e-13, name


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("width", [2, 4, 33])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_long_rows_of_half_precision(dtype, width, isa):
    """Rows are widened a piece at a time."""
    tensors = example((1, 2, 2100, width), dtype)
    with use_isa(isa):
        check(tensors, activation="silu")
        check(tensors, seq_idx=packed(1, 2100))


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_silu_of_half_precision_is_nearly_the_nearest(dtype, layout, isa):
    x = torch.cat([torch.linspace(-86, 90, 40_000), torch.tensor([0.0, 6e4, torch.inf, torch.nan])])
    x = x.to(dtype)
    one = LAYOUTS[layout]({"x": x.expand(1, 17, -1), "weight": torch.ones(17, 1)})
    with use_isa(isa):
        got = ops.causal_conv1d(**one, activation="silu")[0, 16]
    exact = torch.nn.functional.silu(x.double())
    assert got[-1].isnan() and got[-2] == torch.inf and got[-3] == x[-3]
    normal = exact.abs() >= 2 * torch.finfo(dtype).tiny
    error = ((got.double() - exact) / exact)[normal][:-2].abs().max()
    assert normal.sum() > 20_000 and error < torch.finfo(dtype).eps / 2 + 2**-12.8


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_packed_sequences(width, layout, isa):
    with use_isa(isa):
        for dtype in DTYPES:
            tensors = LAYOUTS[layout](example((2, 18, 45, width), dtype))
            check(tensors, activation="silu", seq_idx=packed(2, 45))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_index_that_comes_back_is_a_new_sequence(layout):
    tensors = LAYOUTS[layout](example((1, 3, 6, 4), torch.float64))
    there_and_back, all_new = ([[0, 0, 1, 0, 0, 2]], [[0, 0, 1, 2, 2, 3]])
    first, second = (
        results(ops.causal_conv1d, tensors, seq_idx=torch.tensor(index, dtype=torch.int32))
        for index in (there_and_back, all_new)
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("length", [40, 4500])
def test_packed_sequences_are_those_alone(length, layout):
    """seq_idx: every sequence gives what it gives alone, padding gives 0, states belong to the ends."""
    cuts = [0, 2, 3, 19, length - 8, length - 5, length]
    index = torch.zeros(1, length, dtype=torch.int32)
    for i, (begin, end) in enumerate(itertools.pairwise(cuts)):
        index[:, begin:end] = -1 if i == 2 else i
    tensors = LAYOUTS[layout](example((1, 18, length, 4), torch.float64))
    out, final = ops.causal_conv1d(
        **tensors, activation="silu", seq_idx=index, return_final_state=True
    )
    for i, (begin, end) in enumerate(itertools.pairwise(cuts)):
        if i == 2:
            assert not out[..., begin:end].any()
            continue
        alone = {**tensors, "x": tensors["x"][..., begin:end]}
        if i:
            del alone["initial_state"]
        expected, last = ops.causal_conv1d(**alone, activation="silu", return_final_state=True)
        assert relative_error(out[..., begin:end], expected) < 1e-15
    assert torch.equal(final, last)


def test_pieces_joined_by_their_states_are_the_whole():
    tensors = example((1, 16, 50, 5), torch.float64)
    whole, final = ops.causal_conv1d(**tensors, return_final_state=True)
    state, pieces = tensors["initial_state"], []
    for begin, end in ((0, 2), (2, 3), (3, 50)):
        piece = {**tensors, "x": tensors["x"][..., begin:end], "initial_state": state}
        out, state = ops.causal_conv1d(**piece, return_final_state=True)
        pieces.append(out)
    assert torch.equal(torch.cat(pieces, -1), whole)
    assert torch.equal(state, final)


def test_layouts_are_read_in_place_or_copied():
    tensors = example((2, 19, 37, 4), torch.float32)
    expected = ops.causal_conv1d(**tensors, activation="silu")
    last = channels_last(tensors)
    out = ops.causal_conv1d(**last, activation="silu")
    assert torch.equal(out, expected) and out.stride() == last["x"].stride()
    spread = {name: torch.stack([x, x], -1)[..., 0] for name, x in tensors.items()}
    assert torch.equal(ops.causal_conv1d(**spread, activation="silu"), expected)
    sliced = torch.cat([last["x"], last["x"]], 1)[:, 19:]
    assert torch.equal(ops.causal_conv1d(**{**last, "x": sliced}, activation="silu"), expected)
    expanded = {**tensors, "x": tensors["x"][:1, :, :1].expand(2, -1, 37)}
    same = {**tensors, "x": expanded["x"].contiguous()}
    assert torch.equal(ops.causal_conv1d(**expanded), ops.causal_conv1d(**same))


@pytest.mark.parametrize("shape", [(2, 8, 0, 4), (0, 8, 5, 4), (2, 0, 5, 4)], ids=str)
def test_nothing_to_do(shape):
    got = results(ops.causal_conv1d, example(shape, torch.float32))
    assert got["out"].shape == shape[:3]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_bits_for_any_number_of_threads(layout):
    tensors = LAYOUTS[layout](example((2, 300, 2100, 4), torch.float32))
    with use_threads(1):
        expected = results(ops.causal_conv1d, tensors, activation="silu")
    for threads in (2, 3):
        with use_threads(threads):
            for name, value in results(ops.causal_conv1d, tensors, activation="silu").items():
                assert torch.equal(value, expected[name]), (threads, name)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [2, 4, 6])
def test_bad_numbers_stay_where_the_reference_has_them(width, layout, bad):
    tensors = LAYOUTS[layout](example((1, 18, 60, width), torch.float32))
    tensors["x"][0, 3, 30], tensors["x"][0, 5, 59] = bad, bad
    tensors["initial_state"][0, 0, 0] = bad
    check(tensors)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 70)),
        draw(st.integers(1, 12)),
    )
    tensors = example(
        shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 99)), draw(st.booleans())
    )
    tensors = LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](tensors)
    index = packed(shape[0], shape[2]) if draw(st.booleans()) else None
    with use_isa(draw(st.sampled_from(cpu_isas()))):
        check(tensors, activation=draw(st.sampled_from([None, "silu"])), seq_idx=index)
