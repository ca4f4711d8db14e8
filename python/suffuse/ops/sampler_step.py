"""One step of any diffusion sampler in one pass over memory: public function, fake, autograd."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from suffuse import _library
from suffuse.ops._step_coefficients import step_coefficients
from suffuse.reference import sampler_step as formula

__all__ = ["SamplerStep", "sampler_step", "step_coefficients"]

_op = torch.ops.suffuse.sampler_step.default


class SamplerStep(NamedTuple):
    """What `sampler_step` gives, all of x's shape; ``next_input`` in the dtype asked for."""

    sample: Tensor
    converted: Tensor | None
    next_input: Tensor | None


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
) -> SamplerStep:
    """One update of a diffusion sampler: guidance, conversion, solver step and noise in one pass.

    With F = sum_i guidance_i model_outputs[i] and D = clamp(data_from_x x + data_from_model F,
    -clip, clip)::

        sample     = c_x x + c_F F + c_D D + sum_j c_j history[j]
                     + c_a anchor + c_g extra + c_z noise
        converted  = o_x x + o_F F + o_D D
        next_input = next_scale sample

    Every solver in use is a choice of these coefficients (DDPM, DDIM, Euler, Heun, DPM-Solver++,
    DEIS, UniPC, LMS ...); `step_coefficients` packs them. Arithmetic is float32 whatever the
    storage type (float64 for a float64 x). No operand is skipped because its coefficient is 0:
    0 * inf is NaN here too. Differentiable, also twice, in all tensors.

    Args:
        x: current sample [B, ...], float32, bfloat16, float16 or float64. Dense samples at any
            batch stride are read in place, other layouts are copied first.
        model_outputs: 1 to 4 tensors like x. They may share another dtype than x's; float64 goes
            with float64 only.
        coefficients: [21], or [B, 21] to give every sample its own; float32 or float64, on x's
            device. On the CPU their values are checked. On CUDA they are not, so that no call
            waits for the device.
        history: up to 4 tensors like x, usually the converted outputs of earlier steps.
        anchor: a tensor like x: the sample that a multi-stage step started from.
        extra: a tensor like x: any further term, such as a classifier's gradient.
        noise: a tensor like x, or ``(seed, offset)``, two ints in [0, 2^63): Philox4x32-10 normal
            numbers made inside the kernel. Element i of x (in contiguous order) depends on
            (seed, offset, i) alone, whatever the device, the layout and the number of threads.
        threshold: ``(quantile, maximum)``: dynamic thresholding (Saharia et al. 2022, section
            2.3). After the clip, per sample, D becomes clamp(D, -s, s) / s with s = clamp(quantile
            of |D|, 1, maximum), interpolated like torch.quantile. 0 <= quantile <= 1 <= maximum.
        converted: whether to return o_x x + o_F F + o_D D.
        next_input: dtype of next_scale * sample, for the next model call; None: not made.

    Returns:
        `SamplerStep(sample, converted, next_input)`, contiguous, of x's shape and dtype (but
        ``next_input``); None for what was not asked for.

    Raises:
        RuntimeError: a wrong shape, dtype, device, count or range, a coefficient that is not
            finite (clip may be inf), or one that is not 0 though its operand is missing.
        TypeError, ValueError: ``noise`` or ``threshold`` is not such a pair, or out of range.
    """
    seed, offset = None, 0
    if noise is not None and not isinstance(noise, Tensor):
        seed, offset = _seed_and_offset(noise)
        noise = None
    quantile, maximum = (None, 1.0) if threshold is None else _pair("threshold", threshold)
    if torch.is_grad_enabled() and _needs_grad(
        x, coefficients, anchor, extra, noise, *model_outputs, *history
    ):
        out = _SamplerStep.apply(
            x, coefficients, anchor, extra, noise, seed, offset, quantile, maximum, converted,
            next_input, len(model_outputs), *model_outputs, *history,
        )  # fmt: skip
    else:
        out = _forward(
            x, model_outputs, coefficients, history, converted, next_input, anchor, extra, noise,
            seed, offset, quantile, maximum,
        )  # fmt: skip
    return SamplerStep(*out)


def _pair(name: str, value: object) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"sampler_step: {name} is {value!r}, expected a pair of numbers")
    return value[0], value[1]


def _seed_and_offset(noise: object) -> tuple[int, int]:
    try:
        seed, offset = map(operator.index, noise)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise TypeError(
            f"sampler_step: noise is {noise!r}, expected a Tensor like x or a pair of ints "
            "(seed, offset)"
        ) from None
    for name, value in (("seed", seed), ("offset", offset)):
        if not 0 <= value < 2**63:
            raise ValueError(f"sampler_step: noise {name} is {value}, expected 0 <= {name} < 2**63")
    return seed, offset


def _needs_grad(*tensors: Tensor | None) -> bool:
    return any(t is not None and t.requires_grad for t in tensors)


def _has_kernel(x: Tensor) -> bool:
    return x.is_cpu or x.is_meta or (x.is_cuda and "cuda" in _library.LOADED)


def _forward(
    x: Tensor,
    model_outputs: Sequence[Tensor],
    coefficients: Tensor,
    history: Sequence[Tensor],
    converted: bool,
    next_input: torch.dtype | None = None,
    anchor: Tensor | None = None,
    extra: Tensor | None = None,
    noise: Tensor | None = None,
    seed: int | None = None,
    offset: int = 0,
    quantile: float | None = None,
    maximum: float = 1.0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if _has_kernel(x):
        # Arguments left out cost nothing: a sixth of a small call is torch's reading of them.
        if anchor is extra is noise is seed is quantile is None:
            return _op(x, model_outputs, coefficients, history, converted, next_input)
        return _op(
            x, model_outputs, coefficients, history, converted, next_input, anchor, extra, noise,
            seed, offset, quantile, maximum,
        )  # fmt: skip
    warnings.warn(
        f"suffuse: sampler_step has no kernel for {x.device.type} tensors, so the reference "
        "formula runs, which is slower",
        stacklevel=3,
    )
    return formula.sampler_step(
        x,
        model_outputs,
        coefficients,
        history=history,
        anchor=anchor,
        extra=extra,
        noise=noise if seed is None else (seed, offset),
        threshold=None if quantile is None else (quantile, maximum),
        converted=converted,
        next_input=next_input,
    )


@torch.library.register_fake("suffuse::sampler_step")
def _fake(
    x: Tensor,
    model_outputs: Sequence[Tensor],
    coefficients: Tensor,
    history: Sequence[Tensor],
    converted: bool,
    next_input: torch.dtype | None = None,
    anchor: Tensor | None = None,
    extra: Tensor | None = None,
    noise: Tensor | None = None,
    seed: int | None = None,
    offset: int = 0,
    quantile: float | None = None,
    maximum: float = 1.0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    operands = [(f"model_outputs[{i}]", t) for i, t in enumerate(model_outputs)]
    operands += [(f"history[{i}]", t) for i, t in enumerate(history)]
    optional = (("anchor", anchor), ("extra", extra), ("noise", noise))
    operands += [(name, t) for name, t in optional if t is not None]
    for name, operand in operands:
        _check_like(name, operand, x)
    sample = x.new_empty(x.shape)
    other = x.new_empty(x.shape) if converted else None
    following = x.new_empty(x.shape, dtype=next_input) if next_input else None
    return sample, other, following


def _check_like(name: str, operand: Tensor, x: Tensor) -> None:
    torch._check(
        operand.shape == x.shape,
        lambda: (
            f"sampler_step: {name}: expected shape {tuple(x.shape)} like x, got "
            f"{tuple(operand.shape)}"
        ),
    )
    torch._check(
        operand.device == x.device,
        lambda: f"sampler_step: {name}: expected device {x.device} like x, got {operand.device}",
    )


@torch.library.register_vmap("suffuse::sampler_step")
def _vmap(info, in_dims, *args):  # type: ignore[no-untyped-def]
    # One call for each slice, so that noise from a seed is what each slice would have alone.
    slices = [
        _op(*(_slice(arg, dims, i) for arg, dims in zip(args, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    stacked = [None if o[0] is None else torch.stack(o) for o in zip(*slices, strict=True)]
    return tuple(stacked), tuple(None if o is None else 0 for o in stacked)


def _slice(arg, dims, i: int):  # type: ignore[no-untyped-def]
    if isinstance(arg, (list, tuple)):
        return [_slice(a, d, i) for a, d in zip(arg, dims, strict=True)] if arg else arg
    return arg if dims is None else arg.select(dims, i)


class _SamplerStep(torch.autograd.Function):
    """The op. Its backward differentiates the reference formula, and so can be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        coefficients: Tensor,
        anchor: Tensor | None,
        extra: Tensor | None,
        noise: Tensor | None,
        seed: int | None,
        offset: int,
        quantile: float | None,
        maximum: float,
        converted: bool,
        next_input: torch.dtype | None,
        outputs: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return _forward(
            x, tensors[:outputs], coefficients, tensors[outputs:], converted, next_input, anchor,
            extra, noise, seed, offset, quantile, maximum,
        )  # fmt: skip

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        x, coefficients, anchor, extra, noise, *options = inputs
        ctx.options = options[:7]
        ctx.save_for_backward(x, coefficients, anchor, extra, noise, *options[7:])

    @staticmethod
    def backward(ctx, grad_sample, grad_converted, grad_next):  # type: ignore[no-untyped-def]
        seed, offset, quantile, maximum, converted, next_input, outputs = ctx.options
        saved = ctx.saved_tensors
        needed = [*ctx.needs_input_grad[:5], *ctx.needs_input_grad[12:]]
        wanted = [i for i, need in enumerate(needed) if need]

        def requested(*variables: Tensor) -> tuple[Tensor, ...]:
            operands = list(saved)
            for i, variable in zip(wanted, variables, strict=True):
                operands[i] = variable
            x, coefficients, anchor, extra, noise, *tensors = operands
            results = formula.sampler_step(
                x,
                tensors[:outputs],
                coefficients,
                history=tensors[outputs:],
                anchor=anchor,
                extra=extra,
                noise=noise if seed is None else (seed, offset),
                threshold=None if quantile is None else (quantile, maximum),
                converted=converted,
                next_input=next_input,
            )
            return tuple(result for result in results if result is not None)

        pull_back = torch.func.vjp(requested, *(saved[i] for i in wanted))[1]
        grads = [grad_sample]
        grads += [grad_converted] if converted else []
        grads += [grad_next] if next_input is not None else []
        found = dict(zip(wanted, pull_back(tuple(grads)), strict=True))
        by_operand = [found.get(i) for i in range(len(saved))]
        return (*by_operand[:5], *[None] * 7, *by_operand[5:])
