"""The CUDA kernels of selective_scan, executed by the emulator, against the float64 reference."""

from __future__ import annotations

import ctypes

import pytest
import torch
from ops.selective_scan_inputs import Shape, check, make
from torch import Tensor

from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic
from emulated.selective_scan_device import EmulatedScan, GradParams, Params

FLOAT, BF16, HALF = torch.float32, torch.bfloat16, torch.float16
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
# One to 32 lanes a channel and 1 to 8 states a lane; at least three windows of 16 steps.
SHAPES = [
    Shape(2, 17, 35, 5),
    Shape(1, 20, 100, 16),
    Shape(2, 24, 49, 7, G=4),
    Shape(1, 140, 64, 2),
    Shape(1, 11, 70, 20),
    Shape(1, 6, 40, 66),
    Shape(1, 9, 50, 4, constant_B=True),
    Shape(1, 9, 50, 4, constant_C=True),
    Shape(2, 20, 49, 3, constant_B=True, constant_C=True),
]


def check_kernels(tensors: dict[str, Tensor], seed: int, cut: tuple[int, ...] = (), **options):  # type: ignore[no-untyped-def]
    """The error rule, and nothing found. Other seeds than 0 move every approximation by up to 2 ulp, of
    which a state and a gradient carry along as many as it has steps behind it: hence their floor."""
    scan = EmulatedScan(Emulator("selective_scan", seed=seed), *cut)
    check(tensors, scan, floor=4.0 if seed else 1.0, **options)
    return scan


@pytest.mark.parametrize(
    ("name", "struct"), [("params", Params), ("grad_params", GradParams)], ids=["params", "grad"]
)
def test_params_have_the_layout_of_the_struct(name: str, struct: type[ctypes.Structure]):
    entry = f"emulated_selective_scan_{name}_bytes"
    size = Emulator("selective_scan").function(entry, ctypes.c_int64)
    assert size() == ctypes.sizeof(struct)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [FLOAT, BF16, HALF], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_and_types(shape: Shape, dtype: torch.dtype, seed: int):
    reverse = (seed + dtype.itemsize // 2) % 2 == 0
    check_kernels(make(shape, dtype, seed + 1), seed, delta_softplus=True, reverse=reverse)


@pytest.mark.parametrize("states", [1, 12, 32, 128, 256])
def test_numbers_of_states(states: int):
    check_kernels(make(Shape(1, 5, 33, states), FLOAT), 0, delta_softplus=True)


@pytest.mark.parametrize("shape", [Shape(1, 1, 1, 1), Shape(3, 2, 16, 3), Shape(1, 3, 17, 9)])
def test_short_sequences(shape: Shape):
    for reverse in (False, True):
        check_kernels(make(shape, FLOAT), 0, delta_softplus=True, reverse=reverse)


@pytest.mark.parametrize("missing", [*OPTIONAL, "all"])
def test_optional_operands(missing: str):
    tensors = make(Shape(2, 18, 40, 6), FLOAT, without=OPTIONAL if missing == "all" else (missing,))
    check_kernels(tensors, 1, delta_softplus=True)
    tensors["delta"] = tensors["delta"].abs() * 0.3  # or the state grows beyond all bounds
    if "delta_bias" in tensors:
        tensors["delta_bias"] = tensors["delta_bias"].abs()
    check_kernels(tensors, 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
def test_packed_sequences(reverse: bool, seed: int):
    """That start within windows and at their edges, in segments of time and without."""
    starts = torch.tensor([0, 1, 16, 17, 30, 64, 100])
    index = torch.bucketize(torch.arange(115), starts, right=True).int().expand(2, -1)
    tensors = make(Shape(2, 18, 115, 10), FLOAT, seed)
    for segments in (1, 4):
        options = {"delta_softplus": True, "seq_idx": index, "reverse": reverse}
        check_kernels(tensors, seed, (segments,), **options)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("segments", "rounds"), [(3, 1), (5, 2), (1, 3)])
@pytest.mark.parametrize("dtype", [FLOAT, BF16], ids=str)
def test_segments_and_rounds(dtype: torch.dtype, segments: int, rounds: int, seed: int):
    """Time side by side; channels of a block one after another, the last round with fewer."""
    for shape in (Shape(1, 36, 80, 12), Shape(1, 40, 77, 5, G=2, constant_C=True)):
        options = {"delta_softplus": True, "reverse": seed == 1}
        check_kernels(make(shape, dtype, seed), seed, (segments, rounds), **options)


def test_few_channels_take_segments_by_themselves():
    tensors = make(Shape(1, 3, 16 * 35, 4), FLOAT)
    scan = check_kernels(tensors, 0, delta_softplus=True)
    kernels = ["segments", "starts", "scan"]
    assert [launch.kernel for launch in scan.forward_report.launches] == [
        "selective_scan_kernel" if name == "scan" else f"selective_scan_{name}_kernel"
        for name in kernels
    ]
    assert scan.forward_report.launches[-1].shape.startswith("grid 4x1x1")


@pytest.mark.parametrize(
    "shape", [Shape(2, 8, 0, 3), Shape(0, 8, 5, 3), Shape(2, 0, 5, 3)], ids=str
)
def test_nothing_to_do(shape: Shape):
    got = EmulatedScan(Emulator("selective_scan"))(make(shape, FLOAT))
    assert got["out"].shape == (shape.B, shape.D, shape.L)
    assert (got["grad_A"] == 0).all() and (got["grad_D"] == 0).all()
    if shape.B and shape.D:
        assert torch.equal(got["last_state"], make(shape, FLOAT)["initial_state"])


@pytest.mark.parametrize("dtype", [FLOAT, BF16], ids=str)
@pytest.mark.parametrize("shift", [0, 1])
def test_layouts(dtype: torch.dtype, shift: int):
    """Channels adjacent in some operands; rows that start anywhere."""
    tensors = make(Shape(2, 19, 53, 6, G=1), dtype)
    for name in ("u", "z", "B"):
        tensors[name] = tensors[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    check_kernels(tensors, 0, (0, 0, shift), delta_softplus=True)


def test_nan_stays_in_its_channel_and_behind_its_step():
    tensors = make(Shape(1, 16, 40, 3), FLOAT)
    tensors["u"][0, 3, 10] = torch.nan
    got = EmulatedScan(Emulator("selective_scan"))(tensors, delta_softplus=True)
    expected = torch.zeros(1, 16, 40, dtype=torch.bool)
    expected[0, 3, 10:] = True
    assert torch.equal(got["out"].isnan(), expected)


def test_same_bits_at_every_run():
    """In whatever order blocks and lanes run: there is no atomic. Approximations are those of seed 0."""
    tensors = make(Shape(2, 40, 100, 16), FLOAT)
    first, second = (
        EmulatedScan(Emulator("selective_scan"), 3, 2)(tensors, delta_softplus=True)
        for _ in range(2)
    )
    scan = EmulatedScan(Emulator("selective_scan"), 3, 2)
    scan(tensors, delta_softplus=True)
    assert scan.backward_report.counters.atomics == 0
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def size(tensors: dict[str, Tensor], *names: str) -> int:
    return sum(tensors[name].nbytes for name in names)


@pytest.mark.parametrize(
    "shape", [Shape(1, 32, 192, 16), Shape(2, 32, 256, 8), Shape(1, 8, 128, 64)]
)
@pytest.mark.parametrize("dtype", [FLOAT, BF16], ids=str)
def test_traffic(dtype: torch.dtype, shape: Shape):
    """Every operand once, every result once, and what the passes leave for each other."""
    tensors = make(shape, dtype)
    scan = EmulatedScan(Emulator("selective_scan"), 1, 1)
    scan(tensors, delta_softplus=True)
    rows, small = tensors["u"].nbytes, 4 * shape.B * shape.D * shape.N
    saved = 4 * shape.B * (shape.L // 16) * shape.D * shape.N
    projected = size(tensors, "B", "C")
    constants = size(tensors, "A", "D", "delta_bias")

    (forward,) = scan.forward_report.launches
    assert_coalesced(forward.counters)
    loaded = 3 * rows + projected + constants + small
    assert_traffic(forward.counters, loaded, 2 * rows + saved + small)

    backward, *sums = scan.backward_report.launches
    assert_coalesced(backward.counters)
    parts = shape.D * {8: 8, 16: 8, 64: 32}[shape.N] // 128  # lanes of a channel, of 128 threads
    partial = 2 * 4 * shape.B * parts * shape.N * shape.L
    row_sums = 2 * small + 2 * 4 * shape.B * shape.D
    loaded = 5 * rows + projected + constants + saved + small
    assert_traffic(backward.counters, loaded, 3 * rows + partial + row_sums)

    assert len(sums) == 3
    for launch in sums:
        assert_coalesced(launch.counters)
    loaded = sum(launch.counters.global_load.distinct for launch in sums)
    assert 32 * loaded <= 1.05 * (partial + row_sums - small)
