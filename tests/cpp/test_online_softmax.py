"""The softmax state of csrc/math on every number type, compiled once per ISA."""

from __future__ import annotations

import importlib
import subprocess

import pytest
from test_simd import program


@pytest.mark.parametrize("isa", importlib.import_module("suffuse._host").supported_isas())
def test_online_softmax(isa: str) -> None:
    done = subprocess.run([program("online_softmax", isa)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("online_softmax: 0 failures\n")
