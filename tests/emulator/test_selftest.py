"""Every detector of the emulator finds its planted bug, names its lines, and leaves right code alone."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from emulated.harness import SEEDS, Emulator, KernelError

SOURCE = Path(__file__).with_name("selftest.cpp")
KERNEL = re.compile(r"// expects: (?P<expects>.+)\n__global__ void (?P<name>\w+)\(")


class Case(NamedTuple):
    name: str
    expects: str
    sites: set[str]


def cases(source: Path = SOURCE) -> list[Case]:
    lines = source.read_text().splitlines()
    found = []
    for i, (first, second) in enumerate(itertools.pairwise(lines)):
        match = KERNEL.match(f"{first}\n{second}")
        if match:
            end = next(
                j for j in range(i + 1, len(lines)) if lines[j].endswith("}") and lines[j][0] != " "
            )
            marked = {j + 1 for j in range(i, end) if lines[j].endswith("// here")}
            sites = {f"tests/emulator/{source.name}:{line}" for line in marked}
            found.append(Case(match["name"], match["expects"], sites))
    return found


CASES = cases()
ABOUT_TRAFFIC = [case for case in CASES if case.expects.startswith(("sectors", "wavefronts"))]


def launch(name: str, seed: int):
    device = Emulator("selftest", seed=seed)
    a = device.tensor(torch.arange(256, dtype=torch.float32), "a")
    b = device.empty((256,), torch.float32, "b")
    flags = device.tensor(torch.zeros(4, dtype=torch.int32), "flags")
    return device.call("selftest", name, a, b, flags)


def test_every_case_is_launched() -> None:
    listed = re.findall(r"CASE\((\w+), \d\)", SOURCE.read_text())
    assert listed == [case.name for case in CASES]
    assert len(listed) >= 40


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_finding(case: Case, seed: int) -> None:
    if case.expects == "nothing" or case in ABOUT_TRAFFIC:
        launch(case.name, seed)
        return
    with pytest.raises(KernelError) as error:
        launch(case.name, seed)
    report = error.value.report
    assert [launch.kernel for launch in report.launches] == [case.name]
    of_kind = [finding for finding in report.findings if finding.kind == case.expects]
    assert of_kind, f"found only {report.findings}"
    named = {site for finding in of_kind for site in finding.sites} - {"?"}
    assert named == case.sites


@pytest.mark.parametrize("case", ABOUT_TRAFFIC, ids=lambda case: case.name)
def test_traffic(case: Case) -> None:
    """Times more than ideal, of the global or of the shared loads."""
    what, _, number = case.expects.partition(" ")
    counters = launch(case.name, 0).counters
    traffic = counters.global_load if what == "sectors" else counters.shared_load
    assert traffic.sectors == int(number) * traffic.ideal
