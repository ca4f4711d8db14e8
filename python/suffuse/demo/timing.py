"""The same training step with our attention and with torch's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`F.scaled_dot_product_attention` for tensors [B, T, H, D]."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def interleaved_medians(
    steps: dict[str, Callable[[], object]], *, rounds: int, warmup: int = 3
) -> dict[str, float]:
    """Median seconds of each function, called in turn so that all see the same machine.

    The order is reversed in every second round; the first `warmup` rounds do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(warmup + rounds):
        names = list(steps) if index % 2 else list(reversed(steps))
        for name in names:
            started = time.perf_counter()
            steps[name]()
            if index >= warmup:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}
