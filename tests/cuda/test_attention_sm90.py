"""Attention's sm_90a kernels in machine code: they overlap what they should, in the registers that each part has."""

from __future__ import annotations

import re

import cubin_build
import cubin_read
import pytest
from test_static import need

SOURCES = [f"csrc/ops/attention/cuda/forward_{name}_sm90.cu" for name in ("bf16", "f16")]
# HGMMA, what waits for it, and the exponentials of the softmax, in the order of the machine code.
WORDS = re.compile(r"\b(HGMMA|WARPGROUP\.DEPBAR|MUFU\.EX2)\b[^;]*?(0x[01])?\s*;")


def machine_code(source: str) -> dict[str, str]:
    """Of every kernel, by its symbol."""
    need(cubin_build.nvcc)
    need(cubin_read.disassembler)
    cubin = cubin_build.compile_cubin(cubin_build.ROOT / source, "sm_90a")
    parts = re.split(r"Function : (\S+)", cubin_read.cuobjdump("-sass", cubin.path))[1:]
    kernels = dict(zip(parts[::2], parts[1::2], strict=True))
    assert len(kernels) == 5
    return kernels


def words(text: str) -> list[tuple[str, str]]:
    """Those instructions with their last operand."""
    return [(m[1], m[2] or "") for m in WORDS.finditer(text)]


def overlap(body: list[tuple[str, str]]) -> int:
    """Exponentials between the wait for q k^T, which leaves one product running, and the next wait."""
    begin = body.index(("WARPGROUP.DEPBAR", "0x1")) + 1
    rest = [word for word, _ in body[begin:]]
    return rest[: rest.index("WARPGROUP.DEPBAR")].count("MUFU.EX2")


@pytest.mark.parametrize("source", SOURCES)
def test_the_softmax_runs_beside_the_product_with_the_values(source: str) -> None:
    for symbol, text in machine_code(source).items():
        keys = 64 if "Li256E" in symbol else 128
        assert overlap(words(text)) >= keys // 2, symbol  # 2 rows, a quarter of the keys each


@pytest.mark.parametrize("source", SOURCES)
def test_registers_of_the_parts(source: str) -> None:
    """After setmaxnreg each warpgroup keeps to what it has: first those that multiply, then the one that loads."""
    for symbol, text in machine_code(source).items():
        _, most, multiply, least, load = re.split(r"USETMAXREG[^;]*?(0x[0-9a-f]+)\s*;", text)
        consumers = 3 if "Li64E" in symbol else 2
        assert (int(most, 16), int(least, 16)) == ((160, 32) if consumers == 3 else (240, 24))
        assert 128 * (consumers * int(most, 16) + int(least, 16)) <= 65536
        for part, given in ((multiply, most), (load, least)):
            assert max(map(int, re.findall(r"\bR(\d+)\b", part))) < int(given, 16), symbol


def test_a_wait_that_moved_up_is_seen() -> None:
    wait, exponential = ("WARPGROUP.DEPBAR", "0x0"), ("MUFU.EX2", "")
    body = [("HGMMA", ""), ("WARPGROUP.DEPBAR", "0x1"), *[exponential] * 3, wait]
    assert overlap(body) == 3
    assert overlap([*body[:2], wait, *body[2:]]) == 0
