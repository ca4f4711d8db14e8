"""Our vector words beside torch's at::vec: compiles choice.cpp for AVX2 and AVX-512 and runs it.

    python benchmarks/simd_choice/run.py

at::vec is here for comparison only: the product's kernels include nothing of torch.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from torch.utils.cpp_extension import include_paths, library_paths

HERE = Path(__file__).resolve().parent
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))]
ISAS = {"avx2": ("AVX2", AVX2), "avx512": ("AVX512", [*AVX512, "-mprefer-vector-width=512"])}


def build(isa: str, out: Path) -> None:
    capability, flags = ISAS[isa]
    libraries = library_paths()[0]
    subprocess.run(
        [
            *["g++", "-O3", "-std=c++17", "-fno-math-errno", "-ffp-contract=off", *flags],
            *[f"-DSUFFUSE_ISA={isa}", f"-DCPU_CAPABILITY={capability}"],
            *[f"-DCPU_CAPABILITY_{capability}", f"-I{HERE.parents[1] / 'csrc'}"],
            *[f"-isystem{path}" for path in include_paths()],
            *[str(HERE / "choice.cpp"), "-o", str(out), f"-L{libraries}", "-ltorch_cpu", "-lc10"],
            f"-Wl,-rpath,{libraries}",
        ],
        check=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for isa in ISAS:
            out = Path(folder) / isa
            build(isa, out)
            print(f"{isa}, 1024 elements", flush=True)
            subprocess.run([str(out)], check=True)


if __name__ == "__main__":
    main()
