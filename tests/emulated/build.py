"""Compiles kernels for the host emulator: one shared library per source, each with the engine in it.

Objects and libraries are kept under build/emulated by the text of all that they were made from, so
nothing is compiled twice, and processes that want the same one wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "tests" / "emulated"
ENGINE = ROOT / "tests" / "emulator"
BUILD = ROOT / "build" / "emulated"

ENGINE_FLAGS = [
    *("-std=c++17", "-O2", "-g", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas"),
]
# The compiler reports every access of a kernel to the engine, which defines what -fsanitize=thread
# calls; libtsan is not linked. Without -fno-tree-sra a float4 is read as four floats.
KERNEL_FLAGS = [
    *ENGINE_FLAGS,
    *("-DSUFFUSE_EMULATOR", "-fsanitize=thread", "-fno-tree-sra"),
    *("--param", "tsan-instrument-func-entry-exit=0"),
]


class CannotBuild(Exception):
    """What the emulator needs and this machine lacks, in one line."""


@functools.cache
def cuda_include() -> Path:
    """The folder with CUDA's vector_types.h: of nvcc, of CUDA_HOME, or of NVIDIA's wheels."""
    folders = [
        Path(os.environ[name], "include")
        for name in ("CUDA_HOME", "CUDA_PATH")
        if name in os.environ
    ]
    nvcc = shutil.which("nvcc")
    if nvcc:
        folders.append(Path(nvcc).resolve().parents[1] / "include")
    folders.append(Path("/usr/local/cuda/include"))
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("nvidia")
        for place in (spec.submodule_search_locations or []) if spec else []:
            folders += sorted(Path(place).glob("*/include"))
    for folder in folders:
        if (folder / "vector_types.h").exists() and (folder / "crt" / "host_defines.h").exists():
            return folder
    raise CannotBuild(
        "no CUDA headers (vector_types.h): install CUDA, or the wheels nvidia-cuda-runtime and nvidia-cuda-crt"
    )


@functools.cache
def compiler() -> tuple[str, str]:
    """g++ and its version; the emulator is written for it on x86-64."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise CannotBuild(
            f"the emulator switches threads in x86-64 assembly, this is {platform.machine()}"
        )
    name = os.environ.get("SUFFUSE_EMULATOR_CXX", "g++")
    found = shutil.which(name)
    if found is None:
        raise CannotBuild(f"no {name}")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    return found, version.stdout.splitlines()[0]


def include_flags(overlay: Path | None = None) -> list[str]:
    folders = [*([overlay] if overlay else []), ROOT / "csrc", ROOT / "tests"]
    return [*(f"-I{folder}" for folder in folders), "-isystem", str(cuda_include())]


def digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:20]


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def dependencies(object_file: Path) -> list[Path]:
    """What an object was made from, as the compiler wrote it down."""
    text = object_file.with_suffix(".d").read_text().replace("\\\n", " ")
    names = re.findall(r"(?:\\ |\S)+", text.split(":", 1)[1])
    return [Path(name.replace("\\ ", " ")) for name in names]


def content_key(command: str, files: Sequence[Path]) -> str:
    return digest(command, *(part for file in files for part in (str(file), file.read_bytes())))


def compile_object(source: Path, flags: Sequence[str]) -> Path:
    """The object of a source; compiled only if its text, a header's or the command is new."""
    program, version = compiler()
    command = [program, *flags, "-c", str(source)]
    identity = " ".join([version, *command])
    name = f"{source.stem}_{digest(identity)}"
    with locked(name):
        last = BUILD / f"{name}.d"  # of the newest object: says which files to look at
        if last.exists():
            files = dependencies(last)
            if all(file.exists() for file in files):
                known = BUILD / f"{source.stem}_{content_key(identity, files)}.o"
                if known.exists():
                    return known
        unfinished = BUILD / f"{name}.{os.getpid()}.o"
        ccache = [shutil.which("ccache")] if shutil.which("ccache") else []
        run(
            [
                *filter(None, ccache),
                *command,
                "-MMD",
                "-MF",
                str(unfinished.with_suffix(".d")),
                "-o",
                str(unfinished),
            ]
        )
        files = dependencies(unfinished)
        result = BUILD / f"{source.stem}_{content_key(identity, files)}.o"
        shutil.copyfile(unfinished.with_suffix(".d"), result.with_suffix(".d"))
        unfinished.with_suffix(".d").rename(last)
        unfinished.rename(result)
        return result


def engine_objects() -> list[Path]:
    sources = sorted(file for file in ENGINE.glob("*.cpp") if not file.name.startswith("selftest"))
    flags = [*ENGINE_FLAGS, *include_flags()]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda source: compile_object(source, flags), sources))


def link(name: str, objects: Sequence[Path]) -> Path:
    """A library of objects. What the engine lacks, such as a hook of std::atomic, fails here."""
    program, version = compiler()
    flags = ["-shared", "-fPIC", "-Wl,-z,defs", "-Wl,-z,now"]
    library = BUILD / f"{name}_{digest(version, *flags, *(file.name for file in objects))}.so"
    with locked(library.stem):
        if not library.exists():
            unfinished = library.with_suffix(f".{os.getpid()}")
            run([program, *flags, *map(str, objects), "-ldl", "-o", str(unfinished)])
            unfinished.rename(library)
    return library


def kernel_source(name: str) -> Path:
    """tests/emulated/<name>.cpp, or one of the engine's own self-tests."""
    for folder in (KERNELS, ENGINE):
        if (folder / f"{name}.cpp").exists():
            return folder / f"{name}.cpp"
    raise FileNotFoundError(f"no {name}.cpp in tests/emulated or tests/emulator")


@functools.cache
def library(name: str) -> Path:
    """The shared library of tests/emulated/<name>.cpp and the engine."""
    kernels = compile_object(kernel_source(name), [*KERNEL_FLAGS, *include_flags()])
    return link(name, [kernels, *engine_objects()])
