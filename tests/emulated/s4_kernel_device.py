"""Runs the CUDA kernels of s4_kernel in the emulator, with the arguments of the torch ops."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from emulated.harness import Emulator, Report
from emulated.sampler_step_device import DTYPES

PARTS = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def fields(kind: type, *names: str) -> tuple[tuple[str, type], ...]:
    return tuple((name, kind) for name in names)


class VandermondeParams(ctypes.Structure):
    """S4VandermondeParams of csrc/ops/s4_kernel/params.h, field by field."""

    _fields_ = (
        *fields(ctypes.c_int64, "rows", "terms", "length"),
        *fields(ctypes.c_void_p, "v", "x", "out"),
        *(("real", ctypes.c_bool), ("dtype", ctypes.c_int32)),
    )


class MomentsParams(ctypes.Structure):
    """S4MomentsParams, field by field."""

    _fields_ = (
        *fields(ctypes.c_int64, "rows", "terms", "length"),
        *fields(ctypes.c_void_p, "u", "x", "zeroth", "first", "partials"),
        *(("complex", ctypes.c_bool), ("dtype", ctypes.c_int32)),
    )


class CauchyParams(ctypes.Structure):
    """S4CauchyParams, field by field."""

    _fields_ = (
        *fields(ctypes.c_int64, "rows", "outputs", "terms"),
        *fields(ctypes.c_void_p, "v", "z", "w"),
        *fields(ctypes.c_int64, "z_row", "w_row"),
        *fields(ctypes.c_void_p, "out", "next"),
        *(("power", ctypes.c_int32), ("conj", ctypes.c_bool), ("dtype", ctypes.c_int32)),
    )


PARAMS = (VandermondeParams, MomentsParams, CauchyParams)


class EmulatedS4:
    """A stand-in for torch.ops.suffuse.s4_kernel_...; `report` is that of the last call."""

    report: Report

    def __init__(self, device: Emulator) -> None:
        self.device = device

    def vandermonde(self, v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
        p = VandermondeParams(*v.shape, length, real=real, dtype=code(v.dtype))
        p.v, p.x = (self._memory(t, name) for t, name in ((v, "v"), (x, "x")))
        dtype = PARTS[v.dtype] if real else v.dtype
        out = self.device.empty((v.shape[0], length), dtype, "out")
        p.out = out.address
        self.report = self.device.call("emulated_s4_vandermonde", p)
        return out.read()

    def moments(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        device, length = self.device, u.shape[1]
        p = MomentsParams(*x.shape, length, complex=u.is_complex(), dtype=code(x.dtype))
        p.u, p.x = (self._memory(t, name) for t, name in ((u, "u"), (x, "x")))
        results = [device.empty(x.shape, x.dtype, name) for name in ("zeroth", "first")]
        p.zeroth, p.first = (result.address for result in results)
        chunks = int(device.function("emulated_s4_chunks", ctypes.c_int64)(length))
        if chunks > 1:
            shape = (x.shape[0], chunks, 2, x.shape[1])
            p.partials = device.empty(shape, x.dtype, "partials").address
        self.report = device.call("emulated_s4_moments", p)
        return results[0].read(), results[1].read()

    def cauchy(
        self, v: Tensor, z: Tensor, w: Tensor, power: int, conj: bool, both: bool
    ) -> tuple[Tensor, Tensor]:
        rows, outputs = v.shape[0], z.shape[1]
        p = CauchyParams(rows, outputs, v.shape[1], power=power, conj=conj, dtype=code(v.dtype))
        p.v, p.z, p.w = (self._memory(t, n) for t, n in ((v, "v"), (z, "z"), (w, "w")))
        p.z_row, p.w_row = (0 if t.shape[0] == 1 else t.shape[1] for t in (z, w))
        out = self.device.empty((rows, outputs), v.dtype, "out")
        above = self.device.empty((rows if both else 0, outputs), v.dtype, "next")
        p.out, p.next = out.address, above.address if both else None
        self.report = self.device.call("emulated_s4_cauchy", p)
        return out.read(), above.read()

    def _memory(self, tensor: Tensor, name: str) -> int:
        return self.device.tensor(tensor.contiguous(), name).address


def code(dtype: torch.dtype) -> int:
    return DTYPES.index(PARTS[dtype])
