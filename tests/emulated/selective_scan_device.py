"""Runs the CUDA kernels of selective_scan in the emulator: results and gradients by name."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from ops.selective_scan_inputs import cotangents
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, Report
from emulated.sampler_step_device import DTYPES

STEPS = 16
P, I64 = ctypes.c_void_p, ctypes.c_int64


class Rows(ctypes.Structure):
    _fields_ = (("data", P), ("batch", I64), ("channel", I64), ("time", I64))


class Projection(ctypes.Structure):
    _fields_ = (
        *(("data", P), ("batch", I64), ("group", I64), ("state", I64), ("time", I64)),
        *(("packed", P), ("varying", ctypes.c_bool)),
    )


class Params(ctypes.Structure):
    """SelectiveScanParams of csrc/ops/selective_scan/params.h, field by field."""

    _fields_ = (
        *((name, I64) for name in ("batch", "channels", "length", "states", "groups")),
        *(("u", Rows), ("delta", Rows), ("z", Rows), ("b", Projection), ("c", Projection)),
        *((name, P) for name in ("a", "skip", "bias", "initial", "sequence")),
        *(("softplus", ctypes.c_bool), ("reverse", ctypes.c_bool), ("dtype", ctypes.c_int32)),
        *((name, P) for name in ("out", "ungated", "last", "chunk_states")),
        *(("chunk", I64), ("workspace", P)),
    )


class GradParams(ctypes.Structure):
    """SelectiveScanGradParams."""

    _fields_ = (
        *(("forward", Params), ("grad_out", Rows)),
        *((name, P) for name in ("grad_last", "grad_u", "grad_delta", "grad_z", "grad_initial")),
        *((name, P) for name in ("grad_a", "grad_skip", "grad_bias", "grad_b", "grad_c")),
        *((name, P) for name in ("sums_a", "sums_skip", "sums_bias", "sums_b", "sums_c")),
        ("parts", I64),
    )


class EmulatedScan:
    """A stand-in for `results(suffuse.ops.selective_scan, ...)`.

    Args:
        segments, rounds: other than the launcher's choice, where not 0.
        shift: elements by which operands miss the start of their memory.
    """

    forward_report: Report
    backward_report: Report

    def __init__(
        self, device: Emulator, segments: int = 0, rounds: int = 0, shift: int = 0
    ) -> None:
        self.device, self.segments, self.rounds, self.shift = device, segments, rounds, shift

    def __call__(
        self,
        tensors: dict[str, Tensor],
        *,
        delta_softplus: bool = False,
        seq_idx: Tensor | None = None,
        reverse: bool = False,
    ) -> dict[str, Tensor]:
        p = self._params(tensors, delta_softplus, seq_idx, reverse)
        out, last = self._run_forward(p, tensors)
        grads = self._run_backward(p, tensors, last)
        return {"out": out.read(), "last_state": last.read(), **grads}

    def _params(
        self, tensors: dict[str, Tensor], softplus: bool, seq_idx: Tensor | None, reverse: bool
    ) -> Params:
        u = tensors["u"]
        p = Params(*u.shape, tensors["A"].shape[1], softplus=softplus, reverse=reverse)
        p.dtype, p.chunk, p.groups = DTYPES.index(u.dtype), STEPS, 1
        for field, name in (("u", "u"), ("delta", "delta"), ("z", "z")):
            if name in tensors:
                setattr(p, field, self._rows(tensors[name], name))
        for field in ("b", "c"):
            setattr(p, field, self._projection(tensors[field.upper()], field.upper()))
            if tensors[field.upper()].dim() == 4:
                p.groups = tensors[field.upper()].shape[1]
        small = {"a": "A", "skip": "D", "bias": "delta_bias", "initial": "initial_state"}
        for field, name in small.items():
            if name in tensors:
                setattr(p, field, self.device.tensor(tensors[name], name).address)
        if seq_idx is not None:
            p.sequence = self.device.tensor(seq_idx.contiguous(), "seq_idx").address
        return p

    def _rows(self, value: Tensor, name: str) -> Rows:
        memory = self.device.tensor(value, name, shift=self.shift)
        return Rows(memory.address, *memory.stride)

    def _projection(self, value: Tensor, name: str) -> Projection:
        memory = self.device.tensor(value, name, shift=self.shift)
        if value.dim() == 2:
            return Projection(data=memory.address)
        return Projection(memory.address, *memory.stride, varying=True)

    def _result(self, p: ctypes.Structure, field: str, like: Sequence[int], dtype) -> DeviceTensor:  # type: ignore[no-untyped-def]
        memory = self.device.empty(like, dtype, field)
        setattr(p, field, memory.address)
        return memory

    def _workspace(self, p: Params, kind: str, *cut: int) -> None:
        entry = self.device.function(f"emulated_selective_scan_{kind}_floats", ctypes.c_int64)
        count = int(entry(ctypes.byref(p), *map(ctypes.c_int64, cut)))
        p.workspace = self.device.empty((count,), torch.float32, f"{kind} workspace").address

    def _run_forward(
        self, p: Params, tensors: dict[str, Tensor]
    ) -> tuple[DeviceTensor, DeviceTensor]:
        u, wide = tensors["u"], torch.float32
        out = self._result(p, "out", u.shape, u.dtype)
        if "z" in tensors:
            self._result(p, "ungated", u.shape, u.dtype)
        last = self._result(p, "last", (p.batch, p.channels, p.states), wide)
        windows = (p.length + STEPS - 1) // STEPS
        self._result(p, "chunk_states", (p.batch, windows, p.channels, p.states), wide)
        self._workspace(p, "fwd", self.segments)
        self.forward_report = self.device.call("emulated_selective_scan_fwd", p, self.segments)
        return out, last

    def _run_backward(
        self, p: Params, tensors: dict[str, Tensor], last: DeviceTensor
    ) -> dict[str, Tensor]:
        u, wide = tensors["u"], torch.float32
        of_out, of_last = cotangents(u, torch.empty(last.size))
        self._workspace(p, "bwd", self.segments, self.rounds)
        g = GradParams(forward=p, grad_out=self._rows(of_out, "grad_out"))
        g.grad_last = self.device.tensor(of_last, "grad_last").address
        fields = {
            "grad_u": "u", "grad_delta": "delta", "grad_z": "z", "grad_a": "A", "grad_b": "B",
            "grad_c": "C", "grad_skip": "D", "grad_bias": "delta_bias",
            "grad_initial": "initial_state",
        }  # fmt: skip
        absent = {"grad_skip": (p.channels,), "grad_bias": (p.channels,), "grad_initial": last.size}
        results = {}
        for field, name in fields.items():
            if name in tensors:
                value = tensors[name]
                results[f"grad_{name}"] = self._result(g, field, value.shape, value.dtype)
            elif field in absent:  # always written
                self._result(g, field, absent[field], wide)
        self.backward_report = self.device.call(
            "emulated_selective_scan_bwd", g, self.segments, self.rounds
        )
        return {f"grad_{name}": results[f"grad_{name}"].read() for name in tensors}
