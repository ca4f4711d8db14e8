"""Rotary position embedding, written as its formula (Su et al. 2021, equation 34).

    (x_i, x_j) <- (x_i cos - x_j sin, x_j cos + x_i sin)

Half-precision inputs are computed in float32, as the kernels do.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    offsets: int | Tensor | None = None,
    inverse: bool = False,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """The slow, obvious form of `suffuse.ops.rotary`, with the same arguments and result."""
    tensor = offsets if isinstance(offsets, Tensor) else None
    number = offsets if isinstance(offsets, int) else 0
    return rotary_fwd(x, cos, sin, tensor, cu_seqlens, number, interleaved, inverse)


def rotary_fwd(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    offsets: Tensor | None,
    cu_seqlens: Tensor | None,
    offset: int,
    interleaved: bool,
    inverse: bool,
) -> Tensor:
    """Returns out [B, T, H, D]; differentiable as often as one likes."""
    wide = wide_like(x)
    place = positions(x, offsets, cu_seqlens, offset)
    c, s = (rows(table, place).to(wide)[:, :, None] for table in (cos, sin))
    if inverse:
        s = -s
    first, second, rest = halves(x.to(wide), 2 * cos.shape[-1], interleaved)
    turned = first * c - second * s, second * c + first * s
    pair = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
    return torch.cat([pair, rest], -1).to(x.dtype)


def table_gradients(
    grad: Tensor,
    x: Tensor,
    cos: Tensor,
    offsets: Tensor | None,
    cu_seqlens: Tensor | None,
    offset: int,
    interleaved: bool,
    inverse: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of cos and sin for a gradient of out; themselves differentiable."""
    wide, rotated = wide_like(x), 2 * cos.shape[-1]
    place = positions(x, offsets, cu_seqlens, offset)
    grad_first, grad_second, _ = halves(grad.to(wide), rotated, interleaved)
    first, second, _ = halves(x.to(wide), rotated, interleaved)
    grad_cos = (grad_first * first + grad_second * second).sum(2)
    grad_sin = (grad_second * first - grad_first * second).sum(2)
    grads = grad_cos, -grad_sin if inverse else grad_sin
    return tuple(into_table(g, cos, place) for g in grads)  # type: ignore[return-value]


def positions(x: Tensor, offsets: Tensor | None, cu_seqlens: Tensor | None, offset: int) -> Tensor:
    """The position of each token [B, T]."""
    steps = torch.arange(x.shape[1], device=x.device)[None]
    if cu_seqlens is None:
        start = offset if offsets is None else offsets[:, None].long()
        return (steps + start).expand(x.shape[:2])
    sequence = torch.searchsorted(cu_seqlens.long(), steps, right=True) - 1
    start = offset if offsets is None else offsets.long()[sequence]
    return steps - cu_seqlens.long()[sequence] + start


def rows(table: Tensor, place: Tensor) -> Tensor:
    """[B, T, R/2] of a table [S, R/2] or [B or 1, S, R/2]."""
    if table.dim() == 2:
        return table[place]
    every = table.expand(place.shape[0], -1, -1)
    return every.gather(1, place[..., None].expand(-1, -1, table.shape[2]))


def into_table(grad: Tensor, table: Tensor, place: Tensor) -> Tensor:
    """The transpose of `rows`: [B, T, R/2] added up where it came from."""
    if table.dim() == 2:
        zeros = grad.new_zeros(table.shape)
        return zeros.index_add(0, place.flatten(), grad.flatten(0, 1)).to(table.dtype)
    zeros = grad.new_zeros(place.shape[0], *table.shape[1:])
    index = place[..., None].expand(-1, -1, table.shape[2])
    return zeros.scatter_add(1, index, grad).sum_to_size(table.shape).to(table.dtype)


def halves(x: Tensor, rotated: int, interleaved: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The two columns of all pairs, and the columns that are not rotated."""
    pairs, rest = x[..., :rotated], x[..., rotated:]
    if interleaved:
        return pairs[..., ::2], pairs[..., 1::2], rest
    return pairs[..., : rotated // 2], pairs[..., rotated // 2 :], rest


def wide_like(x: Tensor) -> torch.dtype:
    """The type of the arithmetic."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
