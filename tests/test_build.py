"""What the build says when a tool is missing, too old or mismatched: one clear sentence."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
import setuptools

SETUP = Path(__file__).parents[1] / "setup.py"


@pytest.fixture
def build(monkeypatch):
    monkeypatch.setattr(setuptools, "setup", lambda **kwargs: None)
    for name in ("CXX", "SUFFUSE_CUDA", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return runpy.run_path(str(SETUP))


def tool(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def use_path(monkeypatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_setup_is_short():
    assert len(SETUP.read_text().splitlines()) <= 120


def test_no_compiler(build, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"no C\+\+ compiler found .* install g\+\+ or set CXX"):
        build["check_compiler"]()


def test_compiler_too_old(build, monkeypatch, tmp_path):
    old = tool(tmp_path, "old-g++", "echo 'g++ (GCC) 7.5.0'")
    monkeypatch.setenv("CXX", str(old))
    with pytest.raises(SystemExit, match=r"g\+\+ 7\.5 is too old: g\+\+ 10\.1 or newer is needed"):
        build["check_compiler"]()


def test_compiler_that_does_not_run(build, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(tool(tmp_path, "broken", "exit 1")))
    with pytest.raises(SystemExit, match="cannot run the C\\+\\+ compiler"):
        build["check_compiler"]()


def test_no_nvcc_is_a_cpu_only_build(build, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert build["find_cuda"]() is None
    assert "CPU-only build: no nvcc on PATH" in capsys.readouterr().out


def test_demanded_cuda_without_nvcc_is_an_error(build, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("SUFFUSE_CUDA", "1")
    with pytest.raises(SystemExit, match="SUFFUSE_CUDA=1, but no nvcc"):
        build["find_cuda"]()


def test_cuda_switch_is_checked(build, monkeypatch):
    monkeypatch.setenv("SUFFUSE_CUDA", "yes")
    with pytest.raises(SystemExit, match="SUFFUSE_CUDA is 0, 1 or auto, got 'yes'"):
        build["find_cuda"]()


def test_old_nvcc(build, monkeypatch, tmp_path, capsys):
    tool(tmp_path, "nvcc", "echo 'Cuda compilation tools, release 11.2, V11.2.67'")
    use_path(monkeypatch, tmp_path)
    assert build["find_cuda"]() is None
    assert "nvcc 11.2 is too old, 12.4 or newer is needed" in capsys.readouterr().out


def test_nvcc_with_other_headers(build, monkeypatch, tmp_path, capsys):
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_runtime_api.h").write_text("#define CUDART_VERSION  12080\n")
    script = f"""case "$1" in
--version) echo 'Cuda compilation tools, release 13.0, V13.0.88';;
*) echo '#$ INCLUDES="-I{tmp_path}/include" ' >&2;;
esac"""
    tool(tmp_path, "nvcc", script)
    use_path(monkeypatch, tmp_path)
    assert build["find_cuda"]() is None
    assert "nvcc is 13.0, but its headers are 12.8" in capsys.readouterr().out
