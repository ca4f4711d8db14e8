"""The SIMD words and math functions: C++ programs compiled per ISA with the product flags, and run.

SUFFUSE_ULP_STRIDE sets which floats the math functions are checked on: every n-th bit pattern; 1 is
every float and takes about 40 minutes per ISA.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
COMMON_FLAGS = [
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Werror"),
]
ULP_STRIDE = os.environ.get("SUFFUSE_ULP_STRIDE", "1021")


def isa_flags() -> dict[str, list[str]]:
    """What CMakeLists.txt sets ISA_FLAGS_<isa> to, with references to earlier ones filled in."""
    text = (ROOT / "CMakeLists.txt").read_text()
    flags: dict[str, list[str]] = {}
    for isa, words in re.findall(r"set\(ISA_FLAGS_(\w+)\s+([^)]*)\)", text):
        flags[isa] = []
        for word in words.replace('"', "").split():
            reference = re.fullmatch(r"\$\{ISA_FLAGS_(\w+)\}", word)
            flags[isa] += flags[reference[1]] if reference else [word]
    return flags


def sources() -> list[Path]:
    headers = [
        x for folder in ("simd", "common", "math") for x in (ROOT / "csrc" / folder).iterdir()
    ]
    return sorted([*headers, *HERE.glob("*.cpp"), *HERE.glob("*.h")])


def program(name: str, isa: str) -> Path:
    """Compiles tests/cpp/<name>.cpp for the ISA, unless the same text and command were before."""
    compiler = os.environ.get("CXX", "g++")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    command = [compiler, *COMMON_FLAGS, *isa_flags()[isa], f"-DSUFFUSE_ISA={isa}"]
    command += [f"-I{ROOT / 'csrc'}", str(HERE / f"{name}.cpp")]
    digest = hashlib.sha256(" ".join([version.stdout, *command]).encode())
    for path in sources():
        digest.update(path.read_bytes())
    out = ROOT / "build" / "tests_cpp" / f"{name}_{isa}_{digest.hexdigest()[:16]}"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = out.with_name(f"{out.name}.{os.getpid()}")
        done = subprocess.run([*command, "-o", str(unfinished)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        unfinished.rename(out)
    return out


@pytest.mark.parametrize("isa", importlib.import_module("suffuse._host").supported_isas())
@pytest.mark.parametrize("name", ["simd_words", "simd_memory", "simd_math"])
def test_simd(name: str, isa: str) -> None:
    arguments = [ULP_STRIDE] if name == "simd_math" else []
    done = subprocess.run([program(name, isa), *arguments], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{name}: 0 failures\n")


def test_every_isa_has_flags() -> None:
    assert set(isa_flags()) == {"scalar", "avx2", "avx512", "avx512_bf16", "amx"}
    assert "-mavx512bf16" in isa_flags()["avx512_bf16"]
    assert "-mfma" in isa_flags()["avx512_bf16"]
    assert "-mamx-bf16" in isa_flags()["amx"]
