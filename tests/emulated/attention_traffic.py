"""What attention's CUDA kernels move between the caches and the multiprocessors, beside what their tiling predicts.

`python tests/cuda/attention_bounds.py` writes it into docs/attention-cuda.md.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from ops.attention_cases import Case
from ops.attention_cases import make as make_case

from emulated import attention_backward_device as backward
from emulated.attention_device import LIBRARIES, EmulatedAttention, EmulatedDecode, exact, make
from emulated.harness import Emulator, Launch

HEADS, QUERIES, KEYS = 2, 512, 512


class Moved(NamedTuple):
    """Bytes of one launch: those that it reads, and those that its tiles must read."""

    kernel: str
    shape: str
    loaded: int
    predicted: int
    stored: int
    results: int  # bytes of what it writes


def blocks_of(launch: Launch) -> int:
    found = re.match(r"grid (\d+)x", launch.shape)
    assert found is not None
    return int(found[1])


def moved(name: str, shape: str, launch: Launch, predicted: int, results: int) -> Moved:
    """Sectors of 32 bytes, those of asynchronous copies among them."""
    counters = launch.counters
    loaded, stored = (32 * t.sectors for t in (counters.global_load, counters.global_store))
    return Moved(name, shape, loaded, predicted, stored, results)


def forward(dtype: torch.dtype, D: int) -> Moved:
    """Each block reads its queries, and all keys and values."""
    attention = EmulatedAttention(Emulator(LIBRARIES[dtype]))
    q, k, v = make((1, QUERIES, KEYS, HEADS, HEADS, D, D), dtype)
    attention(q, k, v, scale=D**-0.5)
    assert attention.report is not None
    launch = attention.report.launches[0]
    predicted = q.nbytes + blocks_of(launch) * (k.nbytes + v.nbytes) // HEADS
    shape = f"T {QUERIES}, S {KEYS}, H {HEADS}, D {D}"
    return moved("forward", shape, launch, predicted, q.nbytes + 4 * HEADS * QUERIES)


def gradients(dtype: torch.dtype, D: int) -> list[Moved]:
    """Each block reads its own rows of two tensors and all rows of two others; rows of queries come
    with two numbers."""
    case: Case = make_case(1, QUERIES, KEYS, HEADS, HEADS, D, D, dtype)
    q, k, v = (case.tensors[name] for name in "qkv")
    out, lse = exact(q, k, v, scale=D**-0.5, left=-1, right=-1, top_left=True)
    kernels = backward.EmulatedGradients(Emulator(backward.LIBRARIES[dtype]))
    kernels(case, out, lse)
    delta, keys, queries = kernels.report.launches
    pair, numbers = q.nbytes + case.grad_out.nbytes, 8 * HEADS * QUERIES
    shape = f"T {QUERIES}, S {KEYS}, H {HEADS}, D {D}"
    own = k.nbytes + v.nbytes
    return [
        moved("rowsum(dO O)", shape, delta, pair + numbers, numbers),
        moved("dK and dV", shape, keys, own + blocks_of(keys) * (pair + numbers) // HEADS, own),
        moved("dQ", shape, queries, pair + numbers + blocks_of(queries) * own // HEADS, q.nbytes),
    ]


def decoding(dtype: torch.dtype, D: int) -> Moved:
    """Each key and value is read once for the eight heads that share it, the queries once for each chunk."""
    groups, heads, keys, splits = 2, 16, 1024, 4
    attention = EmulatedDecode(Emulator(LIBRARIES[dtype]), splits=splits)
    q, k, v = make((1, 1, keys, heads, groups, D, D), dtype)
    attention(q, k, v, scale=D**-0.5, right=0, top_left=False)
    assert attention.report is not None
    launch = attention.report.launches[0]
    parts = splits * heads * (D + 2) * 4
    shape = f"S {keys}, H {heads}, G {groups}, D {D}, {splits} chunks"
    return moved("decoding", shape, launch, k.nbytes + v.nbytes + splits * q.nbytes, parts)


def measured() -> dict[str, list[Moved]]:
    found: dict[str, list[Moved]] = {}
    for dtype in (torch.bfloat16, torch.float32):
        rows = found.setdefault(str(dtype).removeprefix("torch."), [])
        for D in (64, 128):
            rows += [forward(dtype, D), *gradients(dtype, D), decoding(dtype, D)]
    return found


HEADER = """\
| kernel | of | read | by the tiling | | written | results | |
|---|---|---:|---:|---:|---:|---:|---:|"""


def table() -> str:
    """In kB; a launch's bytes over what is predicted."""
    lines = [HEADER]
    for dtype, rows in measured().items():
        for m in rows:
            numbers = (m.loaded, m.predicted, m.stored, m.results)
            loaded, predicted, stored, results = (f"{n / 1000:.1f}" for n in numbers)
            ratios = (f"{m.loaded / m.predicted:.3f}", f"{m.stored / m.results:.3f}")
            lines.append(
                f"| {m.kernel}, {dtype} | {m.shape} | {loaded} | {predicted} | {ratios[0]} | "
                f"{stored} | {results} | {ratios[1]} |"
            )
    return "\n".join(lines)
