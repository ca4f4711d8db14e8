"""What bounds selective_scan on the CPU: `python -m benchmarks.selective_scan [PART ...] [--threads 1]`.

Parts: floor (the exponentials alone, beside forward and backward), states (cost of a state for each
number of them, dtype and instruction set), lengths (time of a token), channels (few of them), memory,
peers (mambapy where it is installed, and a loop over time).
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import suffuse
from benchmarks.timing import interleaved_medians
from suffuse.testing import cpu_isa, cpu_isas, use_isa

HERE = Path(__file__).resolve().parent
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl"))]
FLAGS = {"scalar": [], "avx2": AVX2, "avx512": [*AVX512, "-mprefer-vector-width=512"]}
Scan = Callable[[], object]


def operands(D: int, L: int, N: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    rows = [torch.randn(1, D, L).to(dtype) for _ in range(3)]
    return {
        **dict(zip(("u", "delta", "z"), rows, strict=True)),
        "A": -4 * torch.rand(D, N),
        **{name: torch.randn(1, 1, N, L).to(dtype) for name in "BC"},
        "D": torch.randn(D),
        "delta_bias": torch.randn(D) - 1,
    }


def forward(tensors: dict[str, Tensor]) -> Scan:
    return lambda: own(**tensors)


def both(tensors: dict[str, Tensor], function: Callable[..., Tensor]) -> Scan:
    leaves = {name: x.detach().clone().requires_grad_() for name, x in tensors.items()}
    cotangent = torch.randn_like(tensors["u"])

    def run() -> object:
        return torch.autograd.grad(function(**leaves), list(leaves.values()), cotangent)

    return run


def own(**tensors: Tensor) -> Tensor:
    return suffuse.selective_scan(**tensors, delta_softplus=True)  # type: ignore[arg-type, return-value]


def exponentials(count: int) -> Scan:
    """`count` of them in the kernel's words, for the instruction set in use."""
    isa = "avx512" if cpu_isa() in ("avx512_bf16", "amx") else cpu_isa()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "floor.so"
        flags = ["-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=off"]
        include = [f"-DSUFFUSE_ISA={isa}", f"-I{HERE.parent / 'csrc'}"]
        source = str(HERE / "exp_floor" / "floor.cpp")
        subprocess.run(
            ["g++", *flags, *FLAGS[isa], *include, source, "-o", str(library)], check=True
        )
        function = ctypes.CDLL(str(library)).exp_floor
    function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_float
    rates = -torch.rand(4096)
    return lambda: function(rates.data_ptr(), rates.numel(), count)


def part_floor() -> None:
    D, L, N = 1536, 1024, 16
    tensors = operands(D, L, N)
    floor, training = exponentials(D * L * N), both(tensors, own)
    took = interleaved_medians({"floor": floor, "fwd": forward(tensors)})
    print(
        f"D{D} L{L} N{N}: exponentials {1e3 * took['floor']:.2f} ms, forward "
        f"{1e3 * took['fwd']:.2f} = {took['fwd'] / took['floor']:.2f}x"
    )
    took = interleaved_medians({"fwd": forward(tensors), "both": training})
    print(
        f"forward {1e3 * took['fwd']:.2f} ms, forward for training and backward "
        f"{1e3 * took['both']:.2f}, less the forward {took['both'] / took['fwd'] - 1:.2f}x forward"
    )


def part_states() -> None:
    D, L = 1536, 1024
    cases: dict[str, tuple[int, Scan]] = {}
    for N in (1, 4, 8, 12, 16, 64, 128, 256):
        cases[f"N{N}"] = (N, forward(operands(D, L, N)))
    cases["N16 bfloat16"] = (16, forward(operands(D, L, 16, torch.bfloat16)))
    if "avx2" in cpu_isas():
        tensors = operands(D, L, 16)

        def in_avx2() -> object:
            with use_isa("avx2"):
                return own(**tensors)

        cases["N16 avx2"] = (16, in_avx2)
    took = interleaved_medians({name: scan for name, (_, scan) in cases.items()}, rounds=9)
    each = {name: took[name] / N / D / L for name, (N, _) in cases.items()}
    for name, seconds in each.items():
        print(
            f"D{D} L{L} {name}: {1e3 * took[name]:.2f} ms, {1e12 * seconds:.0f} ps a channel, step "
            f"and state, {seconds / each['N16']:.2f}x N16"
        )


def part_lengths() -> None:
    for D in (128, 1):  # both stay below the memory of a small machine
        lengths = [2**k for k in (10, 12, 14, 16, 18)]
        scans = {f"L{L}": forward(operands(D, L, 16)) for L in lengths}
        took = interleaved_medians(scans, rounds=7)
        tokens = [1e9 * took[f"L{L}"] / L for L in lengths]
        shown = ", ".join(f"L{L} {t:.1f}" for L, t in zip(lengths, tokens, strict=True))
        print(f"D{D} N16, ns a token: {shown}; most over least {max(tokens) / min(tokens):.2f}")


def part_channels() -> None:
    for N in (16, 4, 1):
        scans = {f"D{D}": forward(operands(D, 65536, N)) for D in (1, 2, 4, 8, 12, 16)}
        took = interleaved_medians(scans, rounds=7)
        print(f"L65536 N{N}:", ", ".join(f"{name} {1e3 * t:.2f} ms" for name, t in took.items()))


def resident(name: str = "VmRSS") -> int:
    """Bytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def part_memory() -> None:
    """The peak above inputs, results and gradients; a process's peak is reset between the lengths."""
    for training in (False, True):
        for L in (2**14, 2**16, 2**18):
            tensors = operands(64, L, 16)
            scan = both(tensors, own) if training else forward(tensors)
            forward(operands(64, 256, 16))()  # what is made once
            Path("/proc/self/clear_refs").write_text("5")
            before = resident()
            result = scan()
            results = result if isinstance(result, tuple) else (result,)
            returned = sum(x.numel() * x.element_size() for x in results)
            grown = resident("VmHWM") - before
            given = sum(x.numel() * x.element_size() for x in tensors.values())
            print(
                f"D64 L{L} N16 {'forward and backward' if training else 'forward'}: peak "
                f"{grown / 2**20:.0f} MiB for inputs of {given / 2**20:.0f} and results of "
                f"{returned / 2**20:.0f}, {grown / L:.0f} bytes a token"
            )


def mambapy_scan(**x: Tensor) -> Tensor:
    """mambapy's scan with the products, the sum over states and the gate around it."""
    from mambapy.pscan import pscan

    u = x["u"].transpose(1, 2)
    delta = F.softplus(x["delta"].transpose(1, 2) + x["delta_bias"])
    B, C = (x[name][:, 0].transpose(1, 2) for name in "BC")
    decays = torch.exp(delta[..., None] * x["A"])
    states = pscan(decays, (delta * u)[..., None] * B[:, :, None])
    y = (states @ C[..., None])[..., 0] + x["D"] * u
    return y.transpose(1, 2) * F.silu(x["z"])


def loop_over_time(**x: Tensor) -> Tensor:
    delta = F.softplus(x["delta"] + x["delta_bias"][:, None])
    entering, state, rows = delta * x["u"], torch.zeros_like(x["A"]), []
    for t in range(delta.shape[2]):
        decay = torch.exp(delta[0, :, t, None] * x["A"])
        state = torch.addcmul(entering[0, :, t, None] * x["B"][0, 0, :, t], decay, state)
        rows.append(state @ x["C"][0, 0, :, t])
    y = torch.stack(rows, 1)[None] + x["D"][:, None] * x["u"]
    return y * F.silu(x["z"])


def part_peers() -> None:
    tensors = operands(1536, 1024, 16)
    peers = {"torch loop": loop_over_time}
    if importlib.util.find_spec("mambapy"):
        peers["mambapy"] = mambapy_scan
    for training in (False, True):
        scans: dict[str, Scan] = {}
        for name, function in {"suffuse": own, **peers}.items():
            scans[name] = (
                both(tensors, function) if training else lambda f=function: f(**tensors)  # type: ignore[misc]
            )
        took = interleaved_medians(scans, rounds=5)
        what = "forward and backward" if training else "forward"
        for name in peers:
            print(
                f"D1536 L1024 N16 {what}: {name} {1e3 * took[name]:.0f} ms, suffuse "
                f"{1e3 * took['suffuse']:.2f} ms, {took[name] / took['suffuse']:.0f}x"
            )


PARTS = {name[5:]: part for name, part in list(globals().items()) if name.startswith("part_")}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.selective_scan", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"parts are {', '.join(PARTS)}, not {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{options.threads} threads, {cpu_isa()}")
    for name in options.parts or PARTS:
        with torch.set_grad_enabled(name in ("floor", "memory", "peers")):
            PARTS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
