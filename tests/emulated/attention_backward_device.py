"""Runs the CUDA kernels of attention's gradients in the emulator, and holds them to the float64 formula."""

from __future__ import annotations

import ctypes

import torch
from ops.attention_cases import Case, gradients
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, Report
from suffuse.testing import assert_close_to_reference

P, I32, I64, F64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_double
UNLIMITED = 1 << 40
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # in the order of DType
LIBRARIES = {
    torch.bfloat16: "attention_backward",
    torch.float16: "attention_backward_f16",
    torch.float32: "attention_backward_f32",
}


class Rows(ctypes.Structure):
    """AttentionTensor of csrc/ops/attention/params.h, field by field; the others likewise."""

    _fields_ = (("data", P), ("batch", I64), ("row", I64), ("head", I64))


class Scores(ctypes.Structure):
    _fields_ = (
        *(("scale", F64), ("softcap", F64), ("left", I64), ("right", I64)),
        *(("top_left", ctypes.c_bool), ("bias_kind", I32), ("bias", P)),
        *((f"bias_{name}", I64) for name in ("batch", "head", "row", "key")),
        *(("alibi", P), ("alibi_batch", I64), ("sinks", P), ("dropout", F64), ("seed", P)),
    )


class Layout(ctypes.Structure):
    _fields_ = (
        *((name, P) for name in ("q_starts", "k_starts", "q_used", "k_used")),
        *((name, P) for name in ("cache_index", "left_pad", "pages")),
        *(("pages_row", I64), ("page", I64)),
    )


class Params(ctypes.Structure):
    _fields_ = (
        *((name, Rows) for name in ("q", "k", "v", "out")),
        *(("lse", P), ("lse_batch", I64), ("lse_head", I64)),
        *((name, I64) for name in ("B", "T", "S", "H", "G", "D", "Dv")),
        *(("block_rows", I64), ("blocks", I64), ("block_starts", P), ("dtype", I32)),
        *(("scores", Scores), ("layout", Layout)),
    )


class GradParams(ctypes.Structure):
    _fields_ = (
        *(("forward", Params), ("grad_out", Rows), ("grad_q", Rows)),
        *(("grad_k", Rows), ("grad_v", Rows), ("grad_lse", P), ("grad_bias", P)),
        *((f"grad_bias_{name}", I64) for name in ("batch", "head", "row", "key")),
        *(("bias_apart", ctypes.c_bool), ("chunks", I64), ("workspace", P)),
    )


class EmulatedGradients:
    """The kernels on a device. general: those with all features, needed or not."""

    report: Report

    def __init__(self, device: Emulator, *, general: bool = False, tf32: bool = False) -> None:
        self.device, self.general, self.tf32 = device, general, tf32

    def __call__(self, case: Case, out: Tensor, lse: Tensor, shift: int = 0) -> dict[str, Tensor]:
        """Gradients by name; shift: elements by which q misses the start of its memory."""
        q = case.tensors["q"]
        p = self._params(case, shift)
        p.out = self._rows(out.to(q.dtype), "out")
        p.lse = self.device.tensor(lse.float().contiguous(), "lse").address
        p.lse_head = lse.shape[2]
        p.lse_batch = p.H * p.lse_head
        g = GradParams(forward=p, grad_out=self._rows(case.grad_out, "grad_out"))
        g.grad_lse = self.device.tensor(case.grad_lse, "grad_lse").address
        count = self.device.function("emulated_attention_bwd_floats", I64)(ctypes.byref(g))
        g.workspace = self.device.empty((count,), torch.float32, "workspace").address
        results = self._results(g, case)
        self.report = self.device.call("emulated_attention_bwd", g, self.general, self.tf32)
        return {name: memory.read() for name, memory in results.items()}

    def _params(self, case: Case, shift: int) -> Params:
        q, k, v = (case.tensors[name] for name in "qkv")
        options = case.options
        starts = {side: options.get(f"cu_seqlens_{side}") for side in "qk"}
        rows = {"q": q.shape[1], "k": k.shape[1]}
        for side, start in starts.items():
            if start is not None:
                rows[side] = int(start.diff().max())
        batch = next((len(s) - 1 for s in starts.values() if s is not None), q.shape[0])
        p = Params(
            q=self._rows(q, "q", shift), k=self._rows(k, "k"), v=self._rows(v, "v"), B=batch,
            T=rows["q"], S=rows["k"], H=q.shape[2], G=k.shape[2], D=q.shape[3], Dv=v.shape[3],
            dtype=DTYPES.index(q.dtype),
        )  # fmt: skip
        for side, start in starts.items():
            self._integers(p.layout, f"{side}_starts", start)
            self._integers(p.layout, f"{side}_used", options.get(f"seqused_{side}"))
        self._scores(p.scores, case)
        return p

    def _scores(self, s: Scores, case: Case) -> None:
        options, q = case.options, case.tensors["q"]
        causal = options.get("causal", False)
        left, right = options.get("window") or (None, None)
        s.scale = options.get("scale") or q.shape[3] ** -0.5
        s.softcap, s.dropout = options.get("softcap", 0.0), options.get("dropout", 0.0)
        s.left = UNLIMITED if left is None else left
        s.right = 0 if causal else UNLIMITED if right is None else right
        s.top_left = causal in (True, "top_left")
        bias = case.tensors.get("bias", options.get("bias"))
        if bias is not None:
            s.bias_kind = 1 if bias.dtype == torch.bool else 2 if bias.dtype == q.dtype else 3
            s.bias = self.device.tensor(bias, "bias").address
            for name, step in zip(("batch", "head", "row", "key"), broadcast(bias), strict=True):
                setattr(s, f"bias_{name}", step)
        if "alibi_slopes" in options:
            slopes = options["alibi_slopes"]
            s.alibi = self.device.tensor(slopes, "slopes").address
            s.alibi_batch = slopes.shape[1] if slopes.dim() == 2 else 0
        if "sinks" in options:
            s.sinks = self.device.tensor(options["sinks"], "sinks").address
        if "seed" in options:
            s.seed = self.device.tensor(torch.tensor([options["seed"]]), "seed").address

    def _integers(self, layout: Layout, field: str, value: Tensor | None) -> None:
        if value is not None:
            setattr(layout, field, self.device.tensor(value.int(), field).address)

    def _rows(self, value: Tensor, name: str, shift: int = 0) -> Rows:
        memory = self.device.tensor(value, name, shift=shift)
        return Rows(memory.address, *memory.stride[:3])

    def _results(self, g: GradParams, case: Case) -> dict[str, DeviceTensor]:
        results = {}
        for name in "qkv":
            value = case.tensors[name]
            if f"cu_seqlens_{'q' if name == 'q' else 'k'}" in case.options:
                memory = self.device.tensor(torch.zeros_like(value), f"grad_{name}")
            else:
                memory = self.device.empty(value.shape, value.dtype, f"grad_{name}")
            setattr(g, f"grad_{name}", Rows(memory.address, *memory.stride[:3]))
            results[name] = memory
        if "bias" in case.tensors:
            bias = case.tensors["bias"]
            memory = self.device.empty(bias.shape, torch.float32, "grad_bias")
            g.grad_bias = memory.address
            for name, step in zip(("batch", "head", "row", "key"), broadcast(bias), strict=True):
                setattr(g, f"grad_bias_{name}", step)
            results["bias"] = memory
        return results


def broadcast(bias: Tensor) -> list[int]:
    """Strides, 0 where all share an element."""
    return [0 if n == 1 else step for n, step in zip(bias.shape, bias.stride(), strict=True)]


def floor(dtype: torch.dtype, tf32: bool) -> float:
    """Relative error that the rule always allows.

    tf32 has 10 bits of mantissa. Tensor cores cut off the sums of float instead of rounding them: 2^-24 on average for
    each of the 3 D / 8 steps of a product made of three.
    """
    return 2e-3 if tf32 else 0.5 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 4e-6


def check(case: Case, kernels: EmulatedGradients, shift: int = 0) -> None:
    """The error rule on every gradient, and nothing found."""
    dtype = case.tensors["q"].dtype
    exact, plain = gradients(case, torch.float64), gradients(case)
    ours = kernels(case, exact["out"], exact["lse"], shift)
    for name, gradient in ours.items():
        allowed = floor(dtype, kernels.tf32)
        assert_close_to_reference(
            gradient, plain[name].to(gradient.dtype), exact[name], allowed, f"grad_{name}"
        )
