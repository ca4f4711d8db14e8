"""The same as test_selftest.py for the words of sm_90a."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from emulated.harness import SEEDS, Emulator, KernelError
from emulator.test_selftest import Case, cases

PARTS = ("mbarrier", "tma_load", "tma_store", "wgmma_registers", "wgmma_operands")
SOURCES = [Path(__file__).with_name(f"selftest_{part}.cpp") for part in PARTS]
CASES = [(source, case) for source in SOURCES for case in cases(source)]


def launch(source: Path, case: Case, seed: int) -> None:
    device = Emulator(source.stem, seed=seed)
    matrix = torch.arange(128 * 128, dtype=torch.float32).reshape(128, 128).bfloat16()
    a = device.tensor(matrix, "in")
    b = device.empty((128, 128), torch.bfloat16, "out")
    results = device.empty((256,), torch.float32, "results")
    device.call(source.stem, case.name, a, b, results)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_case_is_launched(source: Path) -> None:
    listed = re.findall(r"CASE\((\w+), \d+\)", source.read_text())
    assert listed == [case.name for case in cases(source)]
    assert len(listed) >= 10


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("source, case", CASES, ids=[case.name for _, case in CASES])
def test_finding(source: Path, case: Case, seed: int) -> None:
    if case.expects == "nothing":
        launch(source, case, seed)
        return
    with pytest.raises(KernelError) as error:
        launch(source, case, seed)
    report = error.value.report
    assert [launch.kernel for launch in report.launches] == [case.name]
    of_kind = [f for f in report.findings if re.fullmatch(case.expects, f.kind)]
    assert of_kind, f"found only {report.findings}"
    here = f"tests/emulator/{source.name}:"
    named = {site for f in of_kind for site in f.sites if site.startswith(here)}
    assert named == case.sites
