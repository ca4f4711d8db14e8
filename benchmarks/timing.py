"""Interleaved medians, and the machine's two ceilings measured in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds_per_call(function: Callable[[], object], calls: int, synchronise: bool) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if synchronise:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def interleaved_medians(
    functions: dict[str, Callable[[], object]],
    *,
    rounds: int = 15,
    seconds_per_round: float = 0.02,
    device: str = "cpu",
) -> dict[str, float]:
    """Median seconds a call of each function.

    The functions take turns in every round, so that a noisy neighbour or a change of clock hits all of
    them alike: ratios within one result are what to trust.

    Args:
        functions: name -> function without arguments.
        rounds: rounds to take the median of.
        seconds_per_round: each function is repeated inside a round for about this long.
        device: "cuda" waits for the device at the end of every measurement.
    """
    wait = device == "cuda"
    calls = {}
    for name, function in functions.items():
        seconds_per_call(function, 2, wait)
        once = seconds_per_call(function, 1, wait)
        calls[name] = max(1, min(100_000, int(seconds_per_round / max(once, 1e-7))))
        seconds_per_call(function, calls[name], wait)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds_per_call(function, calls[name], wait))
    return {name: statistics.median(values) for name, values in times.items()}


def copy_bandwidth(bytes_each: int, device: str = "cpu") -> float:
    """Bytes a second (read plus written) of torch's copy into a buffer of this size that is there already."""
    source = torch.randn(max(1024, bytes_each // 4), device=device)
    target = torch.empty_like(source)
    medians = interleaved_medians({"copy": lambda: target.copy_(source)}, device=device)
    return 2 * source.numel() * 4 / medians["copy"]


def matmul_flops(dtype: torch.dtype, device: str = "cpu") -> float:
    """FLOP/s of a large square matrix product: the practical multiply-add ceiling of this machine."""
    n = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    medians = interleaved_medians({"mm": lambda: torch.mm(a, b, out=out)}, device=device)
    return 2 * n**3 / medians["mm"]
