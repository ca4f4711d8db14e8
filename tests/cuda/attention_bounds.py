"""How near attention's CUDA kernels can come to the peak of the tensor cores: an estimate from their machine code.

    python tests/cuda/attention_bounds.py

rewrites the tables of docs/attention-cuda.md. For one pass of a kernel's main loop it adds up the cycles for which each
part of a multiprocessor is busy. If all parts worked beside one another, the busiest would decide; if only one ever
worked, their sum would. Latency, occupancy and caches are not in it, and nothing was run on a device.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cubin_build
import cubin_read
import sass_loop
from sass_loop import Instruction

DOCUMENT = cubin_build.ROOT / "docs" / "attention-cuda.md"


@dataclass(frozen=True)
class Machine:
    """What a multiprocessor does in a cycle. Sources: docs/attention-cuda.md."""

    name: str
    products: int  # multiply-adds of 16-bit numbers on the tensor cores; half as many of tf32
    float_lanes: int
    memory_bytes: float  # of the card's memory for each multiprocessor

    special_lanes = 16
    integer_lanes = 64
    shuffle_lanes = 32
    shared_bytes = 128
    schedulers = 4


MACHINES = {
    "sm_80": Machine("A100", 1024, 64, 2039e9 / (108 * 1.41e9)),
    "sm_90a": Machine("H100", 2048, 128, 3350e9 / (132 * 1.83e9)),
}
PIPES = ("tensor", "special", "float", "integer", "shared", "issue")
SPECIAL = ("MUFU", "I2F", "F2I", "FRND", "F2F")
FLOAT = ("FFMA", "FMUL", "FADD", "HFMA2", "HMUL2", "HADD2")
INTEGER = re.compile(
    r"(IADD|IMAD|IABS|LOP|PLOP|SHF|LEA|ISETP|FSETP|HSETP|SEL|FSEL|FMNMX|HMNMX|IMNMX|VIMNMX|VIADD|MOV|PRMT|F2FP|POPC|"
    r"FLO|SGXT|BMSK|P2R|R2P|CS2R|VOTE|FCHK|FSWZADD)"
)
SHARED = ("LDS", "STS", "LDSM", "STSM", "LDGSTS", "ATOMS")


def product_size(opcode: str) -> tuple[int, int, int]:
    """m, n and k of a product: HMMA.16816, HGMMA.64x128x16."""
    name, shape = opcode.split(".")[:2]
    if name == "HGMMA":
        m, n, k = (int(x) for x in shape.split("x"))
        return m, n, k
    return 16, 8, int(shape.removeprefix("168"))


def tensor_cycles(x: Instruction, machine: Machine) -> float:
    """Of one warp; the four warps of a group share an HGMMA."""
    m, n, k = product_size(x.opcode)
    rate = machine.products // (2 if "TF32" in x.opcode else 1)
    return m * n * k / rate / (4 if x.name == "HGMMA" else 1)


def shared_cycles(x: Instruction, machine: Machine) -> float:
    """Without bank conflicts, of which the emulator finds none."""
    if x.name == "HGMMA":  # B, and A unless it is in registers, come from shared memory
        m, n, k = product_size(x.opcode)
        rows = n + (m if x.operands.split(",")[1].strip().startswith("gdesc") else 0)
        return rows * k * (4 if "TF32" in x.opcode else 2) / machine.shared_bytes / 4
    if x.name in ("LDSM", "STSM"):
        return int(x.opcode[-1]) * 128 / machine.shared_bytes
    width = next((int(w) for w in x.opcode.split(".") if w in ("64", "128")), 32)
    return 32 * width // 8 / machine.shared_bytes


def cycles(code: list[Instruction], machine: Machine) -> dict[str, float]:
    """For which each part of a multiprocessor is busy with one warp's pass."""
    busy = dict.fromkeys(PIPES, 0.0)
    for x in code:
        busy["issue"] += 1 / machine.schedulers
        if x.is_product:
            busy["tensor"] += tensor_cycles(x, machine)
            busy["shared"] += shared_cycles(x, machine) if x.name == "HGMMA" else 0
        elif x.name in SPECIAL:
            busy["special"] += 32 / machine.special_lanes
        elif x.name in FLOAT:
            busy["float"] += 32 / machine.float_lanes
        elif x.name == "SHFL":
            busy["shared"] += 32 / machine.shuffle_lanes
        elif x.name in SHARED:
            busy["shared"] += shared_cycles(x, machine)
        elif INTEGER.match(x.name):
            busy["integer"] += 32 / machine.integer_lanes
    return busy


@dataclass(frozen=True)
class Estimate:
    kernel: str
    arch: str
    counts: Counter[str]
    busy: dict[str, float]
    memory: float  # cycles, of what a pass must read of the card's memory; 0 where blocks share it

    @property
    def limit(self) -> str:
        return max(self.busy, key=lambda pipe: self.busy[pipe])

    @property
    def overlapped(self) -> float:
        return self.busy["tensor"] / max(self.busy.values())

    @property
    def added(self) -> float:
        """The schedulers work beside the parts that they feed."""
        parts = sum(time for pipe, time in self.busy.items() if pipe != "issue")
        return self.busy["tensor"] / max(parts, self.busy["issue"])


PLAIN = re.compile(
    r"attention_forward_kernel<AttentionForward<\w+, (64|128), \1, false, (true|false)>>|"
    r"attention_backward_kernel<AttentionBackward<\w+, (64|128), (true|false), false, (true|false)>>|"
    r"attention_decode_kernel<AttentionDecode<\w+, (64|128)>>|"
    r"attention_forward_sm90_kernel<AttentionForwardSm90<\w+, (64|128), false>>"
)
SOURCES = ("forward_bf16", "forward_f32", "forward_tf32", "backward_bf16_plain", "backward_f32_plain",
           "backward_tf32_plain", "decode", "forward_bf16_sm90")  # fmt: skip
ELEMENT_BYTES = {"bfloat16": 2, "float": 4}


def pass_bytes(kernel: str) -> int:
    """What a warp of decoding reads in a pass: 16 keys and values, which no other block needs."""
    found = re.match(r"attention_decode_kernel<AttentionDecode<(\w+), (\d+)>>", kernel)
    return 16 * 2 * int(found[2]) * ELEMENT_BYTES[found[1]] if found else 0


def estimate(kernel: str, arch: str, code: list[Instruction]) -> Estimate:
    way, machine = sass_loop.usual_way(code), MACHINES[arch]
    counts = Counter(x.name for x in way)
    memory = pass_bytes(kernel) / machine.memory_bytes
    return Estimate(kernel, arch, counts, cycles(way, machine), memory)


def estimates(sources: list[Path], arch: str) -> list[Estimate]:
    """Of the kernels that PLAIN names, in float and bfloat16."""
    found = []
    for source in sources:
        cubin = cubin_build.compile_cubin(source, arch)
        functions = sass_loop.parse(cubin_read.cuobjdump("-sass", cubin.path))
        names = cubin_read.demangle(list(functions))
        for name, code in zip(names, functions.values(), strict=True):
            if PLAIN.fullmatch(name) and "float16, " not in name.replace("bfloat16", ""):
                found.append(estimate(name, arch, code))
    return found


def label(kernel: str) -> str:
    """In words: bfloat16 D 64 forward."""
    arguments = kernel.split("<", 2)[2].rstrip(">").split(", ")
    element, head = arguments[:2]
    if kernel.startswith("attention_forward_sm90"):
        return f"forward for sm_90a, {element}, D {head}"
    exact = "float" if element == "float" and "true" not in arguments[-1:] else "tf32"
    number = element if element != "float" else exact
    if "decode" in kernel:
        return f"decoding, {element}, D {head}"
    if "forward" in kernel:
        return f"forward, {number}, D {head}"
    return f"{'dK and dV' if arguments[2] == 'true' else 'dQ'}, {number}, D {head}"


def row(e: Estimate) -> str:
    busy = " | ".join(f"{e.busy[pipe]:.0f}" for pipe in PIPES)
    copies = f"{e.counts['HMMA'] + e.counts['HGMMA']}"
    shares = f"{e.overlapped:.0%} ({e.limit}) | {e.added:.0%}"
    memory = f"{e.memory:.0f}" if e.memory else ""
    return (
        f"| {label(e.kernel)} | {MACHINES[e.arch].name} | {copies} | {busy} | {memory} | {shares} |"
    )


HEADER = """\
| kernel | on | products | tensor | special | float | integer | shared | issue | memory | side by side | one by one |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|"""


def table() -> str:
    """All of the estimates, as the document has them."""
    folder = cubin_build.ROOT / "csrc" / "ops" / "attention" / "cuda"
    sources = [p for name in SOURCES if (p := folder / f"{name}.cu").exists()]
    rows = {arch: [] for arch in MACHINES}  # type: dict[str, list[str]]
    for arch in MACHINES:
        own = [p for p in sources if arch == "sm_90a" or not p.stem.endswith("_sm90")]
        rows[arch] = [row(e) for e in estimates(own, arch)]
    return "\n".join([HEADER, *(line for lines in rows.values() for line in lines)])


def replaced(text: str, name: str, content: str) -> str:
    """The text with what stands between the marks of a name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return before + begin + "\n" + content + "\n\n" + end + rest.split(end)[1]


def main() -> None:
    sys.path.insert(0, str(cubin_build.ROOT / "tests"))
    from emulated import attention_traffic

    text = replaced(DOCUMENT.read_text(), "bounds", table())
    DOCUMENT.write_text(replaced(text, "traffic", attention_traffic.table()))


if __name__ == "__main__":
    main()
