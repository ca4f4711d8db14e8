"""Runs the CUDA kernel of selective_state_update in the emulator, with the public function's arguments."""

from __future__ import annotations

import ctypes
from typing import Any

from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, Report
from emulated.sampler_step_device import DTYPES

P, I64 = ctypes.c_void_p, ctypes.c_int64


class Rows(ctypes.Structure):
    _fields_ = (("data", P), ("batch", I64), ("head", I64), ("place", I64))


class Channels(ctypes.Structure):
    _fields_ = (("data", P), ("head", I64), ("place", I64))


class Projection(ctypes.Structure):
    _fields_ = (("data", P), ("batch", I64), ("group", I64))


class Params(ctypes.Structure):
    """StateUpdateParams of csrc/ops/selective_scan/update_params.h, field by field."""

    _fields_ = (
        *((name, I64) for name in ("batch", "heads", "places", "states", "groups")),
        *(("x", Rows), ("dt", Rows), ("z", Rows), ("skip", Channels), ("bias", Channels)),
        *(("a", Channels), ("a_state", I64), ("b", Projection), ("c", Projection)),
        *(("indices", P), ("state", P), ("state_slot", I64), ("state_head", I64)),
        *(("state_place", I64), ("out", P), ("softplus", ctypes.c_bool)),
        *(("dtype", ctypes.c_int32), ("state_dtype", ctypes.c_int32)),
    )


class EmulatedUpdate:
    """A stand-in for `suffuse.ops.selective_state_update`; `report` is that of the last call."""

    report: Report

    def __init__(self, device: Emulator) -> None:
        self.device = device

    def __call__(
        self, state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
        D: Tensor | None = None, z: Tensor | None = None, dt_bias: Tensor | None = None, *,
        dt_softplus: bool = False, state_batch_indices: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        device, heads = self.device, x.dim() == 3
        p = Params(x.shape[0], x.shape[1], x.shape[2] if heads else 1, A.shape[-1], 1)
        p.softplus = dt_softplus
        p.dtype, p.state_dtype = DTYPES.index(x.dtype), DTYPES.index(state.dtype)
        for name, value in (("x", x), ("dt", dt), ("z", z)):
            if value is not None:
                setattr(p, name, Rows(*self._place(value, name, 3)))
        for name, value in (("skip", D), ("bias", dt_bias)):
            if value is not None:
                setattr(p, name, Channels(*self._place(value, name, 2)))
        rates = self.device.tensor(A, "A")
        p.a = Channels(rates.address, rates.stride[0], rates.stride[1] if heads else 0)
        p.a_state = rates.stride[-1]
        p.groups = B.shape[1] if B.dim() == 3 else 1
        for name, value in (("b", B), ("c", C)):
            memory = device.tensor(value, name)
            stride = memory.stride if value.dim() == 3 else (memory.stride[0], 0)
            setattr(p, name, Projection(memory.address, *stride[:2]))
        if state_batch_indices is not None:
            p.indices = device.tensor(state_batch_indices, "indices").address
        kept = device.tensor(state, "state")
        p.state, p.state_slot, p.state_head = kept.address, *kept.stride[:2]
        p.state_place = kept.stride[2] if heads else 0
        out = device.empty(x.shape, x.dtype, "out")
        p.out = out.address
        self.report = device.call("emulated_selective_state_update", p)
        state.copy_(kept.read())
        return out.read()

    def _place(self, value: Tensor, name: str, dims: int) -> tuple[Any, ...]:
        """Address and strides; 0 for the place where there are no heads."""
        memory: DeviceTensor = self.device.tensor(value, name)
        return (memory.address, *memory.stride, *(0,) * (dims - value.dim()))
