"""The sm_90a forward kernel of attention, executed by the emulator, against the float64 formula."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import pytest
import torch

from emulated.attention_device import EmulatedAttention, Params, check, make
from emulated.attention_sm90_device import (
    TYPES,
    check_traffic,
    emulated,
    sm90_head,
    tile_counts,
)
from emulated.harness import MMA_ROUNDINGS, SEEDS

BF16, F16 = TYPES
MASKS: dict[str, dict[str, Any]] = {
    "all": {},
    "top-left": {"right": 0},
    "bottom-right": {"right": 0, "top_left": False},
    "window": {"left": 70, "right": 9, "top_left": False},
}
# B, T, S, H, G, D, Dv: three blocks of queries, two to four tiles of keys, both ragged. Blocks have
# 192 queries of a head dim of 64, others 128; tiles 128 keys, of a head dim of 256 64.
SHAPES = [
    (1, 390, 420, 2, 1, 64, 64),
    (2, 300, 200, 2, 2, 128, 128),
    (1, 270, 170, 2, 1, 256, 256),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, ...], dtype: torch.dtype, mask: str, seed: int) -> None:
    check(emulated(dtype, seed), *make(shape, dtype), **MASKS[mask])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_general_kernel_without_features(shape: tuple[int, ...], mask: str, seed: int) -> None:
    check(emulated(BF16, seed, general=True), *make(shape, BF16), **MASKS[mask])


@pytest.mark.parametrize("mma", MMA_ROUNDINGS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("D", "Dv"), [(48, 56), (56, 64), (96, 128), (104, 96), (128, 120), (192, 256), (248, 240)]
)
def test_head_dims_between(D: int, Dv: int, dtype: torch.dtype, mma: str) -> None:
    tensors = make((1, 140, 150, 2, 1, D, Dv), dtype)
    check(emulated(dtype, 1, mma), *tensors, right=0, top_left=False)


@pytest.mark.parametrize("D", [64, 128, 256])
@pytest.mark.parametrize(
    ("T", "S"), [(1, 1), (1, 300), (300, 1), (64, 128), (65, 129), (193, 127), (129, 64)]
)
def test_few_rows(T: int, S: int, D: int) -> None:
    for seed, mask in enumerate(MASKS):
        dtype = TYPES[seed % 2]
        check(emulated(dtype, seed), *make((1, T, S, 1, 1, D, D), dtype), **MASKS[mask])


@pytest.mark.parametrize("window", [(0, 0), (10, 0), (200, 5), (0, 100), (-1, 30), (130, -1)])
@pytest.mark.parametrize("top_left", [True, False])
def test_windows(top_left: bool, window: tuple[int, int]) -> None:
    """Warpgroups of one block see different tiles, and some none."""
    left, right = window
    for seed, (T, S) in enumerate(((500, 500), (200, 530), (530, 200))):
        tensors = make((1, T, S, 1, 1, 64, 64), BF16)
        check(emulated(BF16, seed), *tensors, left=left, right=right, top_left=top_left)


@pytest.mark.parametrize("D", [64, 128, 256])
def test_rows_without_keys(D: int) -> None:
    """The first queries of a bottom-right mask see nothing: whole blocks, warpgroups and rows."""
    tensors = make((1, 300, 30, 1, 1, D, D), BF16)
    for general in (False, True) if D < 256 else (False,):
        attention = emulated(BF16, general=general)
        out, lse = attention(*tensors, scale=1.0, right=0, top_left=False)
        assert bool((out[:, :270] == 0).all()) and bool((lse[..., :270] == -math.inf).all())
        assert bool(lse[..., 270:].isfinite().all())


def test_strided_tensors() -> None:
    """Heads before rows; keys and values in one tensor; rows with a gap; batch entries apart."""
    for D in (64, 128):
        q, k, v = make((2, 200, 150, 3, 3, D, D), BF16)
        joined = torch.stack([k, v], dim=3)
        turned = q.transpose(1, 2).contiguous().transpose(1, 2)
        gaps = torch.empty(2, 200, 3, D + 8, dtype=BF16)[..., :D].copy_(q)
        apart = torch.empty(4, 200, 3, D, dtype=BF16)[::2].copy_(q)
        for query in (turned, gaps, apart):
            check(emulated(BF16, 1), query, joined[..., 0, :], joined[..., 1, :], right=0)


FEATURES: dict[str, dict[str, Any]] = {
    "softcap": {"softcap": 2.5},
    "ALiBi": {"alibi_slopes": torch.tensor([0.5, 0.1, 0.03, 0.7]), "right": 0, "top_left": False},
    "ALiBi of each sequence": {"alibi_slopes": torch.linspace(0, 1, 8).reshape(2, 4)},
    "sinks": {"sinks": torch.tensor([1.0, -math.inf, 3.0, -2.0]), "right": 0},
    "negative scale": {"scale": -0.3},
    "no scale": {"scale": 0.0},
    "all": {
        **{"softcap": 3.0, "alibi_slopes": torch.tensor([0.5, 0.1, 0.03, 0.7]), "scale": -0.2},
        **{"sinks": torch.tensor([1.0, -math.inf, 3.0, -2.0]), "left": 150, "right": 20},
        **{"top_left": False},
    },
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("D", [64, 128])
@pytest.mark.parametrize("name", FEATURES)
def test_features(name: str, D: int, seed: int) -> None:
    dtype = TYPES[seed % 2]
    check(emulated(dtype, seed), *make((2, 200, 170, 4, 2, D, D), dtype), **FEATURES[name])


def test_sinks_of_rows_without_keys() -> None:
    sinks = torch.tensor([1.5, -math.inf])
    tensors = make((1, 200, 30, 2, 1, 64, 64), BF16)
    check(emulated(BF16), *tensors, sinks=sinks, right=0, top_left=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_numbers_are_where_the_formula_has_them(bad: float) -> None:
    for D in (64, 128):
        q, k, v = make((1, 80, 90, 1, 1, D, D), BF16)
        q[0, 3, 0, 5] = bad
        v[0, 60, 0, 7] = bad
        check(emulated(BF16), q, k, v, right=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_scales(scale: float) -> None:
    """Of large ones the top of a row changes often, of small ones hardly."""
    check(emulated(BF16), *make((1, 130, 400, 1, 1, 64, 64), BF16), scale=scale)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("D", [64, 128, 256])
@pytest.mark.parametrize("dtype", TYPES)
def test_traffic_and_products_are_those_of_the_tiling(
    dtype: torch.dtype, D: int, causal: bool
) -> None:
    """Each block reads each key and value that it sees once; nothing but lse passes TMA by."""
    T, S, H = 384, 512, 2
    attention = emulated(dtype, 1)
    options = {"right": 0} if causal else {}
    attention(*make((1, T, S, H, 1, D, D), dtype), scale=0.1, **options)
    assert attention.report is not None
    (launch,) = attention.report.launches
    tiles, seen = tile_counts(T, S, D, causal)
    keys, row = (64 if D == 256 else 128), 2 * D
    check_traffic(launch.counters, H * (T + 2 * tiles * keys) * row, H * T * row)
    assert launch.counters.wgmma == H * seen * (D // 16 + keys // 16)


def params_of(*, D: int = 64, Dv: int | None = None, T: int = 40, **changes: Any) -> Params:
    """Of a call without tensors: contiguous rows of bfloat16 at address 0."""
    p = Params(B=2, T=T, S=50, H=4, G=2, D=D, Dv=D if Dv is None else Dv, dtype=2)
    for name, rows, heads, columns in (
        ("q", p.T, p.H, p.D), ("k", p.S, p.G, p.D), ("v", p.S, p.G, p.Dv), ("out", p.T, p.H, p.Dv),
    ):  # fmt: skip
        tensor = getattr(p, name)
        tensor.head, tensor.row = columns, heads * columns
        tensor.batch = rows * tensor.row
    p.scores.scale = 0.1
    for path, value in changes.items():
        part, _, field = path.rpartition("__")
        setattr(getattr(p, part) if part else p, field, value)
    return p


@pytest.mark.parametrize(
    ("D", "Dv", "head"),
    [
        (64, 64, 64), (48, 64, 64), (40, 64, 0), (32, 32, 0), (72, 72, 0), (88, 88, 0), (96, 96, 128),
        (128, 96, 128), (128, 64, 0), (136, 136, 0), (192, 192, 256), (256, 256, 256), (264, 264, 0),
        (60, 60, 0),
    ],
)  # fmt: skip
def test_head_dims_taken(D: int, Dv: int, head: int) -> None:
    assert sm90_head(params_of(D=D, Dv=Dv), 90) == head


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": 1}, {"dtype": 0}, {"q__data": 8}, {"k__row": 132}, {"v__head": 4},
        {"k__head": 0}, {"v__row": 0}, {"q__batch": 0}, {"k__batch": 1 << 39}, {"T": 0}, {"S": 0},
        {"scores__bias_kind": 1}, {"scores__dropout": 0.1}, {"layout__q_starts": 16},
        {"layout__k_starts": 16}, {"layout__q_used": 16}, {"layout__k_used": 16},
        {"layout__cache_index": 16}, {"layout__left_pad": 16}, {"layout__pages": 16},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_calls_left_to_the_other_kernel(changes: dict[str, Any]) -> None:
    assert sm90_head(params_of(**changes), 90) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": 3}, {"q__row": 1 << 20}, {"k__batch": (1 << 39) - 8}, {"B": 1, "q__batch": 0},
        {"G": 1, "k__head": 0, "v__head": 0}, {"S": 1, "k__row": 0, "v__row": 0},
        {"scores__softcap": 3.0}, {"scores__alibi": 16}, {"scores__sinks": 16},
        {"scores__scale": -1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_calls_taken(changes: dict[str, Any]) -> None:
    assert sm90_head(params_of(**changes), 90) == 64


def test_features_of_wide_heads_are_left_to_the_other_kernel() -> None:
    assert sm90_head(params_of(D=256), 90) == 256
    assert sm90_head(params_of(D=256, scores__softcap=3.0), 90) == 0
    assert sm90_head(params_of(D=128, scores__softcap=3.0), 90) == 128


@pytest.mark.parametrize("capability", [80, 86, 89, 100, 120])
def test_other_devices_take_the_other_kernel(capability: int) -> None:
    assert sm90_head(params_of(), 90) == 64
    assert sm90_head(params_of(), capability) == 0


def test_a_tensor_with_one_row_head_or_sequence_has_any_stride() -> None:
    q, k, v = make((1, 1, 1, 1, 1, 64, 64), BF16)
    q, k, v = (x.as_strided(x.shape, (0, 0, 0, 1)) for x in (q, k, v))
    attention: EmulatedAttention = emulated(BF16)
    check(attention, q, k, v)
    assert attention.report is not None and len(attention.report.launches) == 1


def test_params_have_the_layout_of_the_struct() -> None:
    size = emulated(BF16).device.function("emulated_attention_params_bytes", ctypes.c_int64)
    assert size() == ctypes.sizeof(Params)
