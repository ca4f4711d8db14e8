"""Cases of the scans, the convolution and S4."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

import suffuse
from benchmarks.case import Case, Functions, described, same
from suffuse.reference import selective_scan as scan_formula

# The plain pass over the same bytes that causal_conv1d and linear_scan are measured against.
PASS = "plain pass"


def _same_but_pass(tolerance: float) -> Callable[[Functions], str | None]:
    check = same(tolerance)
    return lambda functions: check({n: f for n, f in functions.items() if n != PASS})


# causal_conv1d


def conv_cases() -> Iterator[Case]:
    shape = (1, 1536, 1024)
    for last in (False, True):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            yield _conv(shape, 4, dtype, last)
        yield _conv((2, 1536, 2048), 4, torch.float32, last)
        yield _conv(shape, 3, torch.float32, last, silu=False)
        yield _conv(shape, 4, torch.float32, last, backward=True)
    yield _conv(shape, 33, torch.float32, False)
    yield _conv_update(1)
    yield _conv_update(64)


def _conv(
    shape: tuple[int, int, int], width: int, dtype: torch.dtype, last: bool, silu: bool = True,
    backward: bool = False,
) -> Case:  # fmt: skip
    """last: the channels of a step are adjacent in memory, not the steps of a channel."""

    def make(device: str) -> Functions:
        x, grad = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
        if last:
            x, grad = (t.mT.contiguous().mT for t in (x, grad))
        weight, bias = torch.randn(shape[1], width, device=device), torch.randn(1536, device=device)
        ours = [t.requires_grad_(backward) for t in (x, weight, bias)]
        theirs = [x, *(t.detach().to(dtype).requires_grad_(backward) for t in (weight, bias))]

        def finished(out: Tensor, leaves: list[Tensor]) -> object:
            return torch.autograd.grad(out, leaves, grad) if backward else out

        def own() -> object:
            activation = "silu" if silu else None
            return finished(suffuse.causal_conv1d(*ours, activation=activation), ours)  # type: ignore[arg-type]

        def conv1d() -> object:
            x, weight, bias = theirs
            out = F.conv1d(x, weight[:, None], bias, padding=width - 1, groups=shape[1])
            out = out[..., : shape[2]]
            return finished(F.silu(out) if silu else out, theirs)

        functions = {"suffuse": own, "torch conv1d" + (" + silu" if silu else ""): conv1d}
        return functions if backward else {**functions, PASS: x.clone}

    size, what = torch.empty(0, dtype=dtype).element_size(), "fwd+bwd" if backward else "fwd"
    return Case(
        "causal_conv1d",
        f"{what} {described(shape)} W{width} {str(dtype)[6:]}{' silu' if silu else ''}"
        + (" channels last" if last else ""),
        make,
        _same_but_pass(1e-5 if dtype == torch.float32 else 2e-2),
        flops=0.0,
        bytes=(5.0 if backward else 2.0) * size * math.prod(shape),
    )


def _conv_update(batch: int) -> Case:
    channels, width = 1536, 4

    def make(device: str) -> Functions:
        x, state = (torch.randn(batch, channels, n, device=device) for n in (1, width))
        weight, bias = (torch.randn(channels, *n, device=device) for n in ((width,), ()))
        states = {"suffuse": state, "eager torch": state.clone()}

        def eager() -> Tensor:
            state = states["eager torch"]
            state.copy_(torch.cat([state[..., 1:], x], 2))
            return F.silu((state * weight).sum(2) + bias)

        def ours() -> Tensor:
            return suffuse.causal_conv1d_update(
                x[..., 0], states["suffuse"], weight, bias, activation="silu"
            )

        return {"suffuse": ours, "eager torch": eager}

    return Case("causal_conv1d", f"update B{batch} D{channels} W{width} float32", make, None, 0.0,
                4.0 * batch * channels * (2 + 2 * width))  # fmt: skip


# linear_scan


def linear_scan_cases() -> Iterator[Case]:
    for shape in ((8, 1024, 2048), (1, 2048, 512), (1, 64, 65536)):
        yield _linear_scan(shape, torch.float32)
    for dtype in (torch.bfloat16, torch.float16, torch.complex64):
        yield _linear_scan((4, 512, 2048), dtype)
    yield _linear_scan((8, 1024, 2048), torch.float32, constant=True)
    yield _linear_scan((4, 512, 2048), torch.complex64, constant=True)
    for dtype in (torch.float32, torch.bfloat16):
        yield _linear_scan((4, 512, 2048), dtype, last=True)
    yield _linear_scan((8, 1024, 512), torch.float32, backward=True)


def _linear_scan(
    shape: tuple[int, int, int], dtype: torch.dtype, constant: bool = False, backward: bool = False,
    last: bool = False,
) -> Case:  # fmt: skip
    """last: the channels of a step are adjacent in memory, not the steps of a channel."""

    def make(device: str) -> Functions:
        decays = torch.randn(shape[1] if constant else shape, device=device, dtype=dtype)
        a = decays / decays.abs().clamp(min=1) * 0.95
        x, grad = (torch.randn(shape, device=device, dtype=dtype) for _ in range(2))
        if last:
            a, x, grad = (t.mT.contiguous().mT for t in (a, x, grad))
        a.requires_grad_(backward), x.requires_grad_(backward)

        def finished(h: Tensor) -> object:
            return torch.autograd.grad(h, (a, x), grad) if backward else h

        def loop() -> object:
            wide = torch.float32 if dtype.itemsize == 2 else dtype
            steps = (a[:, None] if constant else a).expand(shape).to(wide).unbind(-1)
            state, states = x.new_zeros(shape[:2], dtype=wide), []
            for step, term in zip(steps, x.to(wide).unbind(-1), strict=True):
                state = torch.addcmul(term, step, state)
                states.append(state)
            return finished(torch.stack(states, -1).to(dtype))

        functions: Functions = {
            "suffuse": lambda: finished(suffuse.linear_scan(a, x)),  # type: ignore[arg-type]
            "torch loop": loop,
        }
        if not backward:
            functions[PASS] = x.clone if constant else lambda: a + x
        return functions

    # Read a and x, write h. Backward: the gradient and a give x's, which and h give a's.
    streams = (2 if constant else 3) + (5 if backward else 0)
    size = torch.empty(0, dtype=dtype).element_size()
    name = f"{'fwd+bwd' if backward else 'fwd'} {described(shape)} {str(dtype)[6:]}"
    name += (" constant a" if constant else "") + (" channels last" if last else "")
    return Case("linear_scan", name, make, _same_but_pass(1e-2 if dtype.itemsize == 2 else 1e-5), 0.0,
                float(streams) * size * math.prod(shape))  # fmt: skip


# s4_kernel: two multiply-adds a state and step (Vandermonde), a division a state and frequency (Cauchy)


def s4_cases() -> Iterator[Case]:
    for channels, states, length in ((256, 32, 1024), (64, 32, 4096), (4, 32, 65536)):
        yield _s4_product(channels, states, length, "Vandermonde", backward=False)
    yield _s4_product(256, 32, 1024, "Vandermonde", backward=True)
    yield _s4_product(256, 32, 1024, "Cauchy", backward=False)
    yield _s4_product(256, 32, 1024, "Cauchy", backward=True)


def _s4_product(channels: int, states: int, length: int, name: str, backward: bool) -> Case:
    cauchy = name == "Cauchy"

    def make(device: str) -> Functions:
        shape = (channels, states)
        v, x = (torch.randn(shape, dtype=torch.complex64, device=device) for _ in range(2))
        x = torch.complex(-0.01 * x.real.abs(), x.imag)  # decays; and poles beside the axis
        slope = torch.tan(torch.linspace(0, 1.57, length, device=device))
        z = torch.complex(torch.zeros_like(slope), slope)
        leaves = (v.requires_grad_(backward), x.requires_grad_(backward))
        grad = torch.randn(channels, length, device=device)

        def finished(out: Tensor) -> object:
            return torch.autograd.grad(out, leaves, grad.to(out.dtype)) if backward else out

        def plain() -> object:
            if cauchy:
                inverse = 1 / (z - x[..., None]), 1 / (z - x.conj()[..., None])
                return finished(
                    (v[..., None] * inverse[0] + v.conj()[..., None] * inverse[1]).sum(1)
                )
            powers = torch.exp(x[..., None] * torch.arange(length, device=device))
            return finished(2 * torch.einsum("hn,hnl->hl", v, powers).real)

        def ours() -> object:
            return finished(
                suffuse.cauchy_mult(v, z, x) if cauchy else suffuse.log_vandermonde(v, x, length)
            )

        return {"suffuse": ours, "plain torch": plain}

    # Real operations: a multiply-add each for both parts of a power; backward two sums of them. A
    # pair of poles: about twenty and a division; backward two of those sums for each pole.
    each = (20.0 if not backward else 70.0) if cauchy else (4.0 if not backward else 12.0)
    what = f"{'fwd+bwd' if backward else 'fwd'} H{channels} N{states} L{length}"
    # The plain formula rounds x l.
    return Case("s4_kernel", f"{name} {what} complex64", make,
                same(1e-5 if cauchy else 1e-3 * length / 1024), each * channels * states * length,
                0.0, torch.float32)  # fmt: skip


# selective_scan: bound by its exponentials, one for each state and step


def selective_scan_cases() -> Iterator[Case]:
    for states in (1, 4, 16, 64):
        yield _selective_scan(1, 1536, 1024, states, torch.float32, backward=False)
    for channels in (1, 8):
        yield _selective_scan(1, channels, 4096, 16, torch.float32, backward=False)
        yield _selective_scan(1, channels, 4096, 16, torch.float32, backward=True)
    yield _selective_scan(1, 1536, 1024, 16, torch.bfloat16, backward=False)
    yield _selective_scan(1, 1536, 1024, 16, torch.float32, backward=True)


def _selective_scan(
    batch: int, channels: int, length: int, states: int, dtype: torch.dtype, backward: bool
) -> Case:
    def make(device: str) -> Functions:
        rows, matrix = (batch, channels, length), (batch, 1, states, length)
        u, delta, z, grad = (torch.randn(rows, device=device, dtype=dtype) for _ in range(4))
        A = -4 * torch.rand(channels, states, device=device)
        B, C = (torch.randn(matrix, device=device, dtype=dtype) for _ in range(2))
        D, bias = (torch.randn(channels, device=device) for _ in range(2))
        leaves = [x.requires_grad_(backward) for x in (u, delta, A, B, C, D, z, bias)]

        def run(function: Callable[..., object]) -> object:
            out = function(*leaves, delta_softplus=True)
            return torch.autograd.grad(out, leaves, grad) if backward else out  # type: ignore[arg-type]

        return {
            "suffuse": lambda: run(suffuse.selective_scan),
            "torch loop": lambda: run(scan_formula.selective_scan),
        }

    # Of each state and step: an exponential and three multiply-adds, about three times that backward.
    flops = 7.0 * batch * channels * length * states * (4 if backward else 1)
    name = f"{'fwd+bwd' if backward else 'fwd'} B{batch} D{channels} L{length} N{states}"
    return Case("selective_scan", f"{name} {str(dtype)[6:]}", make,
                same(2e-2 if dtype == torch.bfloat16 else 1e-4), flops, 0.0, torch.float32)  # fmt: skip
