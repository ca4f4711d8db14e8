"""Runs the CUDA kernels of sampler_step in the emulator, with the arguments of the public function."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, Report
from suffuse.ops import SamplerStep
from suffuse.reference import sampler_step as formula

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # in the order of DType


class View(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("batch_stride", ctypes.c_int64))


class Params(ctypes.Structure):
    """SamplerStepParams of csrc/ops/sampler_step/params.h, field by field."""

    _fields_ = (
        *(("batch", ctypes.c_int64), ("elements", ctypes.c_int64)),
        *(("x", View), ("models", View * 4), ("terms", View * 7)),
        *(("term_columns", ctypes.c_int32 * 7), ("model_count", ctypes.c_int32)),
        *(("term_count", ctypes.c_int32), ("coefficients", ctypes.c_void_p)),
        *(("coefficient_stride", ctypes.c_int64), ("coefficient_type", ctypes.c_int32)),
        *(("sample", ctypes.c_void_p), ("converted", ctypes.c_void_p)),
        *(("next_input", ctypes.c_void_p), ("x_type", ctypes.c_int32)),
        *(("model_type", ctypes.c_int32), ("next_type", ctypes.c_int32)),
        *(("philox", ctypes.c_bool), ("seed", ctypes.c_uint64), ("offset", ctypes.c_uint64)),
        *(("scales", ctypes.c_void_p), ("magnitudes", ctypes.c_void_p)),
        *(("quantile", ctypes.c_double), ("maximum", ctypes.c_double), ("stream", ctypes.c_bool)),
    )


class EmulatedStep:
    """A stand-in for `suffuse.ops.sampler_step`; `report` is that of the last call.

    Args:
        blocks: of the step kernel, 0 for the launcher's own choice.
        shift: elements by which operands miss the start of their memory.
    """

    report: Report

    def __init__(self, device: Emulator, blocks: int = 0, shift: int = 0) -> None:
        self.device, self.blocks, self.shift = device, blocks, shift

    def __call__(
        self,
        x: Tensor,
        model_outputs: Sequence[Tensor],
        coefficients: Tensor,
        *,
        history: Sequence[Tensor] = (),
        noise: Tensor | tuple[int, int] | None = None,
        threshold: tuple[float, float] | None = None,
        converted: bool = True,
        next_input: torch.dtype | None = None,
        **others: Tensor,
    ) -> SamplerStep:
        device, size = self.device, x.shape
        p = Params(batch=size[0], elements=x[0].numel())
        p.x, p.x_type = self._view(x, "x"), DTYPES.index(x.dtype)
        p.model_count, p.model_type = len(model_outputs), DTYPES.index(model_outputs[0].dtype)
        for i, output in enumerate(model_outputs):
            p.models[i] = self._view(output, f"model_outputs[{i}]")
        self._add_terms(
            p, history, others | ({"noise": noise} if isinstance(noise, Tensor) else {})
        )
        table = device.tensor(coefficients, "coefficients")
        p.coefficients, p.coefficient_type = table.address, DTYPES.index(table.dtype)
        p.coefficient_stride = table.stride[0] if coefficients.dim() == 2 else 0
        if isinstance(noise, tuple):
            p.philox, (p.seed, p.offset) = True, noise
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        if threshold:
            p.scales = device.empty(size[:1], wide, "scales").address
            p.quantile, p.maximum = threshold
        results = [self._output(p, "sample", size, x.dtype)]
        results += [self._output(p, "converted", size, x.dtype) if converted else None]
        results += [self._output(p, "next_input", size, next_input) if next_input else None]
        if next_input:
            p.next_type = DTYPES.index(next_input)
        self.report = device.call("emulated_sampler_step", p, self.blocks)
        return SamplerStep(*(None if result is None else result.read() for result in results))

    def _view(self, tensor: Tensor, name: str) -> View:
        """Dense samples; no other tensor reaches the kernel."""
        assert tensor[0].is_contiguous()
        memory = self.device.tensor(tensor.flatten(1), name, shift=self.shift)
        return View(memory.address, memory.stride[0])

    def _add_terms(self, p: Params, history: Sequence[Tensor], others: dict[str, Any]) -> None:
        columns = {"anchor": formula.ANCHOR, "extra": formula.EXTRA, "noise": formula.NOISE}
        terms = [(formula.HISTORY + i, f"history[{i}]", h) for i, h in enumerate(history)]
        terms += [(columns[name], name, tensor) for name, tensor in others.items()]
        for column, name, tensor in terms:
            p.terms[p.term_count] = self._view(tensor, name)
            p.term_columns[p.term_count] = column
            p.term_count += 1

    def _output(
        self, p: Params, name: str, size: Sequence[int], dtype: torch.dtype
    ) -> DeviceTensor:
        result = self.device.empty(size, dtype, name)
        setattr(p, name, result.address)
        return result
