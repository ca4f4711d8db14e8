"""Cases of attention and of what stands around it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import suffuse
from benchmarks.case import Case, Functions, described, same

# attention


def attention_cases() -> Iterator[Case]:
    for d, causal, backward in itertools.product((64, 128), (False, True), (False, True)):
        yield _attention(1, 8, 1024, d, torch.float16, causal, backward)
    for dtype in (torch.float32, torch.bfloat16):
        for t, d, causal, backward in itertools.product(
            (256, 1024, 4096), (64, 128), (False, True), (False, True)
        ):
            yield _attention(1, 8, t, d, dtype, causal, backward)
        # A small diffusion transformer: many short sequences, where the cost of a call shows.
        yield _attention(64, 4, 16, 16, dtype, False, backward=True)


def _attention(
    b: int, h: int, t: int, d: int, dtype: torch.dtype, causal: bool, backward: bool
) -> Case:
    def make(device: str) -> Functions:
        q, k, v = (
            torch.randn(b, t, h, d, device=device, dtype=dtype, requires_grad=backward)
            for _ in range(3)
        )
        # The peer gets its own favourite layout, [B, H, T, D].
        heads_first = [
            x.detach().transpose(1, 2).contiguous().requires_grad_(backward) for x in (q, k, v)
        ]
        grad = torch.randn(b, t, h, d, device=device, dtype=dtype)

        def ours() -> object:
            out = suffuse.attention(q, k, v, causal=causal)
            return torch.autograd.grad(out, (q, k, v), grad) if backward else out

        def sdpa() -> object:
            out = F.scaled_dot_product_attention(*heads_first, is_causal=causal).transpose(1, 2)
            if not backward:
                return out
            grads = torch.autograd.grad(out, heads_first, grad)
            return tuple(g.transpose(1, 2) for g in grads)

        return {"suffuse": ours, "torch SDPA": sdpa}

    share = 0.5 if causal else 1.0
    size = torch.empty(0, dtype=dtype).element_size()
    return Case(
        "attention",
        f"{'fwd+bwd' if backward else 'fwd'} B{b} T{t} H{h} D{d} {str(dtype)[6:]}"
        + (" causal" if causal else ""),
        make,
        same(1e-5 if dtype == torch.float32 else 2e-2),
        flops=(14.0 if backward else 4.0) * b * h * t * t * d * share,
        bytes=(12 if backward else 4) * b * t * h * d * size,
        dtype=dtype,
    )


# qk_norm: run.py shows its share of what a copy of the same bytes takes


def qk_norm_cases() -> Iterator[Case]:
    for shape in ((1, 512, 8, 2, 64), (1, 2048, 32, 8, 128)):
        for dtype in (torch.float32, torch.bfloat16):
            yield _qk_norm(shape, dtype, rotated=True)
    yield _qk_norm((1, 2048, 32, 8, 128), torch.float32, rotated=False)
    yield _qk_norm((1, 2048, 32, 8, 128), torch.float32, rotated=True, backward=True)


def _qk_norm(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, rotated: bool, backward: bool = False
) -> Case:
    """shape: batch, steps, heads of q, heads of k, columns."""
    batch, length, heads, groups, columns = shape

    def make(device: str) -> Functions:
        sizes = [(batch, length, n, columns) for n in (heads, groups)]
        q, k, *grads = (torch.randn(size, device=device).to(dtype) for size in sizes * 2)
        weights = [torch.randn(columns, device=device) for _ in range(2)]
        leaves = [t.requires_grad_(backward) for t in (q, k, *weights)]
        pairs = torch.arange(columns // 2, device=device)
        angle = torch.arange(length, device=device)[:, None] * 10000.0 ** (-2 * pairs / columns)
        tables = {"cos": angle.cos(), "sin": angle.sin()} if rotated else {}
        full = [torch.cat((t, t), -1)[:, None].to(dtype) for t in tables.values()]

        def finished(out: tuple[Tensor, ...]) -> object:
            return torch.autograd.grad(out, leaves, grads) if backward else out

        def heads_of(x: Tensor, weight: Tensor) -> Tensor:  # as transformers writes it
            y = F.rms_norm(x, (columns,), weight.to(dtype), 1e-6)
            if not rotated:
                return y
            partner = torch.cat((-y[..., columns // 2 :], y[..., : columns // 2]), -1)
            return y * full[0] + partner * full[1]

        return {
            "suffuse": lambda: finished(suffuse.qk_norm(*leaves, **tables)),
            "torch rms_norm" + (" + rotary" if rotated else ""): lambda: finished(
                tuple(heads_of(x, w) for x, w in ((q, weights[0]), (k, weights[1])))
            ),
        }

    # Forward: read and write. Backward: read x and the gradient, write x's.
    size = torch.empty(0, dtype=dtype).element_size()
    numbers = batch * length * (heads + groups) * columns
    name = f"{'fwd+bwd' if backward else 'fwd'} {described(shape)} {str(dtype)[6:]}"
    return Case("qk_norm", name + (" rotary" if rotated else ""), make,
                same(1e-5 if dtype == torch.float32 else 2e-2), 0.0,
                (5.0 if backward else 2.0) * size * numbers)  # fmt: skip


# rotary: run.py shows its share of what a copy of the same bytes takes


def rotary_cases() -> Iterator[Case]:
    for shape in ((1, 512, 8, 64), (1, 2048, 32, 128)):
        for dtype in (torch.float32, torch.bfloat16):
            yield _rotary(shape, dtype)
    yield _rotary((1, 2048, 32, 128), torch.float32, interleaved=True)
    yield _rotary((1, 2048, 32, 128), torch.float32, backward=True)
    yield _rotary((64, 1, 32, 128), torch.float32, in_place=True)


def _rotary(
    shape: tuple[int, int, int, int], dtype: torch.dtype, interleaved: bool = False,
    backward: bool = False, in_place: bool = False,
) -> Case:  # fmt: skip
    """in_place: rotary_, whose results stay where they were."""
    pairs = shape[3] // 2

    def make(device: str) -> Functions:
        x, grad = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
        x.requires_grad_(backward)
        steps = torch.arange(shape[1], device=device)
        angle = steps[:, None] * 10000.0 ** (-torch.arange(pairs, device=device) / pairs)
        cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
        if interleaved:
            full = [t.repeat_interleave(2, -1)[:, None] for t in (cos, sin)]
        else:
            full = [torch.cat((t, t), -1)[:, None] for t in (cos, sin)]

        def finished(out: Tensor) -> object:
            return torch.autograd.grad(out, x, grad) if backward else out

        def ours() -> object:
            op = suffuse.rotary_ if in_place else suffuse.rotary
            return finished(op(x, cos, sin, interleaved=interleaved))

        def eager() -> object:  # as transformers writes it
            if interleaved:
                partner = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
            else:
                partner = torch.cat((-x[..., pairs:], x[..., :pairs]), -1)
            return finished(x * full[0] + partner * full[1])

        return {"suffuse": ours, "eager torch": eager}

    size = torch.empty(0, dtype=dtype).element_size()
    name = f"{'fwd+bwd' if backward else 'fwd'} {described(shape)} {str(dtype)[6:]}"
    name += (" interleaved" if interleaved else "") + (" in place" if in_place else "")
    check = None if in_place else same(1e-5 if dtype == torch.float32 else 2e-2)
    return Case("rotary", name, make, check, 0.0,
                (4.0 if backward else 2.0) * size * math.prod(shape))  # fmt: skip
