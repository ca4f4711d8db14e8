"""Times the registered cases: `python -m benchmarks.run [--op attention] [--threads 1] [--json FILE]`.

Every case is checked against its peers before it is timed; a case whose results disagree is not timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.registry import Case, cases
from benchmarks.timing import copy_bandwidth, interleaved_medians, matmul_flops
from suffuse import info


def measure(case: Case, device: str, rounds: int) -> dict[str, Any]:
    functions = case.make(device)
    disagreement = case.check(functions) if case.check else None
    if disagreement:
        return {"op": case.op, "case": case.name, "error": disagreement}
    medians = interleaved_medians(functions, rounds=rounds, device=device)
    ours = medians["suffuse"]
    return {
        "op": case.op,
        "case": case.name,
        "microseconds": {name: value * 1e6 for name, value in medians.items()},
        "times_peer": {n: value / ours for n, value in medians.items() if n != "suffuse"},
        "gflops": case.flops / ours / 1e9 if case.flops else None,
        "gbytes": case.bytes / ours / 1e9 if case.bytes else None,
    }


def add_shares(row: dict[str, Any], case: Case, device: str, ceilings: dict[str, float]) -> None:
    """Share of the machine's ceiling: multiply-adds for compute-bound cases, copies for the others."""
    if row.get("gflops") and case.dtype is not None:
        key = f"matmul {case.dtype}"
        if key not in ceilings:
            ceilings[key] = matmul_flops(case.dtype, device) / 1e9
        row["share"], row["ceiling"] = (
            row["gflops"] / ceilings[key],
            f"{key} {ceilings[key]:.0f} GFLOP/s",
        )
    elif row.get("gbytes"):
        key = f"copy {case.bytes / 2**20:.3g} MiB"
        if key not in ceilings:
            ceilings[key] = copy_bandwidth(int(case.bytes / 2), device) / 1e9
        row["share"], row["ceiling"] = (
            row["gbytes"] / ceilings[key],
            f"{key} {ceilings[key]:.1f} GB/s",
        )


def show(row: dict[str, Any]) -> str:
    head = f"{row['op']:14s} {row['case']:44s}"
    if "error" in row:
        return f"{head} NOT TIMED: {row['error']}"
    rate = (
        f"{row['gflops']:8.1f} GFLOP/s" if row["gflops"] else f"{row['gbytes'] or 0:8.1f} GB/s   "
    )
    share = f"{100 * row['share']:4.0f} % of {row['ceiling']}" if "share" in row else ""
    peers = "  ".join(f"{ratio:.2f}x {name}" for name, ratio in row["times_peer"].items())
    return f"{head} {row['microseconds']['suffuse']:10.1f} us {rate}  {share:42s} {peers}"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--op", help="only this op")
    parser.add_argument("--case", help="only cases whose name contains this text")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds to take medians of")
    parser.add_argument("--json", type=Path, help="write the results and the machine's facts here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    rows, ceilings = [], {}
    for case in cases():
        if options.op not in (None, case.op) or (options.case and options.case not in case.name):
            continue
        row = measure(case, options.device, options.rounds)
        if "error" not in row:
            add_shares(row, case, options.device, ceilings)
        rows.append(row)
        print(show(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": info.report(), "results": rows}, indent=1))
    return 1 if any("error" in row for row in rows) or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
