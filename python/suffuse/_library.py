"""Loads the native libraries; importing this module registers every torch op of the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parent


def _load() -> list[str]:
    cpu = _FOLDER / "_cpu.abi3.so"
    if not cpu.exists():
        raise ImportError(
            f"suffuse: the native library {cpu.name} is missing from {_FOLDER}; "
            "install the package with pip, or build it in place with 'make build'"
        )
    try:
        torch.ops.load_library(str(cpu))
    except OSError as error:
        built = build_facts().get("built_with_torch", "unknown")
        raise ImportError(
            f"suffuse: cannot load {cpu.name} (built with torch {built}, needs torch >= 2.10, "
            f"this is torch {torch.__version__}): {error.__cause__ or error}"
        ) from error
    return ["cpu", *_load_cuda(_FOLDER / "_cuda.abi3.so")]


def _load_cuda(path: Path) -> list[str]:
    # The CUDA half asks for stream handles, which torch has from 2.13 on; CPU use must not suffer.
    if not path.exists():
        return []
    try:
        torch.ops.load_library(str(path))
    except OSError:
        return []
    return ["cuda"]


def build_facts() -> dict[str, Any]:
    """What the libraries were built with (compiler, ISAs, CUDA archs); empty if not built."""
    path = _FOLDER / "build.json"
    return json.loads(path.read_text()) if path.exists() else {}


LOADED = _load()
