"""Runs the CUDA kernels of causal_conv1d in the emulator, with the arguments of the public functions."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, Report
from emulated.sampler_step_device import DTYPES
from suffuse.reference import causal_conv1d as formula


class Rows(ctypes.Structure):
    _fields_ = (
        *(("data", ctypes.c_void_p), ("batch", ctypes.c_int64)),
        *(("channel", ctypes.c_int64), ("time", ctypes.c_int64)),
    )


class Params(ctypes.Structure):
    """CausalConv1dParams of csrc/ops/causal_conv1d/params.h, field by field."""

    _fields_ = (
        *(("batch", ctypes.c_int64), ("channels", ctypes.c_int64)),
        *(("length", ctypes.c_int64), ("width", ctypes.c_int64)),
        *(("x", Rows), ("out", Rows), ("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p)),
        *(("initial", Rows), ("sequence", ctypes.c_void_p)),
        *(("silu", ctypes.c_bool), ("dtype", ctypes.c_int32)),
    )


class GradParams(ctypes.Structure):
    _fields_ = (
        *(("forward", Params), ("grad_out", Rows), ("grad_x", Rows), ("grad_initial", Rows)),
        *(("grad_weight", ctypes.c_void_p), ("grad_bias", ctypes.c_void_p)),
        *(("partials", ctypes.c_void_p), ("partial_rows", ctypes.c_int64)),
        ("grad_z", ctypes.c_void_p),
    )


class UpdateParams(ctypes.Structure):
    _fields_ = (
        *(("batch", ctypes.c_int64), ("channels", ctypes.c_int64), ("length", ctypes.c_int64)),
        *(("width", ctypes.c_int64), ("state_length", ctypes.c_int64)),
        *(("x", Rows), ("out", Rows), ("state", Rows)),
        *(("slots", ctypes.c_void_p), ("positions", ctypes.c_void_p)),
        *(("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p)),
        *(("silu", ctypes.c_bool), ("dtype", ctypes.c_int32)),
    )


def along_time(x: Tensor) -> bool:
    return x.shape[2] <= 1 or x.stride(2) == 1


class EmulatedConv:
    """A stand-in for `suffuse.ops.causal_conv1d` whose gradients are the kernels', too.

    Attributes:
        forward, backward: the reports of the last ones.
    """

    forward: Report
    backward: Report

    def __init__(self, device: Emulator, shift: int = 0) -> None:
        self.device, self.shift = device, shift

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, *,
        activation: str | None = None, initial_state: Tensor | None = None,
        return_final_state: bool = False, seq_idx: Tensor | None = None,
    ) -> Any:  # fmt: skip
        out = _Function.apply(self, x, weight, bias, initial_state, seq_idx, activation is not None)
        if not return_final_state:
            return out
        return out, formula.final_state(x, weight.shape[1], initial_state, seq_idx)

    def rows(self, tensor: Tensor, name: str) -> Rows:
        """As it is laid out; no tensor without adjacent steps or channels reaches the kernel."""
        memory = self.device.tensor(tensor, name, shift=self.shift)
        return Rows(memory.address, *memory.stride)

    def result(self, like: Tensor, name: str) -> tuple[DeviceTensor, Rows]:
        """An output laid out as `like`."""
        batch, channels, length = like.shape
        if along_time(like):
            size, stride = (batch, channels, length), (channels * length, length, 1)
        else:
            size, stride = (batch, length, channels), (channels * length, 1, channels)
        memory = self.device.empty(size, like.dtype, name, shift=self.shift)
        return memory, Rows(memory.address, *stride)

    def fill(self, x: Tensor, weight: Tensor, bias: Tensor | None, initial: Tensor | None,
             seq_idx: Tensor | None, silu: bool) -> Params:  # fmt: skip
        batch, channels, length = x.shape
        p = Params(batch, channels, length, weight.shape[1], silu=silu)
        p.dtype, p.x = DTYPES.index(x.dtype), self.rows(x, "x")
        if along_time(x):
            p.x.time = 1
        p.weight = self.device.tensor(weight, "weight").address
        p.bias = None if bias is None else self.device.tensor(bias, "bias").address
        if initial is not None:
            p.initial = self.rows(initial, "initial_state")
        if seq_idx is not None:
            p.sequence = self.device.tensor(seq_idx, "seq_idx").address
        return p

    def size(self, name: str, p: Params) -> int:
        entry = self.device.function(f"emulated_causal_conv1d_{name}", ctypes.c_int64)
        return int(entry(ctypes.byref(p)))


def shaped(memory: DeviceTensor, like: Tensor) -> Tensor:
    value = memory.read()
    return value if along_time(like) else value.transpose(1, 2)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, conv: EmulatedConv, *operands: Any) -> Tensor:
        ctx.conv, ctx.operands = conv, operands
        p = conv.fill(*operands)
        out, p.out = conv.result(operands[0], "out")
        conv.forward = conv.device.call("emulated_causal_conv1d_fwd", p)
        return shaped(out, operands[0])

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        conv, (x, weight, bias, initial, *_) = ctx.conv, ctx.operands
        device = conv.device
        like_x = grad_out if along_time(x) else grad_out.transpose(1, 2)
        grad_out = like_x.contiguous() if along_time(x) else like_x.contiguous().transpose(1, 2)
        g = GradParams(conv.fill(*ctx.operands), conv.rows(grad_out, "grad_out"))
        grad_x, g.grad_x = conv.result(x, "grad_x")
        grad_weight = device.empty(weight.shape, weight.dtype, "grad_weight")
        grad_bias = device.empty(weight.shape[:1], weight.dtype, "grad_bias")
        if initial is not None:
            grad_initial = device.empty(initial.shape, x.dtype, "grad_initial")
            g.grad_initial = Rows(grad_initial.address, *grad_initial.stride)
        g.grad_weight, g.grad_bias = grad_weight.address, grad_bias.address
        g.partial_rows = conv.size("partial_rows", g.forward)
        entries = weight.numel() + weight.shape[0]
        g.partials = device.empty((g.partial_rows, entries), weight.dtype, "partials").address
        if conv.size("keeps_grad_z", g.forward):
            g.grad_z = device.empty((x.numel(),), weight.dtype, "grad_z").address
        conv.backward = device.call("emulated_causal_conv1d_bwd", g)
        return (
            *(None, shaped(grad_x, x), grad_weight.read()),
            None if bias is None else grad_bias.read(),
            None if initial is None else grad_initial.read(),
            *(None, None),
        )


class EmulatedUpdate:
    """A stand-in for `suffuse.ops.causal_conv1d_update`; `report` is that of the last call."""

    report: Report

    def __init__(self, device: Emulator) -> None:
        self.device = device

    def __call__(
        self, x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None = None, *,
        activation: str | None = None, cache_seqlens: Tensor | None = None,
        conv_state_indices: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        device, steps = self.device, x.unsqueeze(2) if x.dim() == 2 else x
        p = UpdateParams(*steps.shape, weight.shape[1], conv_state.shape[2])
        p.silu, p.dtype = activation is not None, DTYPES.index(x.dtype)
        memory = device.tensor(steps, "x")
        p.x = Rows(memory.address, *memory.stride)
        out = device.empty(steps.shape, x.dtype, "out")
        p.out = Rows(out.address, *out.stride)
        state = device.tensor(conv_state, "conv_state")
        p.state = Rows(state.address, *state.stride)
        pointers = {
            "weight": weight,
            "bias": bias,
            "positions": cache_seqlens,
            "slots": conv_state_indices,
        }
        for name, tensor in pointers.items():
            if tensor is not None:
                setattr(p, name, device.tensor(tensor, name).address)
        self.report = device.call("emulated_causal_conv1d_update", p)
        conv_state.copy_(state.read())
        return out.read().reshape(x.shape)
