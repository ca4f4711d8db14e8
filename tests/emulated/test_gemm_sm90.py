"""The matrix product of sm_90a, its own source on the CPU: numbers, findings, traffic."""

from __future__ import annotations

import pytest
import torch

from emulated.gemm_sm90_calls import check_numbers, check_product, check_traffic
from emulated.harness import MMA_ROUNDINGS, SEEDS, Emulator

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
# Tiles are 128 x 64, or 128 x 128 for other layouts, with 128 bytes of K, in 3 stages. The last shape
# has 6 tiles on 2 blocks.
SHAPES = [(1, 1, 1), (128, 64, 256), (72, 40, 232), (64, 200, 24), (272, 72, 352)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mma", MMA_ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product(shape: tuple[int, int, int], dtype: torch.dtype, mma: str, seed: int) -> None:
    device = Emulator("gemm_sm90", seed=seed, mma=mma)
    counters = check_product(device, *shape, dtype=dtype, truncating=mma == "truncating")
    m, n, k = shape
    tiles = -(-m // 128) * -(-n // 64)
    depth = -(-k * dtype.itemsize // 128)
    assert counters.wgmma == tiles * 2 * depth * 4
    assert counters.tensor_load.requests == tiles * depth * 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layout", ["A B", "A^T B", "A B narrow", "A B narrower"])
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("shape", [(1, 8, 72), (136, 136, 264)], ids=str)
def test_layout(shape: tuple[int, int, int], dtype: torch.dtype, layout: str, seed: int) -> None:
    check_product(Emulator("gemm_sm90", seed=seed), *shape, dtype=dtype, layout=layout)


@pytest.mark.parametrize("layout", ["A B^T", "A B", "A^T B"])
def test_float_result_and_rows_apart(layout: str) -> None:
    device = Emulator("gemm_sm90", seed=1)
    check_product(device, 130, 134, 250, out=torch.float32, layout=layout, padding=3)


def test_one_block_makes_all_tiles() -> None:
    device = Emulator("gemm_sm90", seed=2)
    check_product(device, 1300, 136, 72, multiprocessors=1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", range(4))
def test_sizes_of_a_device(size: int, seed: int) -> None:
    """One block makes two tiles, the second with ragged edges, from 6 tiles of K."""
    tile = [(128, 128), (128, 256), (64, 128), (192, 128)][size]
    torch.manual_seed(size)
    m, n, k = tile[0] + 16, tile[1], 352
    device = Emulator("gemm_sm90", seed=seed)
    a, b = torch.randn(m, k).bfloat16(), torch.randn(n, k).bfloat16()
    c = device.empty((m, n), torch.bfloat16, "c")
    report = device.call("emulated_gemm_sm90_sized", size, device.tensor(a, "a"),
                         device.tensor(b, "b"), c, m, n, k)  # fmt: skip
    check_numbers(a, b, c.read(), False)
    check_traffic(report.counters, 2 * k * (m + n), 2 * m * n, True)
