"""The launchers of attention take the kernels whose products are as exact as the caller asks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cubin_build
import cubin_read
import pytest
from cubin_build import HERE, ROOT
from test_launchers import ARCHS, compiled
from test_static import need


def kernels(capability: int, products: str) -> list[str]:
    """What tests/cuda/launch_attention_tf32.cpp launches, by name, in order."""
    objects = [Path(built.path) for built in compiled("attention", cubin_build.HOST)]
    calls = HERE / "launch_attention_tf32.cpp"
    maps = ROOT / "csrc" / "cuda" / "tensor_map.cpp"
    parts = [calls, HERE / "recording_runtime.cpp", maps, *objects]
    program = cubin_build.link_program("launch_attention_tf32", parts)
    command = [str(program), str(capability), products]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return cubin_read.demangle([launch["kernel"] for launch in json.loads(done.stdout)])


@pytest.mark.parametrize("capability", sorted(ARCHS))
@pytest.mark.parametrize("products", ["float", "tf32"])
def test_products(products: str, capability: int) -> None:
    need(cubin_build.nvcc)
    tf32 = "true" if products == "tf32" else "false"
    wanted = []
    for general in ("false", "true"):
        wanted += [
            f"attention_forward_kernel<AttentionForward<float, 64, 64, {general}, {tf32}>>",
            "attention_delta_kernel<float>",
            f"attention_backward_kernel<AttentionBackward<float, 64, true, {general}, {tf32}>>",
            f"attention_backward_kernel<AttentionBackward<float, 64, false, {general}, {tf32}>>",
        ]
    wanted.append(f"attention_forward_kernel<AttentionForward<float, 64, 64, false, {tf32}>>")
    # Memory decides of few queries: there is one kernel, as exact as float.
    wanted.append("attention_decode_kernel<AttentionDecode<float, 64>>")
    wanted.append("attention_combine_kernel<float>")
    assert kernels(capability, products) == wanted
