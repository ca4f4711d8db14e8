"""The estimate of attention's kernels: what is counted, and that the document has it as it is."""

from __future__ import annotations

import re

import attention_bounds
import cubin_build
import cubin_read
import pytest
import sass_loop
from attention_bounds import MACHINES, cycles
from sass_loop import Instruction
from test_static import need

A100, H100 = MACHINES["sm_80"], MACHINES["sm_90a"]

# A loop from 0x20 to 0xd0 that another one encloses. At 0x50 what only an edge needs is left out; the
# rare case of 0x90 stands behind the end; 0xa0 is a loop without products, passed once.
SASS = """
                Function : looped
        /*0000*/                   MOV R1, c[0x0][0x28] ;   /* 0x00000a0000017a02 */
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
        /*0020*/                   LDGSTS.E.BYPASS.128 [R2], [R4.64] ;
        /*0030*/                   LDSM.16.M88.4 R8, [R2] ;
        /*0040*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0050*/              @P1  BRA P2, 0x80 ;
        /*0060*/                   FMNMX R4, R4, R5, PT ;
        /*0070*/                   FMNMX R4, R4, R5, PT ;
        /*0080*/                   MUFU.EX2 R4, R4 ;
        /*0090*/             @!P3  BRA 0x120 ;
        /*00a0*/                   LDS R6, [R7] ;
        /*00b0*/              @P4  BRA 0xa0 ;
        /*00c0*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*00d0*/              @P5  BRA 0x20 ;
        /*00e0*/                   STG.E [R2.64], R4 ;
        /*00f0*/              @P6  BRA 0x10 ;
        /*0100*/                   EXIT ;
        /*0110*/                   BRA 0x110;
        /*0120*/                   FADD R4, R4, R5 ;
        /*0130*/                   FADD R4, R4, R5 ;
        /*0140*/                   BRA 0xa0 ;
                Function : straight
        /*0000*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0010*/                   EXIT ;
"""
USUAL = [0x20, 0x30, 0x40, 0x50, 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0]


def test_the_usual_way_through_the_innermost_loop() -> None:
    code = sass_loop.parse(SASS)["looped"]
    assert [x.address for x in sass_loop.usual_way(code)] == USUAL
    blocks, graph = sass_loop.blocks_of(code)
    entry, loop = sass_loop.main_loop(blocks, graph)
    assert entry == 0x20 and 0x120 in loop and 0x10 not in loop and 0xE0 not in loop


def test_a_side_with_products_or_copies_is_taken() -> None:
    """Though the other one is shorter."""
    for work in ("HMMA.16816.F32 R4, R8, R12, R4", "LDGSTS.E.BYPASS.128 [R2], [R4.64]"):
        text = SASS.replace("FMNMX R4, R4, R5, PT", work, 1)
        way = sass_loop.usual_way(sass_loop.parse(text)["looped"])
        assert [x.address for x in way] == sorted([*USUAL, 0x60, 0x70])


def test_code_without_a_loop_of_products_is_refused() -> None:
    with pytest.raises(ValueError, match="no loop has products"):
        sass_loop.usual_way(sass_loop.parse(SASS)["straight"])


@pytest.mark.parametrize(
    ("opcode", "operands", "pipe", "on_a100", "on_h100"),
    [
        ("HMMA.16816.F32.BF16", "R4, R8, R12, R4", "tensor", 2, 1),
        ("HMMA.16816.F32", "R4, R8, R12, R4", "tensor", 2, 1),
        ("HMMA.1688.F32.TF32", "R4, R8, R12, R4", "tensor", 2, 1),
        ("MUFU.EX2", "R4, R4", "special", 2, 2),
        ("FFMA.FTZ", "R4, R4, R5, R6", "float", 0.5, 0.25),
        ("IMAD.MOV.U32", "R4, RZ, RZ, R5", "integer", 0.5, 0.5),
        ("FSETP.GT.AND", "P0, PT, R4, R5, PT", "integer", 0.5, 0.5),
        ("LDSM.16.M88.4", "R4, [R8]", "shared", 4, 4),
        ("LDS", "R4, [R8]", "shared", 1, 1),
        ("LDS.128", "R4, [R8]", "shared", 4, 4),
        ("LDGSTS.E.BYPASS.128", "[R4], [R8.64]", "shared", 4, 4),
        ("SHFL.BFLY", "PT, R4, R4, 0x1, 0x1f", "shared", 1, 1),
    ],
)
def test_cycles(opcode: str, operands: str, pipe: str, on_a100: float, on_h100: float) -> None:
    for machine, expected in ((A100, on_a100), (H100, on_h100)):
        busy = cycles([Instruction(0, opcode, operands)], machine)
        assert {p: n for p, n in busy.items() if n} == {pipe: expected, "issue": 0.25}


def test_cycles_of_a_group_s_products() -> None:
    """One warp's part of 64 x 128 x 16 takes 16 cycles; 128 and 64 rows of 16 numbers come from shared memory."""
    for operands, rows in (("R24, gdesc[UR8], R24", 192), ("R24, R4, gdesc[UR8], R24", 128)):
        busy = cycles([Instruction(0, "HGMMA.64x128x16.F32.BF16", operands)], H100)
        assert busy["tensor"] == 16 and busy["shared"] == rows * 32 / 128 / 4


def test_a_kernel_s_counts_are_those_of_its_tile() -> None:
    """32 queries of a warp by 64 keys: 2 x 8 tiles of scores in 4 steps each, and as many of results."""
    need(cubin_build.nvcc)
    need(cubin_read.disassembler)
    source = cubin_build.ROOT / "csrc/ops/attention/cuda/forward_bf16.cu"
    by_kernel = {e.kernel: e for e in attention_bounds.estimates([source], "sm_80")}
    e = by_kernel["attention_forward_kernel<AttentionForward<bfloat16, 64, 64, false, false>>"]
    assert e.counts["HMMA"] == 128 and e.busy["tensor"] == 256
    assert (
        e.busy["special"] == 2 * e.counts["MUFU"] and e.counts["MUFU"] >= 64
    )  # a weight of a lane
    assert e.added < e.overlapped <= 1


def numbers(table: str) -> dict[tuple[str, str], list[float]]:
    """The cycles and shares of each kernel on each machine."""
    found = {}
    for line in table.splitlines():
        kernel, machine, *cells = [cell.strip() for cell in line.split("|")[1:-1]] or ("", "")
        if machine in ("A100", "H100"):
            found[kernel, machine] = [float(cell.split("%")[0]) for cell in cells if cell]
    return found


def test_the_document_has_the_table() -> None:
    """Up to 5 %, so that not every change of an instruction asks for a new one."""
    need(cubin_build.nvcc)
    need(cubin_read.disassembler)
    text = attention_bounds.DOCUMENT.read_text()
    release = re.search(r"nvcc (\d+\.\d+)", text)
    assert release is not None
    if release[1] != cubin_build.nvcc()[1]:
        pytest.skip("the table is of another release of nvcc")
    written = numbers(text.split("<!-- bounds -->")[1].split("<!-- end of bounds -->")[0])
    now = numbers(attention_bounds.table())
    assert set(written) == set(now), "run python tests/cuda/attention_bounds.py"
    for kernel, expected in now.items():
        same = pytest.approx(expected, rel=0.05, abs=2)
        assert written[kernel] == same, f"{kernel}: run python tests/cuda/attention_bounds.py"
