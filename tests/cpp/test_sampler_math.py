"""Philox, normal numbers and the sampler step's formula on every number type, once per ISA."""

from __future__ import annotations

import importlib
import subprocess

import pytest
from test_simd import program


@pytest.mark.parametrize("isa", importlib.import_module("suffuse._host").supported_isas())
def test_sampler_math(isa: str) -> None:
    done = subprocess.run([program("sampler_math", isa)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("sampler_math: 0 failures\n")
