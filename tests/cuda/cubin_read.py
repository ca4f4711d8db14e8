"""What ptxas and the disassembler say of the kernels of a cubin."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cubin_build import CannotBuild, Cubin

WIDTHED = {
    "LDG": "global load",
    "STG": "global store",
    "LD": "load of unknown memory",
    "ST": "store to unknown memory",
    "LDS": "shared load",
    "STS": "shared store",
    "LDL": "local load",
    "STL": "local store",
    "LDGSTS": "copy from global to shared",
}
# Counted with the first modifier, which says what they do; the others say how.
BRIEF = ("SHFL", "BAR", "SYNCS", "MUFU", "UTMALDG", "UTMASTG", "UBLKCP")
# Counted whatever their modifiers, under the name that older architectures have.
BARE = {"ATOM": "ATOM", "ATOMG": "ATOM", "ATOMS": "ATOMS", "RED": "RED", "REDG": "RED"}
BARE |= {"REDUX": "REDUX", "USETMAXREG": "USETMAXREG"}
# Counted with all modifiers: the shape and the types of an operation of the tensor cores.
WHOLE = ("HMMA", "HGMMA", "IMMA", "DMMA", "LDSM", "STSM")
TRAP = "BPT.TRAP"


@dataclass
class Kernel:
    symbol: str
    name: str  # such as step_kernel<float, 4>
    arch: str
    source: str
    registers: int = 0
    stack: int = 0
    spills: int = 0  # bytes stored and loaded
    static_shared: int = 0
    threads: int = 0  # of __launch_bounds__, 0 without
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def family(self) -> str:
        """The template."""
        return self.name.split("<")[0]

    @property
    def traps(self) -> bool:
        """A kernel whose words this architecture lacks compiles to a trap."""
        return self.counts[TRAP] > 0


@functools.cache
def disassembler() -> tuple[str, dict[str, str]]:
    """cuobjdump, of the CUDA toolkit or NVIDIA's wheels, and an environment where it finds nvdisasm."""
    places = [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        places += [str(place) for place in sorted(Path(folder).glob("*/bin"))]
    path = os.pathsep.join(places)
    found = shutil.which("cuobjdump", path=path)
    if found is None or shutil.which("nvdisasm", path=path) is None:
        raise CannotBuild(
            "no cuobjdump or nvdisasm: install nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm"
        )
    return found, {**os.environ, "PATH": path}


def cuobjdump(option: str, cubin: str) -> str:
    program, environment = disassembler()
    command = [program, option, cubin]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def demangle(symbols: list[str]) -> list[str]:
    """Without return types, parameters and namespaces."""
    done = subprocess.run(
        ["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True
    )
    return [short_name(line) for line in done.stdout.splitlines()]


def short_name(demangled: str) -> str:
    text = demangled.replace("(anonymous namespace)::", "").replace("> >", ">>")
    text = re.sub(r"\((?:\w+|\w+::[\w:]+)\)(-?\d+)", r"\1", text)  # (Enum)2, (int)4 in arguments
    depth = 0
    for i, letter in enumerate(text):  # the parameters start at the first ( outside < >
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            text = text[:i]
            break
    text = re.sub(r"\b\w+::", "", text).replace("unsigned long long", "uint64_t")
    return re.sub(r"^[\w ]*? (?=\w+(<|$))", "", text).strip()


def width_of(modifiers: list[str]) -> str:
    """The bits that one thread moves."""
    for word in modifiers:
        if word in ("128", "64"):
            return word
        if word in ("U8", "S8", "U16", "S16"):
            return word[1:]
    return "32"


def counted_as(opcode: str) -> str | None:
    """The word of the table that an instruction is counted under."""
    name, *modifiers = opcode.split(".")
    if name in WIDTHED:
        return f"{name}.{width_of(modifiers)}"
    if name in WHOLE or opcode == TRAP:
        return opcode
    if name in BARE:
        return BARE[name]
    if name in BRIEF:
        return ".".join([name, *modifiers[:1]])
    return None


INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.a-z]*)")


def read_counts(sass: str) -> dict[str, Counter[str]]:
    """Instructions of each function, by the table's words."""
    functions: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    for line in sass.splitlines():
        if "Function : " in line:
            counts = functions.setdefault(line.split("Function : ")[1].strip(), Counter())
        elif found := INSTRUCTION.search(line):
            word = counted_as(found[1])
            if word:
                counts[word] += 1
    return functions


def read_threads(elf: str) -> dict[str, int]:
    """__launch_bounds__ of the kernels that state them."""
    bounds = {}
    for part in re.split(r"^\.nv\.info\.", elf, flags=re.MULTILINE)[1:]:
        found = re.search(r"EIATTR_MAX_THREADS\s+Format:\s+\w+\s+Value:\s+((?:0x\w+ ?){3})", part)
        if found:
            x, y, z = (int(word, 16) for word in found[1].split())
            bounds[part.split(None, 1)[0]] = x * y * z
    return bounds


PROPERTIES = re.compile(
    r"Function properties for (\w+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads(?:\nptxas info\s*: Used (\d+) registers(.*))?"
)


@functools.cache
def read_kernels(cubin: Cubin) -> tuple[Kernel, ...]:
    counts = read_counts(cuobjdump("-sass", cubin.path))
    threads = read_threads(cuobjdump("-elf", cubin.path))
    entries = set(re.findall(r"Compiling entry function '(\w+)'", cubin.log))
    kernels = []
    for symbol, stack, stored, loaded, registers, rest in PROPERTIES.findall(cubin.log):
        if symbol not in entries:
            continue
        shared = re.search(r"(\d+) bytes smem", rest)
        whole_stack = re.search(r"(\d+) bytes cumulative stack", rest)
        kernel = Kernel(symbol, "", cubin.arch, cubin.source, int(registers))
        kernel.stack = int(whole_stack[1]) if whole_stack else int(stack)
        kernel.spills = int(stored) + int(loaded)
        kernel.static_shared = int(shared[1]) if shared else 0
        kernel.threads = threads.get(symbol, 0)
        kernel.counts = counts.pop(symbol)
        kernels.append(kernel)
    if len(kernels) != len(entries):
        raise ValueError(f"{cubin.source} for {cubin.arch}: ptxas -v was not understood")
    for kernel, name in zip(kernels, demangle([k.symbol for k in kernels]), strict=True):
        kernel.name = name
    return tuple(sorted(kernels, key=lambda kernel: kernel.name))


def read_all(cubins: Iterable[Cubin]) -> list[Kernel]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [kernel for kernels in pool.map(read_kernels, cubins) for kernel in kernels]
