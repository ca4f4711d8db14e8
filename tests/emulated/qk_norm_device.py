"""Runs the CUDA kernels of qk_norm in the emulator, with the arguments of the public function."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, Report
from emulated.sampler_step_device import DTYPES


class Rows(ctypes.Structure):
    _fields_ = (
        *(("data", ctypes.c_void_p), ("batch", ctypes.c_int64)),
        *(("time", ctypes.c_int64), ("head", ctypes.c_int64)),
    )


class Heads(ctypes.Structure):
    _fields_ = (
        *(("x", Rows), ("out", Rows), ("heads", ctypes.c_int64), ("weight", ctypes.c_void_p)),
    )


class Params(ctypes.Structure):
    """QkNormParams of csrc/ops/qk_norm/params.h, field by field."""

    _fields_ = (
        *(("batch", ctypes.c_int64), ("length", ctypes.c_int64), ("columns", ctypes.c_int64)),
        *(("sides", Heads * 2), ("cos", ctypes.c_void_p), ("sin", ctypes.c_void_p)),
        *(("rotated", ctypes.c_int64), ("table_row", ctypes.c_int64)),
        *(("table_batch", ctypes.c_int64), ("eps", ctypes.c_double)),
        *(("interleaved", ctypes.c_bool), ("dtype", ctypes.c_int32)),
    )


class GradParams(ctypes.Structure):
    _fields_ = (
        *(("forward", Params), ("grad_out", Rows * 2), ("grad_x", Rows * 2)),
        *(("grad_weight", ctypes.c_void_p * 2), ("partials", ctypes.c_void_p)),
    )


class EmulatedQkNorm:
    """A stand-in for `suffuse.ops.qk_norm` whose gradients are the kernels', too.

    Attributes:
        forward, backward: the reports of the last ones.
    """

    forward: Report
    backward: Report

    def __init__(self, device: Emulator, shift: int = 0) -> None:
        self.device, self.shift = device, shift

    def __call__(
        self, q: Tensor, k: Tensor, q_weight: Tensor | None = None,
        k_weight: Tensor | None = None, *, eps: float = 1e-6, cos: Tensor | None = None,
        sin: Tensor | None = None, interleaved: bool = False,
    ) -> Any:  # fmt: skip
        return _Function.apply(self, q, k, q_weight, k_weight, cos, sin, eps, interleaved)

    def rows(self, tensor: Tensor, name: str) -> Rows:
        return rows_of(self.device.tensor(tensor, name, shift=self.shift))

    def result(self, like: Tensor, name: str) -> tuple[DeviceTensor, Rows]:
        memory = self.device.empty(like.shape, like.dtype, name, shift=self.shift)
        return memory, rows_of(memory)

    def fill(self, q: Tensor, k: Tensor, q_weight: Tensor | None, k_weight: Tensor | None,
             cos: Tensor | None, sin: Tensor | None, eps: float, interleaved: bool) -> Params:  # fmt: skip
        batch, length, _, columns = q.shape
        p = Params(batch, length, columns, eps=eps, interleaved=interleaved)
        p.dtype = DTYPES.index(q.dtype)
        sides = ("q", q, q_weight), ("k", k, k_weight)
        for side, (name, x, weight) in zip(p.sides, sides, strict=True):
            side.x, side.heads = self.rows(x, name), x.shape[2]
            if weight is not None:
                side.weight = self.device.tensor(weight, f"{name}_weight").address
        if cos is not None and sin is not None:
            table = self.device.tensor(cos, "cos")
            p.cos, p.sin = table.address, self.device.tensor(sin, "sin").address
            p.rotated, p.table_row = 2 * cos.shape[-1], table.stride[-2]
            p.table_batch = table.stride[0] if cos.dim() == 3 and cos.shape[0] > 1 else 0
        return p


def rows_of(memory: DeviceTensor) -> Rows:
    return Rows(memory.address, *memory.stride[:3])


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norm: EmulatedQkNorm, *operands: Any) -> tuple[Tensor, Tensor]:
        ctx.norm, ctx.operands = norm, operands
        p = norm.fill(*operands)
        outs = []
        for side, x, name in zip(p.sides, operands[:2], "qk", strict=True):
            out, side.out = norm.result(x, f"out {name}")
            outs.append(out)
        norm.forward = norm.device.call("emulated_qk_norm_fwd", p)
        return outs[0].read(), outs[1].read()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # type: ignore[override]
        norm, operands = ctx.norm, ctx.operands
        device, g = norm.device, GradParams(norm.fill(*operands))
        results: list[DeviceTensor | None] = []
        for i, name in enumerate("qk"):
            g.grad_out[i] = norm.rows(grads[i].contiguous(), f"grad {name}")
            memory, g.grad_x[i] = norm.result(operands[i], f"grad_{name}")
            results.append(memory)
        for i, weight in enumerate(operands[2:4]):
            results.append(None)
            if weight is not None:
                results[-1] = device.empty(weight.shape, weight.dtype, "grad_weight")
                g.grad_weight[i] = results[-1].address
        count = device.function("emulated_qk_norm_partials", ctypes.c_int64)(ctypes.byref(g))
        wide = torch.float64 if operands[0].dtype == torch.float64 else torch.float32
        g.partials = device.empty((count,), wide, "partials").address
        norm.backward = device.call("emulated_qk_norm_bwd", g)
        return None, *(m if m is None else m.read() for m in results), *(None,) * 4
