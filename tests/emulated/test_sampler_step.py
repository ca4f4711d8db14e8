"""The CUDA kernels of sampler_step, executed by the emulator, against the float64 reference."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import pytest
import torch
from ops.sampler_step_calls import BF16, DOUBLE, FLOAT, HALF, MIXES, Call, check, example
from torch import Tensor

from emulated.harness import SEEDS, Emulator, assert_coalesced, assert_traffic
from emulated.sampler_step_device import EmulatedStep, Params
from suffuse.ops import SamplerStep, sampler_step, step_coefficients

ALL = ("anchor", "extra", "noise")


def emulated(seed: int = 0, **options: Any) -> EmulatedStep:
    return EmulatedStep(Emulator("sampler_step", seed=seed), **options)


def assert_same_bits(actual: SamplerStep, expected: SamplerStep) -> None:
    for name, a, e in zip(SamplerStep._fields, actual, expected, strict=True):
        assert (a is None) == (e is None), name
        if a is not None and e is not None:
            assert a.dtype == e.dtype and torch.equal(a, e), name


def test_params_have_the_layout_of_the_struct():
    size = Emulator("sampler_step").function("emulated_sampler_step_params_bytes", ctypes.c_int64)
    assert size() == ctypes.sizeof(Params)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("dtype", "model_dtype"), MIXES)
def test_every_type_with_all_operands(dtype: torch.dtype, model_dtype: torch.dtype, seed: int):
    for following in (DOUBLE,) if dtype == DOUBLE else (FLOAT, BF16, HALF):
        call = example(
            (3, 5, 67), dtype, model_dtype, outputs=3, history=2, operands=ALL, per_sample=True,
            next_input=following,
        )  # fmt: skip
        check(*call, step=emulated(seed))


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("history", [0, 4])
@pytest.mark.parametrize("converted", [True, False])
def test_counts_of_operands_and_results(outputs: int, history: int, converted: bool):
    call = example((2, 300), outputs=outputs, history=history, converted=converted)
    check(*call, step=emulated())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 63, 250, 1003])
def test_ragged_sizes(size: int, seed: int):
    for dtype in (FLOAT, BF16, DOUBLE):
        following = DOUBLE if dtype == DOUBLE else BF16
        call = example((5, size), dtype, per_sample=True, noise=(7, 9), next_input=following)
        check(*call, step=emulated(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", [FLOAT, BF16, DOUBLE])
def test_few_blocks_go_round_often(dtype: torch.dtype, seed: int):
    for per_sample in (True, False):  # at least three rounds of 256 threads
        call = example((3, 2501), dtype, history=1, noise=(7, 9), per_sample=per_sample)
        check(*call, step=emulated(seed, blocks=1))


LAYOUTS = {
    "every second sample": lambda t: torch.stack([t, t], dim=1)[:, 1],
    "channel slice": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
    "expanded batch": lambda t: t[:1].expand_as(t),
    "odd distance": lambda t: torch.cat([t, t[:, :1]], dim=1)[:, :-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [FLOAT, HALF, DOUBLE])
@pytest.mark.parametrize("shift", [0, 1])
def test_strided_samples(layout: str, dtype: torch.dtype, shift: int):
    arrange = LAYOUTS[layout]
    for size in (96, 101):
        x, models, table, kwargs = example((4, size), dtype, outputs=2, history=1, operands=ALL)
        kwargs |= {name: arrange(kwargs[name]) for name in ALL}
        kwargs["threshold"] = (0.9, 2.0)
        check(arrange(x), [arrange(m) for m in models], table, kwargs, step=emulated(shift=shift))


@pytest.mark.parametrize("dtype", [FLOAT, BF16, HALF, DOUBLE])
def test_normal_numbers_have_the_bits_of_the_cpu(dtype: torch.dtype):
    for shape in ((1, 2048), (3, 257)):
        zero = torch.zeros(shape, dtype=dtype)
        call = (zero, [zero], step_coefficients(noise=1.0))
        options: dict[str, Any] = {"noise": (2**40 + 7, 2**35 + 3), "converted": False}
        assert_same_bits(emulated()(*call, **options), sampler_step(*call, **options))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("dtype", "model_dtype"), MIXES)
def test_everything_has_the_bits_of_the_cpu(
    dtype: torch.dtype, model_dtype: torch.dtype, seed: int
):
    x, models, table, kwargs = example(
        (3, 611), dtype, model_dtype, outputs=2, history=2, operands=("anchor", "extra"),
        per_sample=True, clip=math.inf, noise=(3, 4), threshold=(0.9, 2.0), next_input=dtype,
    )  # fmt: skip
    call = (2 * x, models, table if dtype == DOUBLE else table.float())
    assert_same_bits(emulated(seed)(*call, **kwargs), sampler_step(*call, **kwargs))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.995, 1.0])
@pytest.mark.parametrize("dtype", [FLOAT, BF16, DOUBLE])
def test_dynamic_threshold(dtype: torch.dtype, quantile: float, seed: int):
    for size in (1, 2, 37, 777):
        x, models, table, kwargs = example((3, size), dtype, per_sample=True, clip=math.inf)
        check(3 * x, models, table, kwargs | {"threshold": (quantile, 99.0)}, step=emulated(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("dtype", "size"), [(FLOAT, 6201), (BF16, 12321), (DOUBLE, 3101)])
def test_threshold_of_samples_that_a_block_goes_round(dtype: torch.dtype, size: int, seed: int):
    x, models, table, kwargs = example((2, size), dtype, outputs=2, clip=math.inf)
    check(3 * x, models, table, kwargs | {"threshold": (0.99, 99.0)}, step=emulated(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_threshold_with_ties(seed: int):
    x = torch.tensor([[3.0, 3, 3, 1, 1, 0, 0, 0], [2.0, 2, 2, 2, 2, 2, 2, 2]])
    table = step_coefficients(data=1.0, data_from_x=1.0)
    clipped = step_coefficients(data=1.0, data_from_x=1.0, clip=1.25)
    for quantile in (0.1, 0.3, 0.5, 0.65, 0.9):
        check(x, [x], table, {"threshold": (quantile, 9.0)}, step=emulated(seed))
        wide = 2 * torch.randn(2, 1500)  # half of the numbers equal the clip
        check(wide, [wide], clipped, {"threshold": (quantile, 9.0)}, step=emulated(seed))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("threshold", [None, (0.8, 2.0)])
def test_bad_numbers_stay_where_the_reference_has_them(bad: float, threshold: Any):
    for dtype in (FLOAT, BF16, DOUBLE):
        x, models, table, kwargs = example((3, 40), dtype, outputs=2, history=1, clip=math.inf)
        x[0, 3], models[1][1, 33], kwargs["history"][0][2, 39] = bad, bad, bad
        following = DOUBLE if dtype == DOUBLE else BF16
        kwargs |= {"threshold": threshold, "next_input": following}
        check(x, models, table, kwargs, step=emulated())


def tensor_bytes(call: Call) -> int:
    x, models, table, kwargs = call
    operands = [x, *models, table, *kwargs["history"], *kwargs.values()]
    return sum(t.nbytes for t in operands if isinstance(t, Tensor))


@pytest.mark.parametrize("shape", [(4, 2048), (1, 9001), (3, 3003)])
@pytest.mark.parametrize(("dtype", "model_dtype"), MIXES)
def test_traffic_of_the_step(dtype: torch.dtype, model_dtype: torch.dtype, shape: tuple[int, int]):
    for following in (DOUBLE,) if dtype == DOUBLE else (FLOAT, BF16):
        call = example(shape, dtype, model_dtype, outputs=2, history=2, next_input=following)
        step = emulated()
        results = step(*call[:3], **call[3])
        (launch,) = step.report.launches
        assert_coalesced(launch.counters)
        stored = sum(t.nbytes for t in results if t is not None)
        assert_traffic(launch.counters, tensor_bytes(call), stored)


@pytest.mark.parametrize("shape", [(2, 8192), (3, 3003)])
@pytest.mark.parametrize(("dtype", "model_dtype"), [(FLOAT, BF16), (BF16, BF16), (DOUBLE, DOUBLE)])
def test_traffic_of_the_threshold(
    dtype: torch.dtype, model_dtype: torch.dtype, shape: tuple[int, int]
):
    call = example(shape, dtype, model_dtype, outputs=2, threshold=(0.995, 2.0))
    step = emulated()
    step(*call[:3], **call[3])
    scales, _ = step.report.launches
    assert scales.kernel == "sampler_step_scales_kernel"
    assert_coalesced(scales.counters)
    assert_traffic(scales.counters, tensor_bytes(call), 32 * shape[0])
