"""Prints what each kernel moves: `python tests/emulated/counters.py [pytest arguments]`.

Runs the emulated tests and keeps, of every kernel, the launch with the most accesses.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from emulated import harness  # noqa: E402
from emulated.harness import Launch, Report  # noqa: E402

TRAFFIC = (
    "global_load",
    "global_store",
    "shared_load",
    "shared_store",
    "matrix_load",
    "tensor_load",
    "tensor_store",
)
EVENTS = ("mma", "wgmma", "shuffles", "votes", "atomics", "copies", "barriers")


def row(launch: Launch) -> str:
    counters = launch.counters
    moved = [
        f"{name.replace('_', ' ')} {t.sectors}/{t.ideal}"
        + (f" ({t.distinct} distinct)" if t.distinct else "")
        for name in TRAFFIC
        if (t := getattr(counters, name)).sectors
    ]
    events = [f"{getattr(counters, name)} {name}" for name in EVENTS if getattr(counters, name)]
    return f"| `{launch.kernel}` | {launch.shape} | {', '.join(moved)} | {', '.join(events)} |"


def main() -> int:
    largest: dict[str, Launch] = {}
    read = harness.Emulator.report

    def remember(device: harness.Emulator) -> Report:
        report = read(device)
        for launch in report.launches:
            known = largest.get(launch.kernel)
            if known is None or launch.counters.accesses > known.counters.accesses:
                largest[launch.kernel] = launch
        return report

    harness.Emulator.report = remember  # type: ignore[method-assign]
    tests = sys.argv[1:] or [
        str(path) for path in sorted(HERE.glob("test_*.py")) if path.stem != "test_mutants"
    ]
    code = pytest.main(["-q", "--no-header", *tests])
    print("| kernel | launch | sectors or wavefronts / ideal | instructions |\n|---|---|---|---|")
    print("\n".join(row(launch) for _, launch in sorted(largest.items())))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
