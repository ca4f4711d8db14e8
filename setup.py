"""Builds Suffuse's native libraries: checks the tools, then hands over to CMake, which owns sources and flags."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
MIN_GCC, MIN_CLANG, MIN_CUDA = (10, 1), (12, 0), (12, 4)
GIB_PER_JOB = 2.0


def stop(sentence: str) -> None:
    """End the build with one sentence instead of a traceback."""
    sys.exit(f"suffuse: {sentence}")


def output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def find_version(pattern: str, text: str) -> tuple[int, ...]:
    match = re.search(pattern, text)
    return tuple(int(part) for part in match.groups()) if match else ()


def show(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def check_compiler() -> None:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    compiler = next((name for name in names if shutil.which(name.split()[0])), None)
    if compiler is None:
        stop(f"no C++ compiler found (looked for {', '.join(names)}); install g++ or set CXX.")
    text = output(*compiler.split(), "--version")
    version = find_version(r"(\d+)\.(\d+)", text.splitlines()[0] if text else "")
    kind, least = ("clang", MIN_CLANG) if "clang" in text else ("g++", MIN_GCC)
    if not version:
        stop(f"cannot run the C++ compiler '{compiler}'.")
    if version < least and "Apple" not in text:
        stop(f"{kind} {show(version)} is too old: {kind} {show(least)} or newer is needed.")


def find_cuda() -> Path | None:
    """nvcc to build with, or None for a CPU-only build. SUFFUSE_CUDA=0|1 forbids or demands it."""
    wish = os.environ.get("SUFFUSE_CUDA", "auto")
    if wish not in ("0", "1", "auto"):
        stop(f"SUFFUSE_CUDA is 0, 1 or auto, got '{wish}'.")

    def without(reason: str) -> None:
        if wish == "1":
            stop(f"SUFFUSE_CUDA=1, but {reason}.")
        print(f"suffuse: CPU-only build: {reason}.", flush=True)

    if wish == "0":
        return without("SUFFUSE_CUDA=0")
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(home, "bin"))
    if nvcc is None:
        return without("no nvcc on PATH or in CUDA_HOME/bin")
    version = find_version(r"release (\d+)\.(\d+)", output(nvcc, "--version"))
    if version < MIN_CUDA:
        return without(f"nvcc {show(version)} is too old, {show(MIN_CUDA)} or newer is needed")
    dryrun = [nvcc, "--dryrun", "-x", "cu", os.devnull, "-o", os.devnull]
    commands = subprocess.run(dryrun, capture_output=True, text=True).stderr
    for folder in re.findall(r'-I"?([^"\s]+)', commands):
        header = Path(folder, "cuda_runtime_api.h")
        if header.exists():
            number = find_version(r"define CUDART_VERSION\s+(\d+)", header.read_text())[0]
            headers = (number // 1000, number % 1000 // 10)
            if headers != version:
                return without(f"nvcc is {show(version)}, but its headers are {show(headers)}")
            return Path(nvcc)
    return without(f"nvcc {show(version)} has no cuda_runtime_api.h")


def jobs() -> int:
    if os.environ.get("MAX_JOBS"):
        return int(os.environ["MAX_JOBS"])
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(os.cpu_count() or 1, int(gib / GIB_PER_JOB)))


class CMakeBuild(build_ext):
    def run(self) -> None:
        check_compiler()
        nvcc = find_cuda()
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        package = ROOT / "python" / "suffuse" if self.inplace else Path(self.build_lib, "suffuse")
        pybind = output(sys.executable, "-m", "pybind11", "--cmakedir").strip()
        configure = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build)]
        definitions = {"Python_EXECUTABLE": sys.executable, "pybind11_DIR": pybind,
                       "SUFFUSE_CUDA": "ON" if nvcc else "OFF",
                       "SUFFUSE_VERSION": self.distribution.get_version()}  # fmt: skip
        if nvcc:
            definitions["CMAKE_CUDA_COMPILER"] = str(nvcc)
        if os.environ.get("SUFFUSE_CUDA_ARCHS"):
            definitions["SUFFUSE_CUDA_ARCHS"] = os.environ["SUFFUSE_CUDA_ARCHS"]
        configure += [f"-D{name}={value}" for name, value in definitions.items()]
        compile = ["cmake", "--build", str(build), "-j", str(jobs())]
        install = ["cmake", "--install", str(build), "--prefix", str(package.resolve())]
        for command in (configure, compile, install):
            if subprocess.run(command).returncode:
                stop(f"'{' '.join(command[:2])}' failed, see the lines above.")


setup(
    ext_modules=[Extension("suffuse._cpu", sources=[], py_limited_api=True)],
    cmdclass={"build_ext": CMakeBuild},
)
