"""The launchers, run against a CUDA runtime that writes down what they ask for: a GPU would take every launch."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cubin_build
import cubin_read
import pytest
from cubin_build import HERE, ROOT, Cubin
from cubin_read import Kernel
from test_static import need

# The most shared memory of a block, by compute capability (CUDA C++ Programming Guide).
MOST_SHARED = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
MOST_BLOCKS = [2**31 - 1, 65535, 65535]
ARCHS = {80: "sm_80", 90: "sm_90a"}  # the product's, by compute capability


def launchers(arch: str = cubin_build.HOST) -> dict[str, list[Path]]:
    """The launching sources of each op."""
    sources: dict[str, list[Path]] = {}
    for path in sorted(ROOT.glob("csrc/ops/*/cuda/*.cu")):
        if cubin_build.has_arch(str(path.relative_to(ROOT)), arch):
            sources.setdefault(path.parents[1].name, []).append(path)
    return sources


def compiled(op: str, arch: str) -> list[Cubin]:
    """The launching sources of an op, compiled on all processors."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(
            pool.map(lambda source: cubin_build.compile_cubin(source, arch), launchers(arch)[op])
        )


def launches(op: str, capability: int) -> list[dict]:
    """What the launcher of an op asks for in tests/cuda/launch_<op>.cpp."""
    calls = HERE / f"launch_{op}.cpp"
    assert calls.exists(), f"write {calls.relative_to(ROOT)}, which calls the op's launcher"
    sources = [Path(built.path) for built in compiled(op, cubin_build.HOST)]
    parts = [calls, HERE / "recording_runtime.cpp", *sources]
    if any(source.stem.endswith("_sm90") for source in launchers()[op]):
        parts.append(ROOT / "csrc/cuda/tensor_map.cpp")
    program = cubin_build.link_program(f"launch_{op}", parts)
    command = [str(program), str(capability)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kernels_by_symbol(op: str, arch: str) -> dict[str, Kernel]:
    kernels = [k for cubin in compiled(op, arch) for k in cubin_read.read_kernels(cubin)]
    return {kernel.symbol: kernel for kernel in kernels}


def faults(launch: dict, kernel: Kernel | None, capability: int) -> list[str]:
    """Why a GPU would refuse a launch, or would not run what is meant."""
    if kernel is None:
        return ["no such kernel was compiled"]
    threads = launch["block"][0] * launch["block"][1] * launch["block"][2]
    shared, asked = launch["shared"], launch["most_shared"]
    blocks = launch["grid"]
    found = {
        f"{threads} threads, {kernel.threads} in __launch_bounds__": threads > kernel.threads,
        f"{threads} threads are no whole warps": threads % 32 != 0 or threads == 0,
        f"{shared} bytes of shared memory, {asked} asked for with cudaFuncSetAttribute":
        shared > asked,
        f"{max(shared, asked)} bytes of shared memory, {MOST_SHARED[capability]} there":
        max(shared, asked) > MOST_SHARED[capability],
        f"a grid of {blocks}": any(
            not 0 < n <= most for n, most in zip(blocks, MOST_BLOCKS, strict=True)
        ),
        "the kernel traps on this architecture": kernel.traps,
    }  # fmt: skip
    return [text for text, is_so in found.items() if is_so]


@pytest.mark.parametrize("capability", sorted(ARCHS))
@pytest.mark.parametrize("op", sorted(launchers()))
def test_launches_are_taken(op: str, capability: int) -> None:
    need(cubin_build.nvcc)
    need(cubin_read.disassembler)
    kernels = kernels_by_symbol(op, ARCHS[capability])
    made = launches(op, capability)
    wrong = [
        f"{kernels[launch['kernel']].name if launch['kernel'] in kernels else launch['kernel']}: {text}"
        for launch in made
        for text in faults(launch, kernels.get(launch["kernel"]), capability)
    ]
    assert not wrong, "\n".join(sorted(set(wrong)))


@pytest.mark.parametrize("op", sorted(launchers()))
def test_every_kernel_is_launched(op: str) -> None:
    need(cubin_build.nvcc)
    need(cubin_read.disassembler)
    used = {launch["kernel"] for capability in ARCHS for launch in launches(op, capability)}
    names = {k.symbol: k.name for k in kernels_by_symbol(op, "sm_90a").values()}
    assert used <= set(names)
    unused = [name for symbol, name in names.items() if symbol not in used]
    assert not unused, f"launch_{op}.cpp launches none of {unused}"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"block": [512, 1, 1]}, "512 threads, 256 in __launch_bounds__"),
        ({"block": [48, 1, 1]}, "48 threads are no whole warps"),
        ({"shared": 49153}, "49153 bytes of shared memory, 49152 asked for"),
        ({"shared": 200000, "most_shared": 200000}, "200000 bytes of shared memory, 166912 there"),
        ({"grid": [1, 65536, 1]}, r"a grid of \[1, 65536, 1\]"),
        ({"grid": [0, 1, 1]}, r"a grid of \[0, 1, 1\]"),
    ],
)
def test_wrong_launches_are_found(change: dict, fault: str) -> None:
    good = {"grid": [7, 1, 1], "block": [256, 1, 1], "shared": 49152, "most_shared": 49152}
    kernel = Kernel("k", "k", "sm_80", "k.cu", threads=256)
    assert faults(good, kernel, 80) == []
    with pytest.raises(pytest.fail.Exception, match=fault):
        pytest.fail("\n".join(faults({**good, **change}, kernel, 80)))
    assert faults(good, None, 80) == ["no such kernel was compiled"]
    kernel.counts[cubin_read.TRAP] = 1
    assert faults(good, kernel, 80) == ["the kernel traps on this architecture"]


@pytest.fixture
def planted(tmp_path: Path) -> Callable[[str], list[dict]]:
    """Compiles a launcher and gives what it asked for."""

    def run(launcher: str) -> list[dict]:
        need(cubin_build.nvcc)
        source = tmp_path / "planted.cu"
        source.write_text(launcher)
        built = cubin_build.compile_cubin(source, cubin_build.HOST)
        main = tmp_path / "main.cpp"
        main.write_text(
            '#include "recording_runtime.h"\nvoid go();\nint main() { go(); recording::print(); }\n'
        )
        parts = [main, HERE / "recording_runtime.cpp", Path(built.path)]
        program = cubin_build.link_program("launch_planted", parts)
        return json.loads(subprocess.run([program], capture_output=True, check=True).stdout)

    return run


def test_shared_memory_that_is_not_asked_for_is_seen(planted) -> None:
    made = planted("""
__global__ void __launch_bounds__(64) big(int) {}
void go() {
  big<<<3, 64, 60000>>>(1);
  cudaFuncSetAttribute(big, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000);
  big<<<dim3(3, 2), 64, 60000>>>(1);
}
""")
    kernel = Kernel("_Z3bigi", "big", "sm_80", "planted.cu", threads=64)
    assert [launch["kernel"] for launch in made] == ["_Z3bigi", "_Z3bigi"]
    assert [launch["grid"] for launch in made] == [[3, 1, 1], [3, 2, 1]]
    assert "asked for with cudaFuncSetAttribute" in faults(made[0], kernel, 80)[0]
    assert faults(made[1], kernel, 80) == []
