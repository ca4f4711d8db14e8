"""Bugs planted in copies of the project's kernels are caught, each as its entry says, with file and line."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from emulated import build, mutants
from emulated.harness import SEEDS, Emulator
from emulated.mutants import Mutant

NAMES = sorted(path.stem for path in Path(mutants.__file__).parent.glob("[a-z]*.py"))
ALL: list[Mutant] = [
    mutant
    for name in NAMES
    for mutant in importlib.import_module(f"emulated.mutants.{name}").MUTANTS
]
CASES = {f"{m.library}-{m.case.__name__}": m for m in ALL}


@pytest.mark.parametrize("mutant", ALL, ids=[f"{m.library}: {m.name}" for m in ALL])
def test_mutant_is_caught(mutant: Mutant) -> None:
    print(f"{mutant.name}\n  {mutant.file}\n  {mutants.check(mutant)}")


@pytest.mark.parametrize("mutant", CASES.values(), ids=CASES.keys())
def test_case_passes_without_the_bug(mutant: Mutant) -> None:
    for seed in SEEDS:
        mutant.case(Emulator(mutant.library, seed=seed))


def test_list_of_mutants(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{m.library:14} {m.caught_by:24} {m.name} ({m.file})" for m in ALL]
    with capsys.disabled():
        print(f"\n{len(ALL)} planted bugs:", *rows, sep="\n  ")
    assert len({(m.library, m.name) for m in ALL}) == len(ALL), "two mutants of one name"
    assert len(ALL) >= 25


def test_a_text_that_is_not_there_is_an_error() -> None:
    mutant = ALL[0]._replace(old="no such text anywhere")
    with pytest.raises(AssertionError, match="occurs 0 times"):
        mutants.mutated(mutant)


def test_a_mutant_that_changes_nothing_is_not_caught() -> None:
    mutant = ALL[0]._replace(new=ALL[0].old + " ")
    assert (build.ROOT / mutant.file).read_text().count(mutant.old) == 1
    with pytest.raises(AssertionError, match=r"expected .*, got"):
        mutants.check(mutant)
