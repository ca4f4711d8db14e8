"""Runs the CUDA kernels of guidance_gram in the emulator, with the arguments of the public function."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from emulated.harness import Emulator, Report
from emulated.sampler_step_device import DTYPES, View
from suffuse.ops import GuidanceGram


class Params(ctypes.Structure):
    """GuidanceGramParams of csrc/ops/guidance_gram/params.h, field by field."""

    _fields_ = (
        *(("batch", ctypes.c_int64), ("elements", ctypes.c_int64), ("tensors", View * 4)),
        *(("count", ctypes.c_int32), ("type", ctypes.c_int32), ("center", ctypes.c_bool)),
        *(("gram", ctypes.c_void_p), ("means", ctypes.c_void_p), ("partials", ctypes.c_void_p)),
        ("pieces", ctypes.c_int64),
    )


class EmulatedGram:
    """A stand-in for `suffuse.ops.guidance_gram`; `report` is that of the last call."""

    report: Report

    def __init__(self, device: Emulator, shift: int = 0) -> None:
        self.device, self.shift = device, shift

    def __call__(self, tensors: Sequence[Tensor], *, center: bool = False) -> GuidanceGram:
        device, count = self.device, len(tensors)
        batch, elements = tensors[0].flatten(1).shape
        p = Params(batch=batch, elements=elements, count=count, center=center)
        p.type = DTYPES.index(tensors[0].dtype)
        for i, tensor in enumerate(tensors):
            memory = device.tensor(tensor.flatten(1), f"tensors[{i}]", shift=self.shift)
            p.tensors[i] = View(memory.address, memory.stride[0])
        p.pieces, row = self._size("pieces", p), self._size("row", p)
        partials = device.empty((batch, p.pieces, row), torch.float64, "partials")
        gram = device.empty((batch, count, count), torch.float64, "gram")
        means = device.empty((batch, count), torch.float64, "means")
        p.partials, p.gram, p.means = partials.address, gram.address, means.address
        self.report = device.call("emulated_guidance_gram", p)
        return GuidanceGram(gram.read(), means.read())

    def _size(self, name: str, p: Params) -> int:
        entry = self.device.function(f"emulated_guidance_gram_{name}", ctypes.c_int64)
        return int(entry(ctypes.byref(p)))
