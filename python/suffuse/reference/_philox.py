"""Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") in plain PyTorch.

Normal numbers: Box and Muller 1958.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MASK32 = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def philox_bits(counter: Tensor, key: tuple[int | Tensor, int | Tensor]) -> Tensor:
    """Counters [..., 4], words below 2^32 in int64 -> random words alike; the key is two such words."""
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(MULTIPLIERS[0], c0)
        high1, low1 = _multiply(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & MASK32, (k1 + WEYL[1]) & MASK32
    return torch.stack((c0, c1, c2, c3), dim=-1)


def philox_normal(
    shape: Sequence[int],
    seed: int,
    offset: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal numbers: element i, in contiguous order, depends on (seed, offset, i) alone.

    Block b = i // 4 has the counter (low and high word of b, low and high word of offset) under the
    key (low and high word of seed). Of its four words c0..c3, elements 4b and 4b + 1 are r cos and
    r sin of (c0, c1), the next two of (c2, c3): r = sqrt(-2 log u), u = (first + 1/2) / 2^32
    rounded to float32, angle = 2 pi second / 2^32.
    """
    size = math.prod(shape)
    block = torch.arange((size + 3) // 4, device=device)
    stream = torch.full_like(block, offset)
    counter = torch.stack((block & MASK32, block >> 32, stream & MASK32, stream >> 32), dim=-1)
    bits = philox_bits(counter, (seed & MASK32, seed >> 32)).reshape(-1, 2)
    # Exact before the one rounding to float32, also where the device has no float64.
    half = (bits[:, 0] >> 16).to(torch.float32) * 2.0**-16
    u = half + ((bits[:, 0] & 0xFFFF).to(torch.float32) * 2.0**-32 + 2.0**-33)
    r = torch.sqrt(-2 * torch.log(u.to(dtype)))
    angle = bits[:, 1].to(dtype) * (2 * math.pi / 2**32)
    normal = torch.stack((r * torch.cos(angle), r * torch.sin(angle)), dim=-1)
    return normal.reshape(-1)[:size].reshape(tuple(shape))


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low word of the 64-bit product, in steps that fit into int64."""
    high, low = a * (b >> 16), a * (b & 0xFFFF)
    return (high + (low >> 16)) >> 16, ((high & 0xFFFF) * 65536 + low) & MASK32
