"""Environment report: what was built, what runs here, and where each op runs.

``suffuse info`` prints it, ``suffuse info --json`` is for bug reports.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from typing import Any

import torch

from suffuse import _library
from suffuse.testing import cpu_isa

OPS: dict[str, tuple[str, ...]] = {
    "attention": (
        "attention_fwd",
        "attention_bwd",
        "attention_general_fwd",
        "attention_general_bwd",
        "attention_decode",
        "attention_append",
    ),
    "causal_conv1d": ("causal_conv1d_fwd", "causal_conv1d_bwd", "causal_conv1d_update"),
    "guidance_gram": ("guidance_gram",),
    "linear_scan": ("linear_scan",),
    "qk_norm": ("qk_norm_fwd", "qk_norm_bwd"),
    "rotary": ("rotary", "rotary_"),
    "s4_kernel": ("s4_kernel_cauchy", "s4_kernel_moments", "s4_kernel_vandermonde"),
    "sampler_step": ("sampler_step",),
    "selective_scan": ("selective_scan_fwd", "selective_scan_bwd", "selective_state_update"),
}
"""Public op -> the torch ops behind it."""


def host_facts() -> dict[str, Any]:
    """CPU features and caches from the host module, which is bound to one Python version."""
    try:
        host = importlib.import_module("suffuse._host")
    except ImportError:
        return {"available": False, "why": "the host module was built for another Python version"}
    return {
        "available": True,
        "features": host.cpu_features(),
        "supported_isas": host.supported_isas(),
        "cache_bytes": host.cache_bytes(),
    }


def cpu_name() -> str:
    """The processor's own name, or the machine type where the system does not tell."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()


def has_kernel(op: str, device: str) -> bool:
    """Whether every torch op behind the public op has a native kernel for ``device``."""
    key = {"cpu": "CPU", "cuda": "CUDA"}[device]
    return all(
        torch._C._dispatch_has_kernel_for_dispatch_key(f"suffuse::{name}", key) for name in OPS[op]
    )


def backend_table() -> dict[str, dict[str, str]]:
    """Op -> device -> what runs there: "native kernel" or the reference formula, and why."""
    table: dict[str, dict[str, str]] = {}
    for op in OPS:
        table[op] = {"cpu": f"native kernel ({cpu_isa()})"}
        if has_kernel(op, "cuda"):
            note = "" if torch.cuda.is_available() else ", no CUDA device here"
            table[op]["cuda"] = f"native kernel{note}"
        elif "cuda" not in _library.LOADED:
            table[op]["cuda"] = "reference formula (CPU-only build)"
        else:
            table[op]["cuda"] = "reference formula (no CUDA kernel yet)"
        table[op]["other devices"] = "reference formula"
    return table


def report() -> dict[str, Any]:
    """Everything that a bug report needs, as plain data (JSON-serialisable)."""
    from suffuse import __version__

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "suffuse": __version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "build": _library.build_facts(),
        "libraries": _library.LOADED,
        "cpu": {
            "name": cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "isa": cpu_isa(),
            "isa_forced_by": os.environ.get("SUFFUSE_CPU_ISA"),
        },
        "host": host_facts(),
        "cuda": {"torch": torch.version.cuda, "devices": devices},
        "ops": backend_table(),
        "packages": _versions("numpy", "safetensors", "tqdm", "diffusers", "transformers"),
    }


def _versions(*names: str) -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions
