"""The cubins of every CUDA source: what they are made of, that they compile everywhere, and how long it takes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import cubin_build
import cubin_read
import kernel_table
import pytest
from cubin_build import Cubin
from cubin_read import Kernel
from kernel_table import Table

SOURCES = cubin_build.source_names()
REGISTERS = 65536  # of a multiprocessor, and so the most of a block
MANY_REGISTERS = 128  # beyond, a multiprocessor holds fewer than 512 threads
SECONDS = 60  # the most that one file may take for the product's architectures
UPDATE = "if it is meant, run `python tests/cuda/kernel_table.py` and review its difference"


def need(tool: Callable[[], object]) -> None:
    """Skips where a tool is missing, in one line; continuous integration has to have them."""
    try:
        tool()
    except cubin_build.CannotBuild as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"static checks of the CUDA kernels: {reason}")


@pytest.fixture(scope="session")
def built() -> dict[str, list[Cubin] | str]:
    need(cubin_build.nvcc)
    return cubin_build.compile_all(SOURCES, cubin_build.product_archs())


@pytest.fixture(params=SOURCES)
def cubins(request: pytest.FixtureRequest, built: dict[str, list[Cubin] | str]) -> list[Cubin]:
    """Of one source, for the product's architectures."""
    found = built[request.param]
    if isinstance(found, str):
        pytest.fail(found, pytrace=False)
    return found


@pytest.fixture
def kernels(cubins: list[Cubin]) -> list[Kernel]:
    need(cubin_read.disassembler)
    return cubin_read.read_all(cubins)


@pytest.fixture(scope="session")
def table() -> Table:
    return kernel_table.read(kernel_table.TABLE.read_text())


def complaints(cubin: Cubin) -> list[str]:
    """What ptxas warns of or, as information with a number, advises against.

    Spills, local memory, products of a warpgroup that cannot overlap, setmaxnreg that it ignores.
    """
    return [
        f"{cubin.source} {cubin.arch}: {line}"
        for line in cubin.log.splitlines()
        if re.search(r"\bwarning\b|\(C\d+\)", line)
    ]


def test_the_compiler_has_no_complaint(cubins: list[Cubin]) -> None:
    found = [text for cubin in cubins for text in complaints(cubin)]
    assert not found, "\n".join(found)


def findings(kernel: Kernel) -> list[str]:
    """What no kernel may do."""
    local = sum(n for word, n in kernel.counts.items() if word.startswith(("LDL", "STL")))
    registers = kernel_table.row_of(kernel).registers
    found = {
        f"spills {kernel.spills} bytes of registers": kernel.spills,
        f"has a stack of {kernel.stack} bytes": kernel.stack,
        f"accesses local memory in {local} instructions": local,
        f"has {kernel.static_shared} bytes of static shared memory": kernel.static_shared,
        "states no __launch_bounds__": kernel.threads == 0,
        f"needs {registers} registers for each of {kernel.threads} threads, {REGISTERS} in all":
        registers * kernel.threads > REGISTERS,
    }  # fmt: skip
    return [f"{kernel.name} {kernel.arch} {text}" for text, is_so in found.items() if is_so]


def unusual(kernel: Kernel) -> list[str]:
    """What wants a reason in the table's notes."""
    unknown = sum(n for word, n in kernel.counts.items() if word.startswith(("LD.", "ST.")))
    found = {
        "traps": kernel.traps,
        f"uses {kernel.registers} registers": kernel.registers > MANY_REGISTERS,
        f"has {unknown} accesses to memory unknown at compile time": unknown,
    }
    return [text for text, is_so in found.items() if is_so]


def test_kernels_keep_the_rules(kernels: list[Kernel]) -> None:
    broken = [text for kernel in kernels for text in findings(kernel)]
    assert not broken, "\n".join(broken)


def test_kernels_are_as_in_the_table(kernels: list[Kernel], table: Table) -> None:
    found = kernel_table.measured(kernels)
    if table.release != found.release:
        pytest.skip(f"kernels.md is of nvcc {table.release}, this is {found.release}: not compared")
    expected = kernel_table.part_of(table, [kernel.source for kernel in kernels])
    differences = kernel_table.compare(expected, found)
    assert not differences, "\n".join([*differences, UPDATE])


def test_the_table_has_no_other_sources(table: Table) -> None:
    assert {*table.notes, *(source for source, _, _ in table.rows)} <= set(SOURCES)


def test_what_is_unusual_has_a_reason(kernels: list[Kernel], table: Table) -> None:
    bare = [
        f"{kernel.source}: {kernel.name} {kernel.arch} {text}: write a note, "
        f"- `{kernel.family}` {kernel.arch}: why"
        for kernel in kernels
        for text in unusual(kernel)
        if not kernel_table.has_note(table, kernel)
    ]
    assert not bare, "\n".join(bare)


def test_notes_are_of_kernels_in_the_table(table: Table) -> None:
    lost = []
    for source, notes in table.notes.items():
        names = {name for of, name, _ in table.rows if of == source}
        names |= {name.split("<")[0] for name in names}
        for line in notes:
            note = kernel_table.NOTE.fullmatch(line)
            if note is None or note[1] not in names:
                lost.append(f"{source}: {line}")
    assert not lost, "\n".join(["not `- `kernel` arch: reason` of a kernel there:", *lost])


@pytest.mark.parametrize("arch", cubin_build.OTHER_ARCHS)
def test_compiles_for(arch: str) -> None:
    need(cubin_build.nvcc)
    if not cubin_build.known_archs([arch]):
        pytest.skip(f"nvcc {cubin_build.nvcc()[1]} does not know {arch}")
    # Of files that differ in the element type alone, one with 16 and one with 32 bits stand for all.
    names = [name for name in SOURCES if not re.search(r"/(forward|backward)_(f16|tf32)", name)]
    results = cubin_build.compile_all(names, [arch]).values()
    failures = [text for text in results if isinstance(text, str)]
    assert not failures, "\n".join(failures)


def test_sources_of_sm_90a_are_compiled_for_nothing_else() -> None:
    names = [name for name in SOURCES if re.search(r"^csrc/.*_sm90\.cu$", name)]
    assert names and 'EXCLUDE REGEX "_sm90\\\\.cu$"' in cubin_build.cmake_text()
    for name in names:
        archs = [arch for arch in ("sm_80", "sm_86", "sm_90a") if cubin_build.has_arch(name, arch)]
        assert archs == ["sm_90a"]
    assert cubin_build.has_arch("tests/cuda/kernels_sm90.cu", "sm_80")  # there they have to trap


def test_no_file_compiles_long(
    built: dict[str, list[Cubin] | str], record_property: Callable[[str, object], None]
) -> None:
    seconds = {
        name: sum(cubin.seconds for cubin in cubins)
        for name, cubins in built.items()
        if isinstance(cubins, list)
    }
    slowest = sorted(seconds.items(), key=lambda item: -item[1])
    archs = " and ".join(cubin_build.product_archs())
    lines = [f"slowest CUDA sources, processor seconds for {archs} (0: from ccache):"]
    lines += [f"{time:7.1f}  {source}" for source, time in slowest[:10]]
    record_property("summary", "\n".join(lines))
    assert slowest[0][1] <= SECONDS, "\n".join(lines)
