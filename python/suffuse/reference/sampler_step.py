"""One step of any diffusion sampler, written as the formula, and its Philox normal numbers.

The step is the linear update that every solver in use reduces to (DDPM, DDIM, Euler, Heun,
DPM-Solver++, UniPC, DEIS ...):
x' = c_x x + c_F F + c_D D + sum_j c_j H_j + c_a anchor + c_g extra + c_z z. Storage types below
float32 are computed in float32, as the kernels do; float64 stays float64. Differentiable as often
as one likes.

Philox4x32-10: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
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

# Columns of the coefficient table.
X, MODEL, DATA, HISTORY, ANCHOR, EXTRA, NOISE = 0, 1, 2, 3, 7, 8, 9
DATA_FROM_X, DATA_FROM_MODEL, CLIP, CONVERTED, NEXT_SCALE, GUIDANCE = 10, 11, 12, 13, 16, 17
COLUMNS = 21


def sampler_step(
    x: Tensor,
    model_outputs: Sequence[Tensor],
    coefficients: Tensor,
    *,
    history: Sequence[Tensor] = (),
    anchor: Tensor | None = None,
    extra: Tensor | None = None,
    noise: Tensor | tuple[int, int] | None = None,
    threshold: tuple[float, float] | None = None,
    converted: bool = True,
    next_input: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The slow, obvious form of `suffuse.ops.sampler_step`, with the same arguments and results."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    if isinstance(noise, tuple):
        noise = philox_normal(x.shape, *noise, dtype=wide, device=x.device)
    table = coefficients.to(wide)

    def c(column: int) -> Tensor:
        return table[..., column].reshape(table.shape[:-1] + (1,) * (x.dim() - table.dim() + 1))

    xw = x.to(wide)
    F = sum((c(GUIDANCE + i) * m.to(wide) for i, m in enumerate(model_outputs)), xw.new_zeros(()))
    D = c(DATA_FROM_X) * xw + c(DATA_FROM_MODEL) * F
    D = torch.clamp(D, -c(CLIP), c(CLIP))
    if threshold is not None:
        D = dynamic_threshold(D, *threshold)
    sample = c(X) * xw + c(MODEL) * F + c(DATA) * D
    linear = [(HISTORY + i, h) for i, h in enumerate(history)]
    for column, operand in (*linear, (ANCHOR, anchor), (EXTRA, extra), (NOISE, noise)):
        if operand is not None:
            sample = sample + c(column) * operand.to(wide)
    other = c(CONVERTED) * xw + c(CONVERTED + 1) * F + c(CONVERTED + 2) * D
    return (
        sample.to(x.dtype),
        other.to(x.dtype) if converted else None,
        (c(NEXT_SCALE) * sample).to(next_input) if next_input is not None else None,
    )


def dynamic_threshold(D: Tensor, quantile: float, maximum: float) -> Tensor:
    """clamp(D, -s, s) / s, s = clamp(quantile of |D|, 1, maximum) per sample (Imagen, 2.3)."""
    size = math.prod(D.shape[1:])
    if D.numel() == 0:
        return D
    ordered = D.reshape(-1, size).abs().sort(dim=1).values  # NaN last
    rank = quantile * (size - 1)
    below, above = ordered[:, math.floor(rank)], ordered[:, math.ceil(rank)]
    s = below + (above - below) * (rank - math.floor(rank))
    s = torch.where(ordered[:, -1].isnan(), math.nan, s.clamp(1, maximum))
    s = s.reshape(D.shape[:1] + (1,) * (D.dim() - 1))
    return torch.clamp(D, -s, s) / s


def philox_bits(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Philox4x32-10: counters [..., 4], words below 2^32 in int64 -> random words alike."""
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
