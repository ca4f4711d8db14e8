"""Code compiled for one instruction set stays in its namespace.

A function that several of them define under one name would be merged by the linker, and the copy that it
keeps may need instructions that the CPU lacks.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from suffuse.testing import ALL_ISAS

BUILD = Path(__file__).parents[1] / "build"


@pytest.mark.parametrize("isa", ALL_ISAS)
def test_kernel_objects_define_nothing_outside_their_namespace(isa):
    objects = sorted(BUILD.glob(f"cmake-*/CMakeFiles/kernels_{isa}.dir/**/*.o"))
    if not objects or not shutil.which("nm"):
        pytest.skip("no object files here (the package was not built in this tree), or no nm")
    listing = subprocess.run(
        ["nm", "--demangle", "--defined-only", "--extern-only", "--no-sort", *map(str, objects)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    symbols = [line.split(" ", 2)[2] for line in listing.splitlines() if line.count(" ") >= 2]
    own = [name for name in symbols if f"suffuse::{isa}::" in name]
    # The compiler's reference to the C++ runtime is data, the same whatever the flags.
    others = set(symbols) - set(own) - {"DW.ref.__gxx_personality_v0"}
    assert own
    assert not others
