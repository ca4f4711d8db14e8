"""Runs the CUDA kernels of linear_scan in the emulator, with the arguments of the torch op."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from emulated.harness import Emulator, Report
from emulated.sampler_step_device import DTYPES

PARTS = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class Rows(ctypes.Structure):
    _fields_ = (
        *(("data", ctypes.c_void_p), ("batch", ctypes.c_int64)),
        *(("channel", ctypes.c_int64), ("time", ctypes.c_int64)),
    )


class Params(ctypes.Structure):
    """LinearScanParams of csrc/ops/linear_scan/params.h, field by field."""

    _fields_ = (
        *(("batch", ctypes.c_int64), ("channels", ctypes.c_int64), ("length", ctypes.c_int64)),
        *(("a", Rows), ("x", Rows), ("h", Rows)),
        *(("initial", ctypes.c_void_p), ("last", ctypes.c_void_p), ("sequence", ctypes.c_void_p)),
        *(("reverse", ctypes.c_bool), ("lagged", ctypes.c_bool), ("complex", ctypes.c_bool)),
        *(("a_dtype", ctypes.c_int32), ("dtype", ctypes.c_int32)),
    )


class EmulatedScan:
    """A stand-in for torch.ops.suffuse.linear_scan; `report` is that of the last call.

    Args:
        shift: elements by which a misses the start of its memory.
    """

    report: Report
    workspace_bytes = 0

    def __init__(self, device: Emulator, shift: int = 0) -> None:
        self.device, self.shift = device, shift

    def __call__(
        self,
        a: Tensor,
        x: Tensor,
        initial: Tensor | None,
        sequence: Tensor | None,
        reverse: bool,
        lagged: bool,
    ) -> tuple[Tensor, Tensor]:
        device, (batch, channels, length) = self.device, x.shape
        wide = torch.float32 if x.dtype.itemsize == 2 else x.dtype
        p = Params(batch, channels, length, reverse=reverse, lagged=lagged)
        p.complex = x.dtype.is_complex
        p.dtype = DTYPES.index(PARTS.get(x.dtype, x.dtype))
        p.a_dtype = DTYPES.index(PARTS.get(a.dtype, a.dtype))
        p.a, p.x = self._rows(a, "a", self.shift), self._rows(x, "x")
        if initial is not None:
            p.initial = device.tensor(initial, "initial").address
        if sequence is not None:
            p.sequence = device.tensor(sequence.contiguous(), "sequence").address
        h = device.empty(x.shape, x.dtype, "h")
        last = device.empty((batch, channels), wide, "last")
        p.h, p.last = Rows(h.address, *h.stride), last.address
        entry = device.function("emulated_linear_scan_workspace", ctypes.c_int64)
        words = int(entry(ctypes.byref(p)))
        zeros = torch.zeros(words, dtype=torch.int32)
        workspace = device.tensor(zeros, "workspace") if words else None
        self.workspace_bytes = zeros.nbytes
        self.report = device.call("emulated_linear_scan", p, workspace)
        return h.read(), last.read()

    def _rows(self, tensor: Tensor, name: str, shift: int = 0) -> Rows:
        """Adjacent steps, or the same at all; no other tensor reaches the kernel."""
        memory = self.device.tensor(tensor, name, shift=shift)
        assert tensor.stride(2) in (0, 1)
        return Rows(memory.address, *memory.stride)
