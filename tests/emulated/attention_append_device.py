"""Runs the CUDA kernel that writes to a cache in the emulator, with the arguments of `attention_append`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from torch import Tensor

from emulated.attention_device import DTYPES, Layout, Rows
from emulated.harness import Emulator, Report


class Params(ctypes.Structure):
    """AttentionAppendParams of csrc/ops/attention/append.h, field by field."""

    _fields_ = (
        *((name, Rows) for name in ("k", "v", "k_cache", "v_cache")),
        *((name, ctypes.c_int64) for name in ("B", "T", "G", "D", "Dv", "entries", "room")),
        *(("layout", Layout), ("dtype", ctypes.c_int32)),
    )


@dataclass
class EmulatedAppend:
    """A stand-in for `suffuse.ops.attention_append`; `report` is that of the last call.

    Attributes:
        shift: elements by which all tensors miss the start of their memory.
    """

    device: Emulator
    shift: int = 0
    report: Report | None = None

    def __call__(
        self,
        k_cache: Tensor,
        v_cache: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        cache_seqlens: Tensor,
        cache_index: Tensor | None = None,
        block_table: Tensor | None = None,
    ) -> None:
        tensors = {"k": k, "v": v, "k_cache": k_cache, "v_cache": v_cache}
        memory = {n: self.device.tensor(x, n, shift=self.shift) for n, x in tensors.items()}
        p = Params(**{n: Rows(m.address, *m.stride[:3]) for n, m in memory.items()})
        p.B, p.T, p.G, p.D = k.shape
        p.Dv, p.dtype = v.shape[3], DTYPES.index(k.dtype)
        p.entries, p.room = k_cache.shape[:2]
        p.layout.k_used = self.device.tensor(cache_seqlens, "cache_seqlens").address
        if cache_index is not None:
            p.layout.cache_index = self.device.tensor(cache_index, "cache_index").address
        if block_table is not None:
            p.layout.pages = self.device.tensor(block_table, "block_table").address
            p.layout.pages_row, p.layout.page = block_table.shape[1], k_cache.shape[1]
            p.room = block_table.shape[1] * k_cache.shape[1]
        self.report = self.device.call("emulated_attention_append", p)
        k_cache.copy_(memory["k_cache"].read())
        v_cache.copy_(memory["v_cache"].read())
