"""The static checks see what they are for: planted bugs, and tables that are not as they should be."""

from __future__ import annotations

import re
from dataclasses import replace

import cubin_build
import cubin_read
import kernel_table
import pytest
from cubin_build import Cubin
from cubin_read import Kernel, counted_as, short_name
from kernel_table import Row, Table
from test_static import complaints, findings, need, unusual

PLANTED = cubin_build.HERE / "planted.cu"


@pytest.fixture(scope="module", params=cubin_build.product_archs())
def cubin(request: pytest.FixtureRequest) -> Cubin:
    need(cubin_build.nvcc)
    return cubin_build.compile_cubin(PLANTED, request.param)


@pytest.fixture(scope="module")
def planted(cubin: Cubin) -> dict[str, Kernel]:
    need(cubin_read.disassembler)
    return {kernel.name: kernel for kernel in cubin_read.read_kernels(cubin)}


def test_complaints_of_the_compiler_are_found(cubin: Cubin) -> None:
    found = "\n".join(complaints(cubin))
    assert re.search(r"Registers are spilled to local memory in function \S+spilling", found)
    assert re.search(r"Local memory used for function \S+indexing", found)
    serialized = re.search(r"wgmma.mma_async instructions are serialized .*serialized", found)
    assert bool(serialized) == (cubin.arch == "sm_90a")


def test_planted_bugs_are_found(planted: dict[str, Kernel]) -> None:
    texts = {name: " ".join(findings(kernel)) for name, kernel in planted.items()}
    assert "spills" in texts["spilling<128>"] and "stack" in texts["spilling<128>"]
    assert "accesses local memory" in texts["spilling<128>"]
    assert "has a stack of 64 bytes" in texts["indexing"] and "spills" not in texts["indexing"]
    assert "bytes of static shared memory" in texts["static_shared"]
    assert "states no __launch_bounds__" in texts["unbounded"]
    assert unusual(planted["trapping"]) == ["traps"]
    assert texts["counted"] == texts["trapping"] == ""


def test_instructions_are_counted(planted: dict[str, Kernel]) -> None:
    kernel = planted["counted"]
    counts = kernel_table.row_of(kernel).counts
    wanted = {"LDG.128": 1, "STG.128": 1, "SHFL.BFLY": 1, "MUFU.EX2": 1, "RED": 1}
    assert {word: counts.get(word, 0) for word in wanted} == wanted
    assert kernel.threads == 128 and 0 < kernel.registers <= 32


def test_too_many_registers_for_the_block() -> None:
    kernel = Kernel("k", "k", "sm_80", "k.cu", registers=129, threads=512)
    assert findings(kernel) == ["k sm_80 needs 136 registers for each of 512 threads, 65536 in all"]
    kernel.registers = 128
    assert findings(kernel) == []


@pytest.mark.parametrize(
    ("opcode", "word"),
    [
        ("LDG.E.128.CONSTANT", "LDG.128"),
        ("LDG.E.LTC128B.64", "LDG.64"),
        ("LDG.E.U16", "LDG.16"),
        ("STG.E", "STG.32"),
        ("STG.E.EF.128", "STG.128"),
        ("LDGSTS.E.BYPASS.LTC128B.128", "LDGSTS.128"),
        ("LDSM.16.MT88.4", "LDSM.16.MT88.4"),
        ("HMMA.16816.F32.BF16", "HMMA.16816.F32.BF16"),
        ("HGMMA.64x128x16.F32.BF16", "HGMMA.64x128x16.F32.BF16"),
        ("SYNCS.PHASECHK.TRANS64.TRYWAIT", "SYNCS.PHASECHK"),
        ("UTMALDG.2D", "UTMALDG.2D"),
        ("BAR.SYNC.DEFER_BLOCKING", "BAR.SYNC"),
        ("ATOMS.POPC.INC.32", "ATOMS"),
        ("RED.E.ADD.F32.FTZ.RN.STRONG.GPU", "RED"),
        ("REDG.E.ADD.F32.FTZ.RN.STRONG.GPU", "RED"),
        ("ATOMG.E.ADD.STRONG.GPU", "ATOM"),
        ("MUFU.EX2", "MUFU.EX2"),
        ("FFMA", None),
        ("LDC.64", None),
    ],
)
def test_how_an_instruction_is_counted(opcode: str, word: str | None) -> None:
    assert counted_as(opcode) == word


@pytest.mark.parametrize(
    ("demangled", "name"),
    [
        ("void suffuse::k<suffuse::float16, (suffuse::Major)1, (int)4, 8>(suffuse::P)",
         "k<float16, 1, 4, 8>"),
        ("suffuse::plain(float*)", "plain"),
        ("void suffuse::f<unsigned long long, true>(int (*)(float))", "f<uint64_t, true>"),
        ("void suffuse::(anonymous namespace)::f<suffuse::A<int>, -3>(P)", "f<A<int>, -3>"),
    ],
)  # fmt: skip
def test_short_names(demangled: str, name: str) -> None:
    assert short_name(demangled) == name


def table_of(*rows: tuple[str, Row]) -> Table:
    return Table("13.0", {("a.cu", name, "sm_80"): row for name, row in rows})


def test_table_is_read_as_it_is_written() -> None:
    row = Row(256, 128, {"HMMA.16816.F32": 64, "LDG.128": 2, "LDG.16": 8})
    table = table_of(("k<float, 4>", row), ("plain", Row(64, 8, {})), ("none", Row(64, 0, {})))
    table.rows["a.cu", "k<float, 4>", "sm_90a"] = replace(row, registers=96)
    table.rows["a.cu", "plain", "sm_90a"] = Row(64, 8, {"RED": 1})
    table.rows["b.cu", "plain", "sm_80"] = Row(32, 16, {})
    table.notes["a.cu"] = ["- `none` sm_80: it cannot"]
    text = kernel_table.show(table)
    cells = "| `k<float, 4>` | sm_80 / sm_90a | 256 | 128 / 96 | "
    assert f"\n{cells}64 HMMA.16816.F32, 2 LDG.128, 8 LDG.16 |\n" in text
    assert "\n| `none` | sm_80 | 64 | 0 | traps |\n" in text
    assert kernel_table.read(text) == table


def test_what_differs_from_the_table_is_named() -> None:
    row = Row(256, 64, {"HMMA": 64, "BAR.SYNC": 2})
    more = Row(256, 72, {"HMMA": 60, "BAR.SYNC": 2, "LDSM": 1})
    fewer = Row(256, 56, {"HMMA": 64, "BAR.SYNC": 2})
    assert kernel_table.compare(table_of(("k", row)), table_of(("k", fewer))) == []
    assert kernel_table.compare(table_of(("k", row)), table_of(("k", more))) == [
        "a.cu: k sm_80: registers 64 -> 72; HMMA 64 -> 60; LDSM 0 -> 1"
    ]
    assert kernel_table.compare(table_of(("k", row)), table_of(("new", row))) == [
        "a.cu: k sm_80: in the table, but no longer compiled",
        "a.cu: new sm_80: not in the table",
    ]
    assert kernel_table.compare(table_of(("k", row)), table_of(("k", Row(256, 0, {})))) == [
        "a.cu: k sm_80: traps, and should not"
    ]


def test_notes_cover_a_kernel_or_its_template() -> None:
    kernel = Kernel("s", "k<float, 4>", "sm_80", "a.cu")
    table = table_of(("k<float, 4>", Row(256, 64, {})))
    for note in ("- `k`: x", "- `k` sm_80: x", "- `k<float, 4>`: x"):
        table.notes = {"a.cu": [note]}
        assert kernel_table.has_note(table, kernel)
    for note in ("- `k` sm_90a: x", "- `k<float, 8>`: x", "- k: x", "- `k`:"):
        table.notes = {"a.cu": [note]}
        assert not kernel_table.has_note(table, kernel)


def test_flags_are_the_products() -> None:
    assert {"-O3", "-Xfatbin=-compress-all", "-std=c++17"} <= set(cubin_build.product_flags())
    assert any("--warn-on-spills" in flag for flag in cubin_build.product_flags())
    assert cubin_build.product_archs() == ("sm_80", "sm_90a")


def test_a_source_that_does_not_compile_is_named(tmp_path) -> None:
    need(cubin_build.nvcc)
    broken = tmp_path / "broken.cu"
    broken.write_text("__global__ void k() { undefined_word(); }\n")
    with pytest.raises(cubin_build.DoesNotCompile, match=r"broken.cu(.|\n)*undefined_word"):
        cubin_build.compile_cubin(broken, "sm_80")
