"""sampler_step on a CUDA device against the float64 reference and the bits of the CPU."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ops.sampler_step_calls import BF16, DOUBLE, FLOAT, HALF, MIXES, check, example

from gpu.device import moved, on_device
from suffuse import info
from suffuse.ops import SamplerStep, sampler_step

pytestmark = pytest.mark.gpu
ALL = ("anchor", "extra", "noise")
run = on_device(sampler_step)


def assert_same_bits(actual: SamplerStep, expected: SamplerStep) -> None:
    for name, a, e in zip(SamplerStep._fields, actual, expected, strict=True):
        assert (a is None) == (e is None), name
        if a is not None and e is not None:
            assert a.dtype == e.dtype and torch.equal(a.cpu(), e.cpu()), name


def test_there_is_a_kernel():
    assert info.has_kernel("sampler_step", "cuda")


@pytest.mark.parametrize(("dtype", "model_dtype"), MIXES)
def test_every_type_with_all_operands(dtype: torch.dtype, model_dtype: torch.dtype):
    for shape in ((3, 5, 67), (2, 4, 64, 64)):
        for following in (DOUBLE,) if dtype == DOUBLE else (FLOAT, BF16, HALF):
            call = example(
                shape, dtype, model_dtype, outputs=4, history=4, operands=ALL, per_sample=True,
                next_input=following,
            )  # fmt: skip
            check(*call, step=run)


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 63, 250, 1003, 70001])
def test_ragged_sizes(size: int):
    for dtype in (FLOAT, BF16, DOUBLE):
        following = DOUBLE if dtype == DOUBLE else BF16
        call = example((5, size), dtype, per_sample=True, noise=(7, 9), next_input=following)
        check(*call, step=run)


def test_more_elements_than_the_grid_has_threads():
    check(*example((2, 10_000_001), history=1, noise=(7, 9), per_sample=True), step=run)


LAYOUTS = {
    "channel slice": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
    "transposed": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "expanded batch": lambda t: t[:1].expand_as(t),
    "every second sample": lambda t: torch.stack([t, t], dim=1)[:, 1],
    "unaligned": lambda t: torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].reshape(t.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [FLOAT, HALF, DOUBLE])
def test_layouts(layout: str, dtype: torch.dtype):
    arrange = LAYOUTS[layout]
    x, models, table, kwargs = example((4, 6, 9, 11), dtype, outputs=2, operands=ALL)
    kwargs |= {name: arrange(kwargs[name]) for name in ALL}
    kwargs["threshold"] = (0.9, 99.0)
    check(arrange(x), [arrange(m) for m in models], table, kwargs, step=run)


@pytest.mark.parametrize(("dtype", "model_dtype"), MIXES)
def test_the_bits_of_the_cpu(dtype: torch.dtype, model_dtype: torch.dtype):
    x, models, table, kwargs = example(
        (3, 611), dtype, model_dtype, outputs=2, history=2, operands=("anchor", "extra"),
        per_sample=True, clip=math.inf, noise=(2**40 + 7, 2**35 + 3), threshold=(0.9, 99.0),
        next_input=dtype,
    )  # fmt: skip
    call = (x, models, table if dtype == DOUBLE else table.float())
    assert_same_bits(run(*call, **kwargs), sampler_step(*call, **kwargs))


@pytest.mark.parametrize("dtype", [FLOAT, BF16, DOUBLE])
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.995, 1.0])
def test_dynamic_threshold(quantile: float, dtype: torch.dtype):
    for size in (1, 2, 37, 20001):
        for clip in (math.inf, 1.5):
            x, models, table, kwargs = example((3, size), dtype, outputs=2, clip=clip)
            check(3 * x, models, table, kwargs | {"threshold": (quantile, 99.0)}, step=run)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("threshold", [None, (0.8, 2.0)])
def test_bad_numbers_stay_where_the_reference_has_them(bad: float, threshold: Any):
    for dtype in (FLOAT, BF16, DOUBLE):
        x, models, table, kwargs = example((3, 40), dtype, outputs=2, history=1, clip=math.inf)
        x[0, 3], models[1][1, 33], kwargs["history"][0][2, 39] = bad, bad, bad
        check(x, models, table, kwargs | {"threshold": threshold}, step=run)


def test_no_synchronisation_on_any_stream_and_in_a_graph():
    call = example((4, 5000), outputs=2, noise=(3, 4), threshold=(0.9, 99.0), clip=math.inf)
    x, models, table, kwargs = moved((*call[:2], call[2].float(), call[3]), "cuda")
    expected = sampler_step(x, models, table, **kwargs)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            other = sampler_step(x, models, table, **kwargs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert_same_bits(other, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = sampler_step(x, models, table, **kwargs)
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(captured, expected)


def test_gradients_equal_the_cpus():
    x, models, table, kwargs = example((3, 50), outputs=2, history=1, operands=("anchor",))
    found = []
    for device in ("cpu", "cuda"):
        operands, options = moved(([x, *models], (table.float(), kwargs)), device)
        leaves = [t.requires_grad_() for t in operands]
        step = sampler_step(leaves[0], leaves[1:], options[0], **options[1])
        found.append(torch.autograd.grad(step.sample.square().sum(), leaves))
    for got, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got.cpu(), expected)
