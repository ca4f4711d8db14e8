"""Runs attention's sm_90a kernel in the emulator, and what its tiling moves."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from emulated.attention_device import EmulatedAttention, Params
from emulated.harness import CountersError, Emulator

LIBRARIES = {torch.bfloat16: "attention_sm90", torch.float16: "attention_sm90_f16"}
TYPES = tuple(LIBRARIES)


def emulated(
    dtype: torch.dtype, seed: int = 0, mma: str = "ideal", **options: Any
) -> EmulatedAttention:
    return EmulatedAttention(Emulator(LIBRARIES[dtype], seed=seed, mma=mma), **options)


def sm90_head(p: Params, capability: int) -> int:
    """attention_sm90_head of csrc/ops/attention/cuda/config_sm90.h."""
    device = Emulator(LIBRARIES[torch.bfloat16])
    head = device.function("emulated_attention_sm90_head", ctypes.c_int64)
    return head(ctypes.byref(p), ctypes.c_int64(capability))


def tile_counts(T: int, S: int, D: int, causal: bool) -> tuple[int, int]:
    """Tiles of keys that all blocks of queries load, and that all warpgroups multiply."""
    rows, keys = (192 if D <= 64 else 128), (64 if D > 128 else 128)

    def tiles(step: int) -> int:
        ends = [min(S, start + step) if causal else S for start in range(0, T, step)]
        return sum(-(-end // keys) for end in ends)

    return tiles(rows), tiles(64)


def check_traffic(counters: Any, loaded: int, stored: int) -> None:
    """Bytes that TMA moves, in whole sectors, and no bank conflict.

    Raises:
        CountersError: more.
    """
    for name, bytes_ in (("tensor_load", loaded), ("tensor_store", stored)):
        traffic = getattr(counters, name)
        if traffic.sectors != traffic.ideal:
            raise CountersError(f"{name}: {traffic.sectors} sectors, ideal are {traffic.ideal}")
        if traffic.bytes != bytes_:
            raise CountersError(f"{name}: {traffic.bytes} bytes, {bytes_} are needed")
    for name in ("shared_load", "shared_store", "global_store"):
        traffic = getattr(counters, name)
        if traffic.sectors != traffic.ideal:
            raise CountersError(f"{name}: {traffic.sectors}, ideal are {traffic.ideal}")
    if counters.global_load.requests:
        raise CountersError("tensors are read by other than TMA")
