"""One step of any diffusion sampler, written as the formula.

The step is the linear update that every solver in use reduces to (DDPM, DDIM, Euler, Heun,
DPM-Solver++, UniPC, DEIS ...):
x' = c_x x + c_F F + c_D D + sum_j c_j H_j + c_a anchor + c_g extra + c_z z. Storage types below
float32 are computed in float32, as the kernels do; float64 stays float64. Differentiable as often
as one likes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suffuse.reference._philox import philox_normal

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
