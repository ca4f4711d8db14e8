"""Example calls of guidance_gram for its tests, and the error rule on both outputs of one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from suffuse.ops import GuidanceGram, guidance_gram
from suffuse.reference import guidance_gram as formula
from suffuse.testing import assert_close_to_reference

FLOAT, HALF, BF16, DOUBLE = torch.float32, torch.float16, torch.bfloat16, torch.float64
TYPES = (FLOAT, BF16, HALF, DOUBLE)

# Sums in float64 in another order than the reference's, whose own rounding grows with their length.
FLOOR = 1e-13


def example(shape: tuple[int, ...], dtype: torch.dtype = FLOAT, count: int = 2) -> list[Tensor]:
    """Tensors that are alike, as the outputs of one model are, with means that are not 0."""
    common = torch.randn(shape) + 0.5
    return [(common + 0.2 * torch.randn(shape)).to(dtype) for _ in range(count)]


def check(
    tensors: list[Tensor],
    center: bool = False,
    function: Callable[..., GuidanceGram] = guidance_gram,
) -> GuidanceGram:
    """The error rule on gram and means; function: runs the kernel."""
    actual = function(tensors, center=center)
    plain = formula.guidance_gram(tensors, center=center)
    reference = formula.guidance_gram([t.double() for t in tensors], center=center)
    floor = FLOOR * max(1.0, tensors[0][:1].numel() / 1e5) ** 0.5
    for name, a, p, r in zip(GuidanceGram._fields, actual, plain, reference, strict=True):
        assert a.is_contiguous(), name
        assert_close_to_reference(a, p, r, floor, name)
    assert torch.equal(actual.gram, actual.gram.mT) or bool(actual.gram.isnan().any())
    return actual
