"""What the attention tests share: inputs, the plain PyTorch version, and the error rule on every result."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from suffuse import ops
from suffuse.reference.attention import attention as reference
from suffuse.reference.attention import visible_keys
from suffuse.testing import assert_close_to_reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CAUSAL = (False, "top_left", "bottom_right")
# Relative error that the rule always allows: eight times the dtype's epsilon where dP - delta may cancel, less than
# half of it where the rounding of the result dominates.
FLOOR = {
    dtype: (8 if dtype.itemsize > 2 else 0.4) * torch.finfo(dtype).eps for dtype in DTYPES
}
RESULTS = ("out", "lse", "grad_q", "grad_k", "grad_v")


@dataclass(frozen=True)
class Shape:
    B: int
    T: int
    S: int
    H: int
    G: int
    D: int
    Dv: int

    def __str__(self) -> str:
        return f"B{self.B}-T{self.T}-S{self.S}-H{self.H}-G{self.G}-D{self.D}-Dv{self.Dv}"


def make(shape: Shape, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """q, k, v."""
    s, generator = shape, torch.Generator().manual_seed(seed)
    sizes = ((s.B, s.T, s.H, s.D), (s.B, s.S, s.G, s.D), (s.B, s.S, s.G, s.Dv))
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def plain(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool | str = False, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """What one writes without the op: every step in the inputs' dtype."""
    heads = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(heads, 2), v.repeat_interleave(heads, 2)
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    scores = torch.einsum("bthd,bshd->bhts", q, k) * scale
    hidden = torch.zeros(q.shape[1], k.shape[1], dtype=torch.bool)
    if causal:
        code = 2 if causal == "bottom_right" else 1
        hidden = ~visible_keys(q.shape[1], k.shape[1], code)
    scores = scores.masked_fill(hidden, -torch.inf)
    weights = scores.softmax(-1).masked_fill(hidden, 0)
    return torch.einsum("bhts,bshd->bthd", weights, v), scores.logsumexp(-1)


def results(function, tensors, cotangents, **options) -> list[Tensor]:
    """out, lse and the gradients of q, k and v for the cotangents of out and lse."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    out, lse = function(*leaves, **options)
    cotangents = [c.to(x.dtype) for c, x in zip(cotangents, (out, lse), strict=True)]
    return [out.detach(), lse.detach(), *torch.autograd.grad((out, lse), leaves, cotangents)]


def check(tensors: list[Tensor], **options) -> None:
    """The error rule on the results and all gradients, with a cotangent for lse too."""
    q, _, v = tensors
    dtype = q.dtype
    generator = torch.Generator().manual_seed(1)
    B, T, H, _ = q.shape
    cotangents = [
        torch.randn(B, T, H, v.shape[3], generator=generator, dtype=torch.float64).to(dtype),
        torch.randn(B, H, T, generator=generator, dtype=torch.float64).float(),
    ]
    ours = results(lambda *a, **o: ops.attention(*a, **o, return_lse=True), tensors, cotangents, **options)
    naive = results(plain, tensors, cotangents, **options)
    exact = results(
        lambda *a, **o: reference(*a, **o, return_lse=True),
        [x.double() for x in tensors],
        [c.double() for c in cotangents],
        **options,
    )
    for name, a, b, c in zip(RESULTS, ours, naive, exact, strict=True):
        assert_close_to_reference(a, b.to(a.dtype), c, FLOOR[dtype], name)
