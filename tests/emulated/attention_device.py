"""Runs attention's CUDA kernels in the emulator, with the arguments of `reference.attention_general_fwd`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from emulated.harness import DeviceTensor, Emulator, Report
from suffuse.reference import attention as formula
from suffuse.testing import assert_close_to_reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # in the order of DType
UNLIMITED = 1 << 40
BIAS_NONE, BIAS_MASK, BIAS_SAME, BIAS_WIDE = range(4)
LIBRARIES = {
    torch.bfloat16: "attention",
    torch.float16: "attention_f16",
    torch.float32: "attention_f32",
}
TYPES = tuple(LIBRARIES)
# Relative error that the rule always allows; tf32 has 10 bits of mantissa.
FLOOR = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12, torch.float32: 2e-6}
FLOOR_TF32 = 2e-3


class Rows(ctypes.Structure):
    """AttentionTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "row", "head")),
    )


class Scores(ctypes.Structure):
    """AttentionScores."""

    _fields_ = (
        *(("scale", ctypes.c_double), ("softcap", ctypes.c_double), ("left", ctypes.c_int64)),
        *(("right", ctypes.c_int64), ("top_left", ctypes.c_bool), ("bias_kind", ctypes.c_int32)),
        *(("bias", ctypes.c_void_p), ("bias_batch", ctypes.c_int64), ("bias_head", ctypes.c_int64)),
        *(("bias_row", ctypes.c_int64), ("bias_key", ctypes.c_int64), ("alibi", ctypes.c_void_p)),
        *(("alibi_batch", ctypes.c_int64), ("sinks", ctypes.c_void_p)),
        *(("dropout", ctypes.c_double), ("seed", ctypes.c_void_p)),
    )


class Layout(ctypes.Structure):
    """AttentionLayout."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("q_starts", "k_starts", "q_used", "k_used", "cache_index", "left_pad")
        ),
        *(("pages", ctypes.c_void_p), ("pages_row", ctypes.c_int64), ("page", ctypes.c_int64)),
    )


class Params(ctypes.Structure):
    """AttentionParams of csrc/ops/attention/params.h, field by field."""

    _fields_ = (
        *((name, Rows) for name in ("q", "k", "v", "out")),
        *(("lse", ctypes.c_void_p), ("lse_batch", ctypes.c_int64), ("lse_head", ctypes.c_int64)),
        *((name, ctypes.c_int64) for name in ("B", "T", "S", "H", "G", "D", "Dv")),
        *(("block_rows", ctypes.c_int64), ("blocks", ctypes.c_int64)),
        *(("block_starts", ctypes.c_void_p), ("dtype", ctypes.c_int32)),
        *(("scores", Scores), ("layout", Layout)),
    )


class DecodeParams(ctypes.Structure):
    """AttentionDecodeParams of csrc/ops/attention/decode.h."""

    _fields_ = (
        *(("forward", Params), ("chunk", ctypes.c_int64), ("chunks", ctypes.c_int64)),
        ("workspace", ctypes.c_void_p),
    )


@dataclass
class Cache:
    """Where the keys of sequence b are: entry index[b], or pages [B, n] of `page` rows; the first
    left_pad[b] do not count."""

    index: Tensor | None = None
    left_pad: Tensor | None = None
    pages: Tensor | None = None


@dataclass
class EmulatedAttention:
    """A stand-in for the operators of attention; `report` is that of the last call.

    Attributes:
        general: take the kernel with all features even where they are not needed.
        shift: elements by which operands miss the start of their memory.
        cache: how k and v are laid out where they are a cache.
    """

    device: Emulator
    general: bool = False
    shift: int = 0
    cache: Cache = field(default_factory=Cache)
    report: Report | None = None

    def rows(self, value: Tensor, name: str) -> Rows:
        memory = self.device.tensor(value, name, shift=self.shift)
        batch, row, head, _ = memory.stride
        return Rows(memory.address, batch, row, head)

    def address(self, value: Tensor | None, name: str) -> int | None:
        return None if value is None else self.device.tensor(value, name).address

    def params(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        left: int = -1,
        right: int = -1,
        top_left: bool = True,
        softcap: float = 0.0,
        bias: Tensor | None = None,
        alibi_slopes: Tensor | None = None,
        sinks: Tensor | None = None,
        dropout: float = 0.0,
        seed: Tensor | None = None,
        cu_seqlens_q: Tensor | None = None,
        cu_seqlens_k: Tensor | None = None,
        seqused_q: Tensor | None = None,
        seqused_k: Tensor | None = None,
    ) -> tuple[Params, DeviceTensor, DeviceTensor]:
        p = Params(q=self.rows(q, "q"), k=self.rows(k, "k"), v=self.rows(v, "v"))
        p.B, p.T, p.H, p.D = q.shape
        p.S, p.G, p.Dv = k.shape[1], k.shape[2], v.shape[3]
        p.dtype = DTYPES.index(q.dtype)
        if cu_seqlens_q is not None:
            p.B, p.T = len(cu_seqlens_q) - 1, int(cu_seqlens_q.diff().max())
        if cu_seqlens_k is not None:
            p.S = int(cu_seqlens_k.diff().max())
        if self.cache.pages is not None:
            p.S = self.cache.pages.shape[1] * k.shape[1]
        out = self.device.empty((*q.shape[:3], p.Dv), q.dtype, "out", shift=self.shift)
        lse = self.device.empty((q.shape[0], p.H, q.shape[1]), torch.float32, "lse")
        p.out = Rows(out.address, *out.stride[:3])
        p.lse, p.lse_batch, p.lse_head = lse.address, *lse.stride[:2]
        s, layout = p.scores, p.layout
        s.scale, s.softcap, s.top_left, s.dropout = scale, softcap, top_left, dropout
        s.left, s.right = (UNLIMITED if side < 0 else side for side in (left, right))
        if bias is not None:
            shape = (p.B, p.H, q.shape[1], k.shape[1])
            memory = self.device.tensor(bias, "bias")
            strides = bias.expand(shape).stride()
            s.bias_batch, s.bias_head, s.bias_row, s.bias_key = strides
            wide = BIAS_SAME if bias.dtype == q.dtype else BIAS_WIDE
            s.bias_kind = BIAS_MASK if bias.dtype == torch.bool else wide
            s.bias = memory.address
        s.alibi, s.sinks = self.address(alibi_slopes, "alibi"), self.address(sinks, "sinks")
        s.alibi_batch = p.H if alibi_slopes is not None and alibi_slopes.dim() == 2 else 0
        s.seed = self.address(seed, "seed")
        layout.q_starts = self.address(cu_seqlens_q, "cu_seqlens_q")
        layout.k_starts = self.address(cu_seqlens_k, "cu_seqlens_k")
        layout.q_used = self.address(seqused_q, "seqused_q")
        layout.k_used = self.address(seqused_k, "seqused_k")
        layout.cache_index = self.address(self.cache.index, "cache_index")
        layout.left_pad = self.address(self.cache.left_pad, "left_pad")
        if self.cache.pages is not None:
            layout.pages = self.address(self.cache.pages, "pages")
            layout.pages_row, layout.page = self.cache.pages.shape[1], k.shape[1]
        return p, out, lse

    def __call__(self, *tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        p, out, lse = self.params(*tensors, **options)
        self.report = self.device.call("emulated_attention_fwd", p, self.general)
        return out.read(), lse.read()


@dataclass
class EmulatedDecode(EmulatedAttention):
    """The kernels of split-KV decoding. splits: of the keys, 0 for the launcher's own choice."""

    splits: int = 0

    def __call__(self, *tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        p, out, lse = self.params(*tensors, **options)
        d = DecodeParams(forward=p)
        size = self.device.function("emulated_attention_decode_floats", ctypes.c_int64)
        floats = size(ctypes.byref(d), ctypes.c_int64(self.splits))
        d.workspace = self.device.empty((floats,), torch.float32, "workspace").address
        self.report = self.device.call("emulated_attention_decode", d)
        return out.read(), lse.read()


def emulated(
    dtype: torch.dtype, seed: int = 0, mma: str = "ideal", tf32: bool = False, **options: Any
) -> EmulatedAttention:
    library = "attention_tf32" if tf32 else LIBRARIES[dtype]
    return EmulatedAttention(Emulator(library, seed=seed, mma=mma), **options)


def make(shape: Sequence[int], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v for B, T, S, H, G, D and Dv."""
    B, T, S, H, G, D, Dv = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = ((B, T, H, D), (B, S, G, D), (B, S, G, Dv))
    q, k, v = (torch.randn(size, generator=generator).to(dtype) for size in sizes)
    return q, k, v


def exact(*tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The formula in float64."""
    wide = {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in options.items()
    }
    return formula.attention_general_fwd(*(x.double() for x in tensors), **wide)


def plain(*tensors: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """What one writes without the op: every step in the inputs' dtype."""
    with mock.patch.object(formula, "_wide", lambda dtype: dtype):
        return formula.attention_general_fwd(*tensors, **options)


def check(
    attention: EmulatedAttention, *tensors: Tensor, tf32: bool = False, **options: Any
) -> None:
    """The error rule on out and lse."""
    options = {
        "scale": tensors[0].shape[3] ** -0.5,
        "left": -1,
        "right": -1,
        "top_left": True,
    } | options
    compare(
        attention(*tensors, **options), exact(*tensors, **options), plain(*tensors, **options), tf32
    )


def compare(
    got: tuple[Tensor, Tensor],
    expected: tuple[Tensor, Tensor],
    naive: tuple[Tensor, Tensor],
    tf32: bool = False,
) -> None:
    (out, lse), dtype = got, got[0].dtype
    floor = FLOOR_TF32 if tf32 else FLOOR[dtype]
    assert_close_to_reference(out, naive[0], expected[0], floor, "out")
    lse_floor = FLOOR_TF32 if tf32 else FLOOR[torch.float32]
    assert_close_to_reference(lse, naive[1].float(), expected[1], lse_floor, "lse")


def gathered(k: Tensor, used: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
    """The keys or values that count of each sequence, padded with zeros, and their numbers."""
    rows = []
    for b in range(len(used)):
        own = k[b if cache.index is None else int(cache.index[b])]
        if cache.pages is not None:
            own = k[cache.pages[b].long()].flatten(0, 1)
        pad = 0 if cache.left_pad is None else int(cache.left_pad[b])
        rows.append(own[pad : int(used[b])])
    lengths = torch.tensor([len(own) for own in rows], dtype=torch.int32)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def check_cached(
    attention: EmulatedAttention, q: Tensor, k: Tensor, v: Tensor, used: Tensor, cache: Cache,
    **options: Any,
) -> None:  # fmt: skip
    """The error rule where k and v are a cache of which each sequence has `used` rows."""
    attention.cache = cache
    options = {"scale": q.shape[3] ** -0.5, "left": -1, "right": -1, "top_left": False} | options
    got = attention(q, k, v, seqused_k=used, **options)
    (keys, lengths), (values, _) = gathered(k, used, cache), gathered(v, used, cache)
    options["seqused_k"] = lengths
    compare(got, exact(q, keys, values, **options), plain(q, keys, values, **options))
