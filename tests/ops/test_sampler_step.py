"""sampler_step against its float64 reference: types, sizes, layouts, special values, ISAs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_step_calls import BF16, DOUBLE, FLOAT, HALF, MIXES, OP, check, coefficients, example

from suffuse.ops import sampler_step, step_coefficients
from suffuse.reference import sampler_step as formula
from suffuse.testing import cpu_isas, use_isa, use_threads

ALL = ("anchor", "extra", "noise")


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize(("dtype", "model_dtype"), MIXES)
def test_every_type_with_all_operands(dtype: torch.dtype, model_dtype: torch.dtype, isa: str):
    with use_isa(isa):
        for shape in ((3, 5, 7), (2, 1025)):
            for following in (DOUBLE,) if dtype == DOUBLE else (FLOAT, BF16, HALF):
                check(
                    *example(
                        shape, dtype, model_dtype, outputs=4, history=4, operands=ALL,
                        per_sample=True, next_input=following,
                    )
                )  # fmt: skip


@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
@pytest.mark.parametrize("history", [0, 1, 2, 3, 4])
def test_counts_of_operands(outputs: int, history: int):
    check(*example(outputs=outputs, history=history))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("history", [0, 2])
def test_each_operand_alone(name: str, history: int):
    check(*example(history=history, operands=(name,)))


@pytest.mark.parametrize("converted", [True, False])
@pytest.mark.parametrize("following", [None, FLOAT, BF16, HALF])
def test_outputs_on_demand(converted: bool, following: torch.dtype | None):
    step = check(*example(converted=converted, next_input=following))
    assert (step.converted is not None) == converted
    assert (step.next_input is not None) == (following is not None)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 63, 64, 65, 1023, 1025, 4097, 9000])
def test_odd_sizes(size: int, isa: str):
    with use_isa(isa):
        check(*example((size,), outputs=2, history=1, noise=(7, 9)))
        check(*example((2, size), per_sample=True, history=1, noise=(7, 9), next_input=BF16))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=5).map(tuple),
    outputs=st.integers(1, 4),
    history=st.integers(0, 4),
    per_sample=st.booleans(),
    mix=st.sampled_from(MIXES),
    options=st.sampled_from([{}, {"noise": (1, 2)}, {"threshold": (0.9, 2.0)}]),
)
def test_any_shape(shape, outputs, history, per_sample, mix, options):
    torch.manual_seed(0)  # an example must give the same numbers whenever it is tried
    check(
        *example(
            shape, *mix, outputs=outputs, history=history, operands=("anchor",),
            per_sample=per_sample, **options,
        ),
        may_cancel=True,
    )  # fmt: skip


def test_no_dimension():
    x, models, table, kwargs = example((1,))
    check(x[0], [m[0] for m in models], table, kwargs)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (2, 0, 5)])
@pytest.mark.parametrize("options", [{}, {"threshold": (0.5, 2.0)}, {"noise": (0, 0)}])
def test_empty(shape: tuple[int, ...], options: dict[str, Any]):
    x, models, table, kwargs = example(shape, per_sample=True, **options)
    step = sampler_step(x, models, table, next_input=BF16, **kwargs)
    assert [t.shape for t in step if t is not None] == [shape] * 3
    assert step.next_input is not None and step.next_input.dtype == BF16


LAYOUTS = {
    "channel slice": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
    "transposed": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "channels last": lambda t: t.movedim(1, -1).contiguous().movedim(-1, 1),
    "expanded batch": lambda t: t[:1].expand_as(t),
    "expanded inside": lambda t: t[:, :, :1].expand_as(t),
    "every second sample": lambda t: torch.stack([t, t], dim=1)[:, 1],
    "unaligned": lambda t: torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].reshape(t.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per_sample", [True, False])
def test_layouts(layout: str, per_sample: bool):
    arrange = LAYOUTS[layout]
    x, models, table, kwargs = example(
        (4, 6, 9, 11), outputs=2, history=2, operands=("anchor", "noise"), per_sample=per_sample
    )
    check(arrange(x), models, table, kwargs)
    kwargs |= {"anchor": arrange(kwargs["anchor"]), "noise": arrange(kwargs["noise"])}
    kwargs["history"] = [arrange(kwargs["history"][0]), kwargs["history"][1]]
    check(x, [arrange(models[0]), models[1]], table, kwargs)
    check(arrange(x), [arrange(m) for m in models], table, kwargs | {"threshold": (0.9, 2.0)})


def test_coefficients_from_a_strided_table():
    x, models, table, kwargs = example(per_sample=True)
    step = sampler_step(x, models, table, **kwargs)
    for strided in (table.T.contiguous().T, torch.stack([table, table], dim=1)[:, 1]):
        assert not strided.is_contiguous()
        assert torch.equal(sampler_step(x, models, strided, **kwargs).sample, step.sample)


@pytest.mark.parametrize("isa", cpu_isas())
def test_results_larger_than_the_cache(isa: str):
    # These are stored around the cache; samples that are no multiple of a vector start ragged.
    with use_isa(isa):
        check(*example((2, 700_001), history=1, noise=(5, 6), next_input=BF16, per_sample=True))


def test_results_in_fresh_pages():
    x, models, table, kwargs = example((2, 4_200_000))  # 33.6 MB each
    whole = sampler_step(x, models, table, **kwargs)
    for part in (slice(0, 1000), slice(2_000_001, 2_000_100), slice(-1000, None)):
        step = sampler_step(x[:, part], [models[0][:, part]], table, **kwargs)
        assert torch.equal(whole.sample[:, part], step.sample)
        assert whole.converted is not None and step.converted is not None
        assert torch.equal(whole.converted[:, part], step.converted)


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("dtype", [FLOAT, BF16, DOUBLE])
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.995, 1.0])
def test_dynamic_threshold(quantile: float, dtype: torch.dtype, isa: str):
    with use_isa(isa):
        for size in (1, 2, 37, 5000):
            x, models, table, kwargs = example((3, size), dtype, clip=math.inf)
            for maximum in (2.5, 99.0):  # the quantile above it, and below
                check(3 * x, models, table, kwargs | {"threshold": (quantile, maximum)})


def test_threshold_is_torch_quantile():
    x = 3 * torch.randn(4, 1000, dtype=DOUBLE)
    table = step_coefficients(data=1.0, data_from_x=1.0, dtype=DOUBLE)
    for quantile in (0.9, 0.9951, 1.0):
        s = torch.quantile(x.abs(), quantile, dim=1, keepdim=True).clamp(1, 4)
        step = sampler_step(x, [x], table, threshold=(quantile, 4.0))
        torch.testing.assert_close(step.sample, x.clamp(-s, s) / s, rtol=1e-14, atol=0)


def test_threshold_with_ties():
    x = torch.tensor([[3.0, 3, 3, 1, 1, 0, 0, 0], [2.0, 2, 2, 2, 2, 2, 2, 2]])
    table = coefficients(1, 0, data_from_x=1.0, data_from_model=0.0, clip=math.inf)
    for quantile in (0.1, 0.3, 0.5, 0.65, 0.9):
        check(x, [x], table, {"threshold": (quantile, 9.0)})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("threshold", [None, (0.8, 2.0)])
@pytest.mark.parametrize("isa", cpu_isas())
def test_bad_numbers_stay_where_the_reference_has_them(bad: float, threshold: Any, isa: str):
    with use_isa(isa):
        for clip in (1.5, math.inf):
            x, models, table, kwargs = example((3, 40), outputs=2, history=1, clip=clip)
            x[0, 3] = bad
            models[1][1, 33] = bad
            kwargs["history"][0][2, 39] = bad
            check(x, models, table, kwargs | {"threshold": threshold, "next_input": BF16})


def test_zero_coefficient_times_infinity_is_nan():
    x = torch.tensor([[math.inf, 1.0]])
    step = sampler_step(x, [torch.ones_like(x)], step_coefficients(model=1.0))
    assert step.sample.isnan().tolist() == [[True, False]]


def test_overflow_of_half_is_inf():
    x, models, table, kwargs = example((2, 50), HALF)
    x[0, 7] = 60000.0
    table[formula.X] = 3.0
    assert check(x, models, table, kwargs).sample[0, 7] == math.inf


def test_every_element_of_prefilled_memory_is_written():
    x, models, table, _ = example((5, 333))
    reused = False
    for _ in range(3):  # freed blocks of this size come back from the allocator, full of NaN
        held = [torch.full_like(x, math.nan) for _ in range(8)]
        addresses = {t.data_ptr() for t in held}
        del held
        step = sampler_step(x, models, table, next_input=FLOAT)
        reused |= step.sample.data_ptr() in addresses
        assert all(t is not None and bool(t.isfinite().all()) for t in step)
    assert reused


@pytest.mark.parametrize("options", [{}, {"threshold": (0.9, 2.0)}, {"noise": (3, 4)}])
@pytest.mark.parametrize("dtype", [FLOAT, BF16, DOUBLE])
def test_same_bits_on_every_isa_and_for_any_thread_count(
    options: dict[str, Any], dtype: torch.dtype
):
    x, models, table, kwargs = example(
        (3, 30011), dtype, outputs=2, history=2, next_input=dtype, per_sample=True, **options
    )
    expected = sampler_step(x, models, table, **kwargs)
    for isa in cpu_isas():
        for threads in (1, 2, 3):
            with use_isa(isa), use_threads(threads):
                actual = sampler_step(x, models, table, **kwargs)
            for a, e in zip(actual, expected, strict=True):
                assert a is not None and e is not None and torch.equal(a, e), (isa, threads)


def test_inputs_are_left_alone():
    x, models, table, kwargs = example(outputs=2, history=1, operands=("anchor",))
    tensors = [x, *models, table, *kwargs["history"], kwargs["anchor"]]
    before = [t.clone() for t in tensors]
    sampler_step(x, models, table, **kwargs)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize("dtype", [FLOAT, BF16])
@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seed": 3, "offset": 4},
        {"quantile": 0.9, "maximum": 2.0},
        {"converted": False, "next_input": BF16},
    ],
)
def test_opcheck(dtype: torch.dtype, per_sample: bool, options: dict[str, Any]):
    x, models, table, kwargs = example((3, 4), dtype, outputs=2, history=1, per_sample=per_sample)
    rest = {
        "converted": True, "next_input": None, "anchor": None, "extra": x.clone(), "noise": None,
        "seed": None, "offset": 0, "quantile": None, "maximum": 1.0,
    } | options  # fmt: skip
    table[..., formula.EXTRA] = 0.5
    torch.library.opcheck(OP, (x, models, table.float(), kwargs["history"], *rest.values()))
