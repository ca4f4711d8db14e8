"""diffusers' schedulers as the answer to compare with: as they are, and in double precision.

For the latter a scheduler's module is loaded a second time with float32 replaced by float64 in its
source, and works while torch's default dtype is float64.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.schedulers import deprecated
from torch import Tensor

from suffuse.compat import diffusers as drop_ins
from suffuse.compat.diffusers._base import Scheduler

REPLACED = {
    "float32": "float64",
    ".float()": ".double()",
    "torch.Tensor(": "torch.tensor(",
    # Made by another scheduler's module, which has to be the one in double precision then.
    "from .scheduling_flow_match_euler_discrete import": (
        "from .scheduling_flow_match_euler_discrete_in_double import"
    ),
}


def peer(name: str) -> Any:
    """diffusers' class of a name, wherever it is exported."""
    for module in (diffusers, diffusers.schedulers, deprecated):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)


@cache
def _double_module(name: str) -> types.ModuleType:
    original = importlib.import_module(name)
    if name.endswith("ltx_euler_ancestral_rf"):
        _double_module("diffusers.schedulers.scheduling_flow_match_euler_discrete")
    source = Path(str(original.__file__)).read_text()
    for old, new in REPLACED.items():
        source = source.replace(old, new)
    module = types.ModuleType(f"{name}_in_double")
    module.__package__, module.__file__ = original.__package__, original.__file__
    sys.modules[module.__name__] = module
    exec(compile(source, str(original.__file__), "exec"), module.__dict__)
    return module


def in_double(cls: type, *, drawing: torch.dtype = torch.float64) -> Any:
    """The same class computing in float64. drawing: dtype in which it draws its noise."""
    module = _double_module(cls.__module__)
    if hasattr(module, "randn_tensor"):
        draw = importlib.import_module("diffusers.utils.torch_utils").randn_tensor

        def randn_tensor(*args: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
            return draw(*args, dtype=drawing, **kwargs).to(torch.float64)

        module.__dict__["randn_tensor"] = randn_tensor
    return getattr(module, cls.__name__)


@contextmanager
def double_precision() -> Iterator[None]:
    """torch's default dtype is float64, and the drop-ins hold their tables in float64."""
    torch.set_default_dtype(torch.float64)
    Scheduler._precision = torch.float64
    try:
        yield
    finally:
        Scheduler._precision = torch.float32
        torch.set_default_dtype(torch.float32)


def drop_in(name: str) -> Any:
    return getattr(drop_ins, name)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def model(x: Tensor, t: Any) -> Tensor:
    """A smooth function of the sample and the time with values of about the size of noise."""
    mixing = torch.tensor([[0.2, -0.5, 0.3], [0.4, 0.1, -0.3], [-0.2, 0.3, 0.5]], dtype=x.dtype)
    return torch.tanh(torch.einsum("bc...,cd->bd...", x, mixing) + float(t) / 1000) * 1.3


def start(scheduler: Any, dtype: torch.dtype) -> Tensor:
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return noise.to(torch.float32).to(dtype) * float(getattr(scheduler, "init_noise_sigma", 1.0))


def trajectory(
    scheduler: Any,
    dtype: torch.dtype,
    *,
    setting: dict[str, Any] | None = None,
    stepping: dict[str, Any] | None = None,
    generator: torch.Generator | None = None,
    begin: int | None = None,
) -> tuple[Tensor, Tensor]:
    """All samples of a run, and all second results of its steps (the samples where there is none)."""
    setting, stepping = dict(setting or {}), dict(stepping or {})
    scheduler.set_timesteps(**setting)
    if generator is not None:
        stepping["generator"] = generator
    timesteps = scheduler.timesteps
    if type(scheduler).__name__ == "SCMScheduler":
        timesteps = timesteps[:-1]
    if begin is not None:
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
    x = start(scheduler, dtype)
    samples, second = [], []
    for t in timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        result = scheduler.step(model(scaled, t), t, x, **stepping, return_dict=False)
        x = result[0]
        samples.append(x)
        second.append(result[1] if len(result) > 1 and result[1] is not None else x)
    return torch.stack(samples), torch.stack(second)
