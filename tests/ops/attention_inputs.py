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
FLOOR = {dtype: (8 if dtype.itemsize > 2 else 0.4) * torch.finfo(dtype).eps for dtype in DTYPES}
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


def cancellation(tensors, cotangents, exact, causal=False, scale=None) -> list[float]:
    """Of each result: how much larger the terms of its sums are than what is left of them.

    Rounding errors are in proportion to the terms: q k for lse, p v for out, and for the gradients of q and k those of
    dP = dO v, delta = sum(P dP) and the gradient of lse in dS = P (dP - delta).
    """
    q, k, v = (x.double() for x in tensors)
    grad_out, grad_lse = (c.double() for c in cotangents)
    heads = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(heads, 2), v.repeat_interleave(heads, 2)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    hidden = torch.zeros(q.shape[1], k.shape[1], dtype=torch.bool)
    if causal:
        hidden = ~visible_keys(q.shape[1], k.shape[1], 2 if causal == "bottom_right" else 1)
    scores = (torch.einsum("bthd,bshd->bhts", q, k) * scale).masked_fill(hidden, -torch.inf)
    p = scores.softmax(-1).masked_fill(hidden, 0)
    size = torch.einsum("bthd,bshd->bhts", q.abs(), k.abs()).masked_fill(hidden, 0) * abs(scale)
    grad_p = torch.einsum("bthd,bshd->bhts", grad_out, v)
    delta = (p * grad_p).sum(-1, keepdim=True)
    grad_lse = grad_lse.unsqueeze(-1)
    products = torch.einsum("bthd,bshd->bhts", grad_out.abs(), v.abs())
    terms = p * (products + (p * products).sum(-1, keepdim=True) + grad_lse.abs())
    in_scores = _ratio(terms, p * (grad_p - delta + grad_lse))
    return [
        _ratio(torch.einsum("bhts,bshd->bthd", p, v.abs()), exact[0]),
        _ratio(size.amax(-1), exact[1]),
        in_scores,
        in_scores,
        _ratio(torch.einsum("bhts,bthd->bshd", p, grad_out.abs()), exact[4]),
    ]


def _ratio(terms: Tensor, left: Tensor) -> float:
    left = left[left.isfinite()].norm()
    return float(terms.norm() / left) if left > 0 else 1.0


def check(tensors: list[Tensor], largest_score: float = 0.0, fused: bool = True, **options) -> None:
    """The error rule on the results and all gradients, with a cotangent for lse too.

    Where a sum cancels, the floor is in proportion to its terms; that of ordinary inputs stays as it is.
    The gradients start from lse in the accumulation dtype, whose rounding is a relative error of P: a test with large
    scores adds it to their floor, and without a fused multiply-add the rounding of the score to that of out.
    """
    q, _, v = tensors
    dtype = q.dtype
    generator = torch.Generator().manual_seed(1)
    B, T, H, _ = q.shape
    cotangents = [
        torch.randn(B, T, H, v.shape[3], generator=generator, dtype=torch.float64).to(dtype),
        torch.randn(B, H, T, generator=generator, dtype=torch.float64).float(),
    ]
    ours = results(
        lambda *a, **o: ops.attention(*a, **o, return_lse=True), tensors, cotangents, **options
    )
    naive = results(plain, tensors, cotangents, **options)
    exact = results(
        lambda *a, **o: reference(*a, **o, return_lse=True),
        [x.double() for x in tensors],
        [c.double() for c in cotangents],
        **options,
    )
    rounding = torch.finfo(ours[1].dtype).eps
    conditions = cancellation(tensors, cotangents, exact, **options)
    for name, a, b, c, condition in zip(RESULTS, ours, naive, exact, conditions, strict=True):
        floor = FLOOR[dtype] + (0 if fused and name in ("out", "lse") else largest_score * rounding)
        floor *= max(1.0, condition / 8)
        assert_close_to_reference(a, b.to(a.dtype), c, floor, name)
