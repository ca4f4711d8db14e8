"""Compiles the CUDA sources with the flags of CMakeLists.txt, to cubins or to objects with launchers.

They are kept under build/cubins by the text of all that they were made from, beside what the
compiler said and the seconds it took; processes that want the same one wait for each other.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "cubins"

# Beside those of the product: what its users may build for. Only that they compile is checked.
OTHER_ARCHS = ("sm_86", "sm_100a", "sm_120a")
# Instead of an architecture: an object for the linker, with little device code.
HOST = "host"


class CannotBuild(Exception):
    """What the static checks need and this machine lacks, in one line."""


class DoesNotCompile(Exception):
    """What nvcc says of a source."""


@dataclass(frozen=True)
class Cubin:
    source: str  # relative to the repository
    arch: str
    path: str
    log: str
    seconds: float  # of the processor, in this build or the earlier one that is used again


@functools.cache
def nvcc() -> tuple[str, str]:
    """nvcc and its release, such as 13.0."""
    found = shutil.which("nvcc") or shutil.which(
        "nvcc", path=os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")
    )
    if found is None:
        raise CannotBuild("no nvcc on PATH or in CUDA_HOME/bin")
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+\.\d+)", said)
    if release is None:
        raise CannotBuild(f"{found} --version names no release")
    return found, release[1]


@functools.cache
def cmake_text() -> str:
    return (ROOT / "CMakeLists.txt").read_text()


def cmake_value(pattern: str) -> str:
    found = re.search(pattern, cmake_text())
    if found is None:
        raise ValueError(f"CMakeLists.txt: nothing matches {pattern}")
    return found[1]


def product_flags() -> list[str]:
    """What CMakeLists.txt gives nvcc, architectures apart."""
    release = cmake_value(r'set\(CMAKE_CUDA_FLAGS_RELEASE "([^"]*)"\)')
    options = cmake_value(r"\$<\$<COMPILE_LANGUAGE:CUDA>:(-[^>]*)>")
    return [*release.split(), *options.split("$<SEMICOLON>"), cpp_standard()]


def cpp_standard() -> str:
    return "-std=c++" + cmake_value(r"set\(CMAKE_CUDA_STANDARD (\d+)\)")


def product_archs() -> tuple[str, ...]:
    names = cmake_value(r'set\(SUFFUSE_CUDA_ARCHS "([^"]*)"')
    return tuple(f"sm_{name.removesuffix('-real')}" for name in names.split(";"))


def has_arch(name: str, arch: str) -> bool:
    """Whether a source is compiled for it: CMakeLists.txt makes *_sm90.cu for sm_90a alone."""
    return not (name.startswith("csrc/") and name.endswith("_sm90.cu")) or arch in ("sm_90a", HOST)


def sources() -> list[Path]:
    """The product's, and those that instantiate what the product's kernels are made from."""
    product = sorted((ROOT / "csrc" / "ops").glob("*/cuda/*.cu"))
    return [*product, *sorted(HERE.glob("kernels*.cu"))]


def content_key(identity: str, files: Iterable[Path]) -> str:
    whole = hashlib.sha256(identity.encode())
    for file in files:
        whole.update(f"{file}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:20]


def read_dependencies(file: Path) -> list[Path]:
    """The project's own files of a make rule; the release of nvcc stands for its headers."""
    text = file.read_text().replace("\\\n", " ").split(":", 1)[1]
    names = [Path(name.replace("\\ ", " ")) for name in re.findall(r"(?:\\ |\S)+", text)]
    return sorted({name for name in names if name.is_relative_to(ROOT) or name.suffix == ".cu"})


def run_timed(command: list[str]) -> tuple[int, str, float]:
    """Status, output and processor seconds: those do not depend on what else the machine does."""
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return child.returncode, output.read(), usage.ru_utime + usage.ru_stime


def target_flags(arch: str) -> list[str]:
    if arch == HOST:
        oldest = product_archs()[0].removeprefix("sm_")
        return [f"--generate-code=arch=compute_{oldest},code=compute_{oldest}"]
    return ["-cubin", f"--generate-code=arch=compute_{arch.removeprefix('sm_')},code=[{arch}]"]


def compile_cubin(source: Path, arch: str) -> Cubin:
    """The cubin of a source; compiled only if its text, a header's or the command is new."""
    program, release = nvcc()
    command = [program, *product_flags(), *target_flags(arch), f"-I{ROOT / 'csrc'}"]
    command += ["-c", str(source)]
    identity = " ".join([release, *command])
    stem = f"{'_'.join(source.parts[-3:]).removesuffix('.cu')}_{arch}"
    last = BUILD / f"{stem}_{content_key(identity, [])}.d"  # which files to look at
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(last.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if last.exists():
            files = read_dependencies(last)
            if all(file.exists() for file in files):
                facts = BUILD / f"{stem}_{content_key(identity, files)}.json"
                if facts.exists():
                    return Cubin(**json.loads(facts.read_text()))
        return compile_new(command, source, arch, BUILD / stem, last, identity)


def compile_new(
    command: list[str], source: Path, arch: str, stem: Path, last: Path, identity: str
) -> Cubin:
    unfinished = last.with_suffix(f".{os.getpid()}{'.o' if arch == HOST else '.cubin'}")
    rule = unfinished.with_suffix(".d")
    ccache = shutil.which("ccache")
    command = [*([ccache] if ccache else []), *command]
    status, log, seconds = run_timed([*command, "-MD", "-MF", str(rule), "-o", str(unfinished)])
    if status:
        rule.unlink(missing_ok=True)
        raise DoesNotCompile(f"{' '.join(command)}\n{log}")
    key = content_key(identity, read_dependencies(rule))
    path = Path(f"{stem}_{key}{unfinished.suffix}")
    rule.rename(last)
    unfinished.rename(path)
    name = str(source.relative_to(ROOT) if source.is_relative_to(ROOT) else source)
    cubin = Cubin(name, arch, str(path), log, round(seconds, 2))
    facts = path.with_suffix(".json")
    facts.with_suffix(".new").write_text(json.dumps(asdict(cubin)))
    facts.with_suffix(".new").rename(facts)  # last: it says that all is there
    return cubin


def source_names() -> list[str]:
    return [str(source.relative_to(ROOT)) for source in sources()]


def compile_all(names: Iterable[str], archs: Iterable[str]) -> dict[str, list[Cubin] | str]:
    """Each source for those of the architectures that it has, or why it does not compile; on all
    processors."""
    tasks = [(name, arch) for name in names for arch in archs if has_arch(name, arch)]

    def build(task: tuple[str, str]) -> Cubin | str:
        try:
            return compile_cubin(ROOT / task[0], task[1])
        except DoesNotCompile as error:
            return str(error)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        built = zip(tasks, pool.map(build, tasks), strict=True)
        results: dict[str, list[Cubin] | str] = {}
        for (name, _), cubin in built:
            earlier = results.setdefault(name, [])
            if isinstance(earlier, list):
                if isinstance(cubin, str):
                    results[name] = cubin
                else:
                    earlier.append(cubin)
    return results


def link_program(name: str, parts: Iterable[Path]) -> Path:
    """A program of objects and C++ sources, without a CUDA runtime."""
    program, release = nvcc()
    files = [*parts, HERE / "recording_runtime.h"]
    command = [program, cpp_standard(), f"-I{ROOT / 'csrc'}", f"-I{HERE}", "-cudart", "none"]
    path = BUILD / f"{name}_{content_key(' '.join([release, *command]), files)}"
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        command += [*(str(file) for file in files if file.suffix != ".h"), "-o", str(unfinished)]
        status, log, _ = run_timed(command)
        if status:
            raise DoesNotCompile(f"{' '.join(command)}\n{log}")
        unfinished.rename(path)
    return path


def known_archs(archs: Iterable[str]) -> list[str]:
    """Those that this release of nvcc has heard of."""
    program, _ = nvcc()
    codes = subprocess.run([program, "--list-gpu-code"], capture_output=True, text=True).stdout
    return [arch for arch in archs if arch.rstrip("a") in codes.split()]
