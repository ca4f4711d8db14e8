"""Example calls of rotary for its tests, and the error rule on the result and all gradients of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suffuse import ops
from suffuse.reference.rotary import rotary as reference
from suffuse.testing import assert_close_to_reference

DOUBLE, FLOAT, BF16, HALF = torch.float64, torch.float32, torch.bfloat16, torch.float16
DTYPES = (DOUBLE, FLOAT, BF16, HALF)
FLOOR = {dtype: (4 if dtype.itemsize > 2 else 0.5) * torch.finfo(dtype).eps for dtype in DTYPES}

Tensors = dict[str, Tensor]


def angles(positions: int, pairs: int, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    """Tables of Su et al. 2021: cos and sin [positions, pairs]."""
    frequency = 100.0 ** (-torch.arange(pairs, dtype=DOUBLE) / max(pairs, 1))
    angle = torch.arange(positions, dtype=DOUBLE)[:, None] * frequency
    return angle.cos().to(dtype), angle.sin().to(dtype)


def example(
    shape: tuple[int, int, int, int], rotated: int | None = None, dtype: torch.dtype = FLOAT,
    wide: bool = False, positions: int = 0, own: bool = False, seed: int = 0,
) -> Tensors:  # fmt: skip
    """shape: batch, steps, heads, columns. wide: float32 tables; own: one for each batch entry."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=DOUBLE).to(dtype)
    pairs = (shape[3] if rotated is None else rotated) // 2
    cos, sin = angles(positions or shape[1], pairs, FLOAT if wide else dtype)
    if own:
        cos, sin = (torch.stack([t.roll(b, 0) for b in range(shape[0])]) for t in (cos, sin))
    return {"x": x, "cos": cos, "sin": sin}


def integers(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def plain(
    x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False,
    offsets: int | Tensor | None = None, inverse: bool = False, cu_seqlens: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """What one writes without the op, as transformers and the GPT-J code have it, in x's dtype."""
    batch, length, _, _ = x.shape
    place = torch.arange(length).expand(batch, -1)
    start = torch.zeros(batch, 1, dtype=torch.long)
    if cu_seqlens is not None:
        lengths = cu_seqlens.diff().long()
        place = torch.cat([torch.arange(int(n)) for n in lengths])[None]
        many = isinstance(offsets, Tensor)
        start = (offsets if many else torch.full_like(lengths, offsets or 0)).repeat_interleave(
            lengths
        )[None]  # type: ignore[union-attr]
    elif offsets is not None:
        start = offsets[:, None] if isinstance(offsets, Tensor) else start + offsets
    place = place + start
    each = torch.arange(batch)[:, None]
    c, s = (
        (t[place] if t.dim() == 2 else t.expand(batch, -1, -1)[each, place])[:, :, None].to(x.dtype)
        for t in (cos, sin)
    )
    s = -s if inverse else s
    rotated = 2 * cos.shape[-1]
    turned, rest = x[..., :rotated], x[..., rotated:]
    if interleaved:
        c, s = c.repeat_interleave(2, -1), s.repeat_interleave(2, -1)
        partner = torch.stack((-turned[..., 1::2], turned[..., ::2]), -1).flatten(-2)
    else:
        c, s = torch.cat((c, c), -1), torch.cat((s, s), -1)
        partner = torch.cat((-turned[..., rotated // 2 :], turned[..., : rotated // 2]), -1)
    return torch.cat((turned * c + partner * s, rest), -1)


def results(function: Callable[..., Tensor], tensors: Tensors, **options: Any) -> Tensors:
    """out and the gradients of all tensors."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    out = function(**leaves, **options)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(out.shape, generator=generator, dtype=DOUBLE).to(BF16).to(out)
    grads = torch.autograd.grad(out, list(leaves.values()), cotangent)
    return {"out": out.detach(), **dict(zip(leaves, grads, strict=True))}


def check(
    tensors: Tensors, function: Callable[..., Tensor] = ops.rotary, **options: Any
) -> Tensors:
    """The error rule; function: runs the kernel."""
    dtype = tensors["x"].dtype
    exact = results(reference, {name: x.double() for name, x in tensors.items()}, **options)
    naive = results(plain, tensors, **options)
    ours = results(function, tensors, **options)
    for name, value in ours.items():
        assert_close_to_reference(value, naive[name], exact[name], FLOOR[dtype], name)
    return ours


def check_out(
    tensors: Tensors, function: Callable[..., Tensor] = ops.rotary, **options: Any
) -> Tensor:
    """The error rule on the result alone, without gradients."""
    out = function(**tensors, **options)
    exact = reference(**{name: x.double() for name, x in tensors.items()}, **options)
    naive = plain(**tensors, **options)
    assert_close_to_reference(out, naive, exact, FLOOR[tensors["x"].dtype], "out")
    return out
