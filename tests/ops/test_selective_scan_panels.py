"""selective_scan of few channels, where the CPU has time on the lanes, in panels of 256 steps."""

from __future__ import annotations

import itertools

import pytest
import torch
from selective_scan_inputs import DTYPES, Shape, check, make, plain, results

from suffuse import ops
from suffuse.ops.selective_scan import _takes_panels
from suffuse.reference.selective_scan import selective_scan as reference
from suffuse.testing import cpu_isas, relative_error, use_isa, use_threads

# Runs that end inside, at and behind a panel's end; parts of the channels, of the states, of both.
SHAPES = [
    Shape(1, 1, 255, 1),
    Shape(1, 1, 257, 5),
    Shape(1, 1, 300, 17),
    Shape(2, 3, 530, 4),
    Shape(1, 9, 512, 6),
    Shape(2, 4, 290, 3, G=2),
    Shape(9, 2, 270, 2),
    Shape(1, 2, 240, 4, constant_B=True),
    Shape(1, 2, 240, 4, constant_C=True),
    Shape(2, 3, 260, 3, constant_B=True, constant_C=True),
]
TIMED = ("u", "delta", "B", "C", "z")


def floor(dtype: torch.dtype) -> float:
    """Gradients like that of delta_bias are hundreds of steps added up to two or three numbers, and the float64
    reference is no more exact than a float64 result."""
    return 16 if dtype == torch.float64 else 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_these_shapes_are_in_panels(shape):
    tensors = make(shape, torch.float32)
    blocks = shape.G * -(-shape.D // shape.G // 16)
    assert _takes_panels(shape.B, shape.D, shape.L, shape.N, shape.G, blocks)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    given = (*(tensors[name] for name in names), None, True, False, True)
    states = torch.ops.suffuse.selective_scan_fwd(*given)[2]
    assert states.shape == (shape.B, shape.D, -(-shape.L // 256), shape.N)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_rule(shape, dtype, reverse, isa):
    with use_isa(isa):
        check(make(shape, dtype), floor=floor(dtype), delta_softplus=True, reverse=reverse)


@pytest.mark.parametrize("softplus", [False, True], ids=["plain", "softplus"])
def test_without_optional_operands(softplus):
    tensors = make(
        Shape(1, 3, 270, 6),
        torch.float32,
        without=("D", "z", "delta_bias", "initial_state"),
    )
    if not softplus:
        tensors["delta"] = tensors["delta"].abs() * 0.3  # or the state grows beyond all bounds
    check(tensors, delta_softplus=softplus)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_packed_sequences(reverse, isa):
    """Every sequence gives what it gives alone, whatever its neighbours hold."""
    bounds = [0, 1, 17, 250, 257, 300, 520]
    lengths = torch.tensor(bounds).diff()
    tensors = make(Shape(2, 2, bounds[-1], 5), torch.float64, without=("initial_state",))
    index = torch.repeat_interleave(torch.arange(len(lengths)), lengths).int().expand(2, -1)
    options = {"delta_softplus": True, "reverse": reverse}
    with use_isa(isa):
        check(tensors, floor=floor(torch.float64), seq_idx=index, **options)
        tensors["u"][:, :, 20] = torch.inf
        tensors["u"][:, :, 290] = torch.nan
        packed = ops.selective_scan(**tensors, seq_idx=index, **options)
        for i, (begin, end) in enumerate(itertools.pairwise(bounds)):
            alone = {n: x[..., begin:end] if n in TIMED else x for n, x in tensors.items()}
            expected = ops.selective_scan(**alone, **options)
            if i in (2, 4):
                assert torch.equal(packed[..., begin:end].isnan(), expected.isnan())
            else:
                assert relative_error(packed[..., begin:end], expected) < 1e-13


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_a_gradient_that_is_no_number_stays_in_its_sequence(reverse, isa):
    tensors = make(Shape(1, 2, 300, 5), torch.float64, without=("initial_state",))
    index = ((torch.arange(300) >= 20).int() + (torch.arange(300) >= 130).int())[None]
    u = tensors.pop("u").requires_grad_()
    with use_isa(isa):
        out = ops.selective_scan(u, **tensors, delta_softplus=True, seq_idx=index, reverse=reverse)
        cotangent = torch.ones_like(out)
        (expected,) = torch.autograd.grad(out, u, cotangent, retain_graph=True)
        cotangent[..., 60] = torch.nan
        (got,) = torch.autograd.grad(out, u, cotangent)
    assert got[..., 60].isnan().all()
    for kept in (slice(0, 20), slice(130, 300)):
        assert torch.equal(got[..., kept], expected[..., kept])


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_infinity_and_growth_as_step_by_step(dtype, isa):
    """Products of decays neither lose an infinite state nor make one of nothing."""
    tensors = make(Shape(1, 2, 600, 3), dtype, without=("initial_state", "z"))
    tensors["u"][0, 0, 100] = torch.inf
    growing = {**tensors, "A": -tensors["A"] * 3}
    growing["u"] = torch.zeros_like(tensors["u"])
    growing["u"][..., 400:] = 1e-6
    with use_isa(isa):
        for given in (tensors, growing):
            ours, last = ops.selective_scan(**given, delta_softplus=True, return_last_state=True)
            exact, exact_last = plain(**given, delta_softplus=True)
            assert torch.equal(ours.isfinite(), exact.isfinite())
            assert torch.equal(last.isfinite(), exact_last.isfinite())
        assert not ours.isfinite().all() and ours[..., :400].isfinite().all()


@pytest.mark.parametrize("isa", cpu_isas())
def test_steps_and_rates_of_any_size(isa):
    """Finite for delta from 1e-6 to 100 and A down to -1e4."""
    tensors = make(Shape(1, 2, 300, 6), torch.float32, without=("initial_state", "delta_bias"))
    tensors["delta"] = torch.logspace(-6, 2, 300).expand(1, 2, 300).contiguous()
    tensors["A"] = -torch.logspace(-3, 4, 12).reshape(2, 6)
    with use_isa(isa):
        for name, value in results(ops.selective_scan, tensors).items():
            assert value.isfinite().all(), name
        check(tensors)


def test_layouts_are_read_in_place_or_copied():
    tensors = make(Shape(2, 3, 290, 19, G=1), torch.float32)
    expected = results(ops.selective_scan, tensors, delta_softplus=True)
    channels_last = {
        n: x.transpose(-1, -2).contiguous().transpose(-1, -2) if n in TIMED else x
        for n, x in tensors.items()
    }
    spread = {n: torch.stack([x, x], -1)[..., 0] for n, x in tensors.items()}
    for other in (channels_last, spread):
        for name, value in results(ops.selective_scan, other, delta_softplus=True).items():
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[3], SHAPES[5], Shape(1, 5, 4000, 7)], ids=str)
def test_same_bits_for_any_number_of_threads(shape, isa):
    tensors = make(shape, torch.float32)
    with use_isa(isa):
        with use_threads(1):
            expected = results(ops.selective_scan, tensors, delta_softplus=True)
        for threads in (2, 3):
            with use_threads(threads):
                got = results(ops.selective_scan, tensors, delta_softplus=True)
            for name, value in got.items():
                assert torch.equal(value, expected[name]), (threads, name)


def test_pieces_joined_by_their_states_are_the_whole():
    tensors = make(Shape(1, 2, 700, 8), torch.float64)
    whole, last = ops.selective_scan(**tensors, delta_softplus=True, return_last_state=True)
    state, pieces = tensors["initial_state"], []
    for begin, end in ((0, 13), (13, 400), (400, 700)):
        piece = {n: x[..., begin:end] if n in TIMED else x for n, x in tensors.items()}
        out, state = ops.selective_scan(
            **{**piece, "initial_state": state}, delta_softplus=True, return_last_state=True
        )
        pieces.append(out)
    assert relative_error(torch.cat(pieces, -1), whole) < 1e-13
    assert relative_error(state, last) < 1e-13


def test_long_sequences_keep_their_accuracy():
    """One channel, slow decays: the error does not grow with the length."""
    tensors = make(Shape(1, 1, 20000, 2), torch.float32, without=("initial_state",))
    tensors["A"] = -torch.tensor([[1e-3, 1e-2]])
    ours = ops.selective_scan(**tensors, delta_softplus=True)
    wide = {name: x.double() for name, x in tensors.items()}
    exact = reference(**wide, delta_softplus=True)
    naive = plain(**tensors, delta_softplus=True)[0]
    assert relative_error(ours, exact) <= 2 * relative_error(naive, exact) + 5e-7


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_gradcheck(reverse):
    tensors = make(Shape(1, 1, 130, 1), torch.float64)
    names = list(tensors)
    index = (torch.arange(130) >= 70).int()[None]

    def function(*values):
        return ops.selective_scan(
            **dict(zip(names, values, strict=True)), delta_softplus=True, return_last_state=True, seq_idx=index,
            reverse=reverse,
        )  # fmt: skip

    assert _takes_panels(1, 1, 130, 1, 1, 1)
    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in tensors.values()])


def test_opcheck():
    t = make(Shape(1, 2, 300, 3), torch.float32)
    rows = [t[n] for n in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    arguments = (*rows, t["initial_state"], None, True, False, True)
    torch.library.opcheck(torch.ops.suffuse.selective_scan_fwd.default, arguments)
    out, last, states, ungated = torch.ops.suffuse.selective_scan_fwd(*arguments)
    backward = (out, last, *rows, None, states, ungated, True, False)
    torch.library.opcheck(torch.ops.suffuse.selective_scan_bwd.default, backward)
