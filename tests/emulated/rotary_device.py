"""Runs the CUDA kernel of rotary in the emulator, with the arguments of the public functions."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, Report
from emulated.sampler_step_device import DTYPES
from suffuse.reference import rotary as formula


class Rows(ctypes.Structure):
    _fields_ = (
        *(("data", ctypes.c_void_p), ("batch", ctypes.c_int64)),
        *(("time", ctypes.c_int64), ("head", ctypes.c_int64)),
    )


class Params(ctypes.Structure):
    """RotaryParams of csrc/ops/rotary/params.h, field by field."""

    _fields_ = (
        *(("batch", ctypes.c_int64), ("length", ctypes.c_int64), ("heads", ctypes.c_int64)),
        *(("columns", ctypes.c_int64), ("rotated", ctypes.c_int64), ("x", Rows), ("out", Rows)),
        *(("cos", ctypes.c_void_p), ("sin", ctypes.c_void_p), ("positions", ctypes.c_int64)),
        *(("table_row", ctypes.c_int64), ("table_batch", ctypes.c_int64)),
        *(("offset", ctypes.c_int64), ("offsets", ctypes.c_void_p)),
        *(("sequences", ctypes.c_void_p), ("sequence_count", ctypes.c_int64)),
        *(("interleaved", ctypes.c_bool), ("inverse", ctypes.c_bool)),
        *(("dtype", ctypes.c_int32), ("table_dtype", ctypes.c_int32)),
    )


class EmulatedRotary:
    """A stand-in for `suffuse.ops.rotary` whose gradient in x is the kernel's, too.

    Args:
        shift: elements by which x and out miss the start of their memory.
        in_place: whether out is x.
    """

    report: Report  # of the last call

    def __init__(self, device: Emulator, shift: int = 0, in_place: bool = False) -> None:
        self.device, self.shift, self.in_place = device, shift, in_place

    def __call__(
        self, x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False,
        offsets: int | Tensor | None = None, inverse: bool = False,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        if x.dtype == torch.float64:
            cos, sin = cos.double(), sin.double()
        tensor = offsets if isinstance(offsets, Tensor) else None
        number = offsets if isinstance(offsets, int) else 0
        options = tensor, cu_seqlens, number, interleaved, inverse
        return _Function.apply(self, x, cos, sin, *options)

    def run(
        self, x: Tensor, cos: Tensor, sin: Tensor, offsets: Tensor | None,
        cu_seqlens: Tensor | None, offset: int, interleaved: bool, inverse: bool,
    ) -> Tensor:  # fmt: skip
        device, own = self.device, cos.dim() == 3
        p = Params(*x.shape, 2 * cos.shape[-1], interleaved=interleaved, inverse=inverse)
        p.dtype, p.table_dtype = DTYPES.index(x.dtype), DTYPES.index(cos.dtype)
        memory = device.tensor(x, "x", shift=self.shift)
        p.x = p.out = rows(memory)
        if not self.in_place:
            memory = device.empty(x.shape, x.dtype, "out", shift=self.shift)
            p.out = rows(memory)
        table = device.tensor(cos, "cos")
        p.cos, p.sin = table.address, device.tensor(sin, "sin").address
        p.positions, p.table_row = cos.shape[-2], table.stride[-2]
        p.table_batch = table.stride[0] if own and cos.shape[0] > 1 else 0
        p.offset = offset
        if offsets is not None:
            p.offsets = device.tensor(offsets, "offsets").address
        if cu_seqlens is not None:
            p.sequences = device.tensor(cu_seqlens, "cu_seqlens").address
            p.sequence_count = cu_seqlens.shape[0] - 1
        self.report = device.call("emulated_rotary", p)
        return memory.read()


def rows(memory: DeviceTensor) -> Rows:
    return Rows(memory.address, *memory.stride[:3])


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rotary: EmulatedRotary, *operands: Any) -> Tensor:
        ctx.rotary, ctx.operands = rotary, operands
        return rotary.run(*operands)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, cos, sin, *options, inverse = ctx.operands
        grad_x = ctx.rotary.run(grad.contiguous(), cos, sin, *options, not inverse)
        tables = formula.table_gradients(grad, x, cos, *options, inverse)
        return (None, grad_x, *tables, *(None,) * 5)
