"""One list of cases: inputs, FLOPs, compulsory bytes, and the peers each op is measured against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import suffuse
from suffuse.diffusion import DDIM, DiscreteVP, DPMSolverPP2M, leading, linear_betas, linspace
from suffuse.reference import selective_scan as scan_formula

Functions = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        op: the op's word.
        name: shape, dtype and variant in a few characters.
        make: device -> name -> function without arguments; "suffuse" is ours, the rest are peers.
        check: compares the functions' results; a sentence where they disagree, else None.
        flops: floating-point operations that the mathematics needs; 0 if memory-bound.
        bytes: compulsory traffic: every input read once, every output written once.
        dtype: whose multiply-add ceiling the FLOPs are compared with.
    """

    op: str
    name: str
    make: Callable[[str], Functions]
    check: Callable[[Functions], str | None] | None
    flops: float
    bytes: float
    dtype: torch.dtype | None = None


def cases() -> list[Case]:
    """All cases, grouped by op."""
    return [
        *_attention_cases(),
        *_conv_cases(),
        *_gram_cases(),
        *_linear_scan_cases(),
        *_qk_norm_cases(),
        *_rotary_cases(),
        *_s4_cases(),
        *_sampler_cases(),
        *_selective_scan_cases(),
    ]


def _same(tolerance: float) -> Callable[[Functions], str | None]:
    def check(functions: Functions) -> str | None:
        ours = functions["suffuse"]()
        for name, function in functions.items():
            other = function()
            for a, b in zip(_tensors(ours), _tensors(other), strict=False):
                a, b = (t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (a, b))
                error = float((a - b).norm() / b.norm())
                if not error <= tolerance:
                    return f"relative difference {error:.1e} to {name}, allowed {tolerance:.0e}"
        return None

    return check


def _tensors(value: object) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for t in value if t is not None]  # type: ignore[attr-defined]


# attention


def _attention_cases() -> Iterator[Case]:
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
        _same(1e-5 if dtype == torch.float32 else 2e-2),
        flops=(14.0 if backward else 4.0) * b * h * t * t * d * share,
        bytes=(12 if backward else 4) * b * t * h * d * size,
        dtype=dtype,
    )


# causal_conv1d: run.py shows its share of what a copy of the same bytes takes


def _conv_cases() -> Iterator[Case]:
    shape = (1, 1536, 1024)
    for last in (False, True):
        for dtype in (torch.float32, torch.bfloat16):
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

        return {"suffuse": own, "torch conv1d" + (" + silu" if silu else ""): conv1d}

    size, what = torch.empty(0, dtype=dtype).element_size(), "fwd+bwd" if backward else "fwd"
    return Case(
        "causal_conv1d",
        f"{what} {_by(shape)} W{width} {str(dtype)[6:]}{' silu' if silu else ''}"
        + (" channels last" if last else ""),
        make,
        _same(1e-5 if dtype == torch.float32 else 2e-2),
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


# guidance_gram


def _gram_cases() -> Iterator[Case]:
    for shape in ((2, 4, 64, 64), (1, 16, 13, 60, 90), (32, 4, 512, 512)):
        yield _gram(shape, torch.float32)
    yield _gram((32, 4, 512, 512), torch.bfloat16)


def _gram(shape: tuple[int, ...], dtype: torch.dtype) -> Case:
    def make(device: str) -> Functions:
        first, second = (torch.randn(shape, device=device).to(dtype) for _ in range(2))

        def eager() -> Tensor:  # sums in float32, where ours are in float64
            a, b = first.flatten(1).float(), second.flatten(1).float()
            off = (a * b).sum(1)
            return torch.stack((a.square().sum(1), off, off, b.square().sum(1)), 1).view(-1, 2, 2)

        return {
            "suffuse": lambda: suffuse.guidance_gram([first, second]).gram,
            "eager torch": eager,
        }

    size = torch.empty(0, dtype=dtype).element_size()
    return Case("guidance_gram", f"2 outputs {_by(shape)} {str(dtype)[6:]}", make, _same(1e-4), 0.0,
                2.0 * size * math.prod(shape))  # fmt: skip


# linear_scan: run.py shows its share of what a copy of the same bytes takes


def _linear_scan_cases() -> Iterator[Case]:
    for shape in ((8, 1024, 2048), (1, 2048, 512), (1, 64, 65536)):
        yield _linear_scan(shape, torch.float32)
    yield _linear_scan((8, 1024, 2048), torch.bfloat16)
    yield _linear_scan((8, 1024, 2048), torch.float32, constant=True)
    yield _linear_scan((4, 512, 2048), torch.complex64, constant=True)
    yield _linear_scan((8, 1024, 512), torch.float32, backward=True)


def _linear_scan(
    shape: tuple[int, int, int], dtype: torch.dtype, constant: bool = False, backward: bool = False
) -> Case:
    def make(device: str) -> Functions:
        decays = torch.randn(shape[1] if constant else shape, device=device, dtype=dtype)
        a = (decays / decays.abs().clamp(min=1) * 0.95).requires_grad_(backward)
        x = torch.randn(shape, device=device, dtype=dtype, requires_grad=backward)
        grad = torch.randn(shape, device=device, dtype=dtype)

        def finished(h: Tensor) -> object:
            return torch.autograd.grad(h, (a, x), grad) if backward else h

        def loop() -> object:
            wide = torch.float32 if dtype == torch.bfloat16 else dtype
            steps = (a[:, None] if constant else a).expand(shape).to(wide).unbind(-1)
            state, states = x.new_zeros(shape[:2], dtype=wide), []
            for step, term in zip(steps, x.to(wide).unbind(-1), strict=True):
                state = torch.addcmul(term, step, state)
                states.append(state)
            return finished(torch.stack(states, -1).to(dtype))

        return {"suffuse": lambda: finished(suffuse.linear_scan(a, x)), "torch loop": loop}  # type: ignore[arg-type]

    # Read a and x, write h. Backward: the gradient and a give x's, which and h give a's.
    streams = (2 if constant else 3) + (5 if backward else 0)
    size = torch.empty(0, dtype=dtype).element_size()
    name = f"{'fwd+bwd' if backward else 'fwd'} {_by(shape)} {str(dtype)[6:]}"
    return Case("linear_scan", name + (" constant a" if constant else ""), make,
                _same(1e-2 if dtype == torch.bfloat16 else 1e-5), 0.0,
                float(streams) * size * math.prod(shape))  # fmt: skip


# qk_norm: run.py shows its share of what a copy of the same bytes takes


def _qk_norm_cases() -> Iterator[Case]:
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
    name = f"{'fwd+bwd' if backward else 'fwd'} {_by(shape)} {str(dtype)[6:]}"
    return Case("qk_norm", name + (" rotary" if rotated else ""), make,
                _same(1e-5 if dtype == torch.float32 else 2e-2), 0.0,
                (5.0 if backward else 2.0) * size * numbers)  # fmt: skip


# rotary: run.py shows its share of what a copy of the same bytes takes


def _rotary_cases() -> Iterator[Case]:
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
    name = f"{'fwd+bwd' if backward else 'fwd'} {_by(shape)} {str(dtype)[6:]}"
    name += (" interleaved" if interleaved else "") + (" in place" if in_place else "")
    check = None if in_place else _same(1e-5 if dtype == torch.float32 else 2e-2)
    return Case("rotary", name, make, check, 0.0,
                (4.0 if backward else 2.0) * size * math.prod(shape))  # fmt: skip


# s4_kernel: two multiply-adds a state and step (Vandermonde), a division a state and frequency (Cauchy)


def _s4_cases() -> Iterator[Case]:
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
                _same(1e-5 if cauchy else 1e-3 * length / 1024), each * channels * states * length,
                0.0, torch.float32)  # fmt: skip


# sampler_step


def _sampler_cases() -> Iterator[Case]:
    for shape in ((2, 4, 64, 64), (1, 16, 13, 60, 90)):
        for variant in ("dpmpp_2m", "ddim"):
            yield _against_diffusers(shape, variant)
    for shape in ((2, 4, 64, 64), (1, 16, 13, 60, 90), (32, 4, 512, 512)):
        yield _streams(shape, torch.float32, histories=0)
        yield _streams(shape, torch.float32, histories=2)
    yield _streams((32, 4, 512, 512), torch.bfloat16, histories=2)
    yield _noise((1, 16, 13, 60, 90))


def _against_diffusers(shape: tuple[int, ...], variant: str) -> Case:
    second_order = variant == "dpmpp_2m"

    def make(device: str) -> Functions:
        import diffusers

        steps, at = 20, 10
        x, model_output = (torch.randn(shape, device=device) for _ in range(2))
        process = DiscreteVP.from_betas(linear_betas())
        if second_order:
            peer = diffusers.DPMSolverMultistepScheduler()
            solver, times = DPMSolverPP2M(), linspace(process, steps, skip_last=True)
        else:
            peer = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
            solver, times = DDIM(), leading(process, steps)
        peer.set_timesteps(steps, device=device)
        plan = solver.plan(process, "eps", times)
        for i in range(at):  # fills the peer's history
            peer.step(model_output, peer.timesteps[i], x)
        stage, timestep = plan.stages[at], peer.timesteps[at]
        coefficients = suffuse.step_coefficients(
            x=stage.x, model=stage.model, data=stage.data, history=stage.history,
            data_from_x=stage.data_from_x, data_from_model=stage.data_from_model,
            converted=stage.kept, device=device,
        )  # fmt: skip
        history = [peer.model_outputs[-1].clone()] if second_order else []
        kept = list(peer.model_outputs) if second_order else []

        def theirs() -> Tensor:
            if second_order:
                peer._step_index, peer.model_outputs = at, list(kept)
            return peer.step(model_output, timestep, x, return_dict=False)[0]

        def ours() -> Tensor:
            return suffuse.sampler_step(
                x, [model_output], coefficients, history=history, converted=second_order
            ).sample

        name = "DPMSolverMultistepScheduler" if second_order else "DDIMScheduler"
        return {"suffuse": ours, f"diffusers {name}": theirs}

    # Read x, F (and one history); write x' (and the converted output for the next step).
    streams = 5 if second_order else 3
    return Case("sampler_step", f"{variant} {_by(shape)} float32", make, _same(1e-5), 0.0,
                streams * 4.0 * math.prod(shape))  # fmt: skip


def _streams(shape: tuple[int, ...], dtype: torch.dtype, histories: int) -> Case:
    def make(device: str) -> Functions:
        tensors = [torch.randn(shape, device=device).to(dtype) for _ in range(2 + histories)]
        x, model_output, *history = tensors
        weights = [0.3, -0.2][:histories]
        table = suffuse.step_coefficients(
            x=0.7, model=0.2, data=0.4, history=weights, data_from_x=1.1, data_from_model=-0.6, clip=1.0,
            device=device,
        )  # fmt: skip

        def ours() -> tuple[Tensor, ...]:
            return suffuse.sampler_step(x, [model_output], table, history=history)[:2]  # type: ignore[return-value]

        def eager() -> tuple[Tensor, ...]:
            data = (1.1 * x - 0.6 * model_output).clamp(-1.0, 1.0)
            new = 0.7 * x + 0.2 * model_output + 0.4 * data
            for weight, h in zip(weights, history, strict=True):
                new = new + weight * h
            return new, data

        return {"suffuse": ours, "eager torch": eager}

    size = torch.empty(0, dtype=dtype).element_size()
    return Case("sampler_step", f"{4 + histories} streams {_by(shape)} {str(dtype)[6:]}", make,
                _same(1e-5 if dtype == torch.float32 else 2e-2), 0.0,
                (4.0 + histories) * size * math.prod(shape))  # fmt: skip


def _noise(shape: tuple[int, ...]) -> Case:
    def make(device: str) -> Functions:
        x, model_output = (torch.randn(shape, device=device) for _ in range(2))
        table = suffuse.step_coefficients(x=0.9, model=-0.1, noise=0.2, device=device)

        def ours() -> object:
            return suffuse.sampler_step(x, [model_output], table, noise=(1, 2), converted=False)[0]

        def eager() -> object:
            return 0.9 * x - 0.1 * model_output + 0.2 * torch.randn_like(x)

        return {"suffuse": ours, "eager torch": eager}

    return Case("sampler_step", f"noise made inside {_by(shape)} float32", make, None, 0.0,
                3 * 4.0 * math.prod(shape))  # fmt: skip


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# selective_scan: bound by its exponentials, one for each state and step


def _selective_scan_cases() -> Iterator[Case]:
    for states in (16, 64):
        yield _selective_scan(1, 1536, 1024, states, torch.float32, backward=False)
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
                _same(2e-2 if dtype == torch.bfloat16 else 1e-4), flops, 0.0, torch.float32)  # fmt: skip
