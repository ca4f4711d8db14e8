"""What the features of attention cost: `python -m benchmarks.attention [--threads 1] [--dtype float32]`.

Ratios between calls that take turns: a feature against the plain call, a window and packed sequences against their
share of the dense work, head dimensions against each other. Before anything is timed, each kind of call must agree with
the reference on a short sequence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import suffuse
from benchmarks.timing import interleaved_medians
from suffuse.reference.attention import attention as reference

Options = dict[str, Any]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
DIMS = (32, 40, 64, 80, 96, 128, 160, 192, 256)


def tensors(length: int, heads: int, dim: int, dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(1, length, heads, dim).to(dtype) for _ in range(3)]


def features(length: int, heads: int, dtype: torch.dtype) -> dict[str, Options]:
    """Name -> options of the call; the first is the plain one."""
    shape = (1, heads, length, length)
    return {
        "plain": {},
        "causal": {"causal": True},
        "bias": {"bias": torch.randn(shape).to(dtype)},
        "bias for all heads": {"bias": torch.randn(1, 1, *shape[2:]).to(dtype)},
        "bias by key": {"bias": torch.randn(1, 1, 1, length).to(dtype)},
        "mask": {"bias": torch.rand(shape) > 0.2},
        "mask by key": {"bias": torch.rand(1, 1, 1, length) > 0.2},
        "ALiBi": {"alibi_slopes": 2.0 ** -(torch.arange(heads) + 1.0)},
        "softcap": {"softcap": 30.0},
        "sinks": {"sinks": torch.randn(heads)},
        "dropout": {"dropout": 0.1, "seed": 1},
    }


def must_agree(dtype: torch.dtype) -> None:
    """Exits where a kind of call differs from the reference."""
    q, k, v = tensors(200, 4, 64, dtype)
    calls = features(200, 4, dtype) | {
        "window": {"window": (40, 10)},
        "packed": {f"cu_seqlens_{x}": torch.tensor([0, 60, 200]).int() for x in "qk"},
    }
    for name, options in calls.items():
        versions: tuple[Callable[..., Tensor], ...] = (suffuse.attention, reference)  # type: ignore[assignment]
        out, exact = (f(q, k, v, **options).double() for f in versions)
        error = float((out - exact).norm() / exact.norm())
        if not error <= TOLERANCES[dtype]:
            sys.exit(f"{name}: relative difference {error:.1e} to the reference")


def call(inputs: list[Tensor], options: Options, backward: bool) -> Callable[[], object]:
    if not backward:
        return lambda: suffuse.attention(*inputs, **options)
    leaves = [x.detach().requires_grad_() for x in inputs]
    grad = torch.randn_like(inputs[0])
    return lambda: torch.autograd.grad(suffuse.attention(*leaves, **options), leaves, grad)


def feature_table(dtype: torch.dtype, backward: bool, rounds: int) -> None:
    length, heads, dim = 1024, 8, 64
    inputs = tensors(length, heads, dim, dtype)
    functions = {
        name: call(inputs, options, backward)
        for name, options in features(length, heads, dtype).items()
    }
    took = interleaved_medians(functions, rounds=rounds)
    print(
        f"\n{_pass(backward)}, B1 T{length} H{heads} D{dim}: time, and its ratio to the plain call"
    )
    for name, seconds in took.items():
        print(f"  {name:20} {seconds * 1e3:8.2f} ms {seconds / took['plain']:6.2f}")


def window_table(dtype: torch.dtype, backward: bool, rounds: int) -> None:
    length, heads, dim = 8192, 2, 64
    inputs = tensors(length, heads, dim, dtype)
    windows = {"dense": (-1, -1), "255, 0": (255, 0), "128, 127": (128, 127), "1023, 0": (1023, 0)}
    functions = {n: call(inputs, {"window": w}, backward) for n, w in windows.items()}
    took = interleaved_medians(functions, rounds=rounds)
    print(f"\n{_pass(backward)}, window at T{length} H{heads} D{dim}: time over its share of dense")
    for name, (left, right) in windows.items():
        position = torch.arange(length)
        first = (position - left).clamp(min=0) if left >= 0 else 0
        last = (position + right).clamp(max=length - 1) if right >= 0 else length - 1
        pairs = (last - first + 1) * torch.ones_like(position)
        share = float(pairs.sum()) / length**2
        print(f"  {name:20} {took[name] * 1e3:8.2f} ms {took[name] / took['dense'] / share:6.2f}")


def packed_table(dtype: torch.dtype, backward: bool, rounds: int) -> None:
    heads, dim, longest = 4, 64, 2048
    lengths = torch.randint(1, longest + 1, (12,), generator=torch.Generator().manual_seed(0))
    offsets = torch.cat((torch.zeros(1), lengths.cumsum(0))).int()
    packed = tensors(int(offsets[-1]), heads, dim, dtype)
    dense = tensors(longest, heads, dim, dtype)
    layout = {"cu_seqlens_q": offsets, "cu_seqlens_k": offsets, "max_seqlen_q": longest}
    took = interleaved_medians(
        {"dense": call(dense, {}, backward), "packed": call(packed, layout, backward)},
        rounds=rounds,
    )
    work = float(lengths.double().square().sum()) / longest**2
    print(
        f"\n{_pass(backward)}, 12 sequences of 1 .. {longest}: time of the same work, packed / dense"
    )
    print(f"  {took['packed'] / took['dense'] / work:.2f}")


def dimension_table(dtype: torch.dtype, backward: bool, rounds: int) -> None:
    length, heads = 1024, 4
    took = interleaved_medians(
        {str(d): call(tensors(length, heads, d, dtype), {}, backward) for d in DIMS}, rounds=rounds
    )
    print(f"\n{_pass(backward)}, head dimensions at T{length} H{heads}: GFLOP/s")
    for d in DIMS:
        flops = (14 if backward else 4) * length**2 * heads * d
        print(f"  D {d:3} {flops / took[str(d)] / 1e9:8.0f}")


def _pass(backward: bool) -> str:
    return "forward and backward" if backward else "forward"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.attention", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dtype = DTYPES[options.dtype]
    must_agree(dtype)
    print(f"{options.dtype}, {options.threads} threads")
    for backward in (False, True):
        for table in (feature_table, window_table, packed_table, dimension_table):
            table(dtype, backward, options.rounds)


if __name__ == "__main__":
    main()
