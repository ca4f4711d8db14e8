"""Per-sample products and means of model outputs in one pass: public function, fake, autograd."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from suffuse import _library
from suffuse.reference import guidance_gram as formula

__all__ = ["GuidanceGram", "guidance_gram"]

_op = torch.ops.suffuse.guidance_gram.default


class GuidanceGram(NamedTuple):
    """What `guidance_gram` gives, float64."""

    gram: Tensor
    means: Tensor


def guidance_gram(tensors: Sequence[Tensor], *, center: bool = False) -> GuidanceGram:
    """Dot products of all pairs of model outputs, and their means, for every sample.

    Any length, angle or projection within the span of the outputs is arithmetic on this small
    matrix: with a combination g = sum_i w_i tensors[i], |g|^2 = w^T gram w, and a centred gram gives
    its standard deviation. That is what rescaled guidance (Lin et al. 2024, section 3.4), adaptive
    projected guidance (Sadat et al. 2024), CFG-Zero* (Fan et al. 2025) and the like derive their
    weights of the outputs from, which `sampler_step` then takes as ``guidance``, one per sample.

    Products are summed in float64 whatever the storage type, so that the difference of two nearly
    equal outputs keeps its digits: |a - b|^2 = gram_aa - 2 gram_ab + gram_bb. The same bits at every
    run and for any number of threads. Differentiable, also twice.

    Args:
        tensors: 1 to 4 tensors of one shape [B, ...], dtype (float32, bfloat16, float16 or float64)
            and device. Dense samples at any batch stride are read in place, other layouts are
            copied first.
        center: whether to take each sample's mean off its elements before the products.

    Returns:
        `GuidanceGram(gram, means)`: gram [B, n, n] symmetric, means [B, n] of the samples as they
        are, both float64. Samples without elements have products 0 and mean NaN.

    Raises:
        RuntimeError: a wrong count, shape, dtype or device.
    """
    if not tensors:
        raise RuntimeError("guidance_gram: tensors: expected 1 to 4 tensors, got 0")
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return GuidanceGram(*_GuidanceGram.apply(center, *tensors))
    return GuidanceGram(*_forward(tensors, center))


def _has_kernel(t: Tensor) -> bool:
    return t.is_cpu or t.is_meta or (t.is_cuda and "cuda" in _library.LOADED)


def _forward(tensors: Sequence[Tensor], center: bool) -> tuple[Tensor, Tensor]:
    if _has_kernel(tensors[0]):
        return _op(tensors, center)
    warnings.warn(
        f"suffuse: guidance_gram has no kernel for {tensors[0].device.type} tensors, so the "
        "reference formula runs, which is slower",
        stacklevel=3,
    )
    return formula.guidance_gram(tensors, center=center)


@torch.library.register_fake("suffuse::guidance_gram")
def _fake(tensors: Sequence[Tensor], center: bool = False) -> tuple[Tensor, Tensor]:
    first, count = tensors[0], len(tensors)
    for i, t in enumerate(tensors):
        _check_like(f"tensors[{i}]", t, first)
    batch = first.shape[0]
    wide = formula.accumulator(first)
    return (
        first.new_empty((batch, count, count), dtype=wide),
        first.new_empty((batch, count), dtype=wide),
    )


def _check_like(name: str, t: Tensor, first: Tensor) -> None:
    torch._check(
        t.shape == first.shape,
        lambda: (
            f"guidance_gram: {name}: expected shape {tuple(first.shape)} like tensors[0], got "
            f"{tuple(t.shape)}"
        ),
    )
    torch._check(
        t.device == first.device,
        lambda: (
            f"guidance_gram: {name}: expected device {first.device} like tensors[0], got {t.device}"
        ),
    )


@torch.library.register_vmap("suffuse::guidance_gram")
def _vmap(info, in_dims, tensors, center=False):  # type: ignore[no-untyped-def]
    # The mapped dimension is one more of samples.
    n = info.batch_size
    moved = [
        t.expand(n, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, in_dims[0], strict=True)
    ]
    gram, means = _op([t.flatten(0, 1) for t in moved], center)
    return (gram.unflatten(0, (n, -1)), means.unflatten(0, (n, -1))), (0, 0)


class _GuidanceGram(torch.autograd.Function):
    """The op. Its backward differentiates the reference formula, and so can be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(center: bool, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        return _forward(tensors, center)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.center = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx, grad_gram, grad_means):  # type: ignore[no-untyped-def]
        def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
            return formula.guidance_gram(tensors, center=ctx.center)

        pull_back = torch.func.vjp(function, *ctx.saved_tensors)[1]
        return (None, *pull_back((grad_gram, grad_means)))
