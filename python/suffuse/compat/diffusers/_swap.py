"""Replaces the schedulers of diffusers' pipelines by the drop-ins, and its attention, and puts them back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from suffuse.compat import diffusers as drop_ins
from suffuse.compat.diffusers._attention import replace_native

Change = tuple[str, Callable[[], None]]


def apply(*pipelines: Any) -> list[Change]:
    """The changes for these pipelines, or for all new ones and attention if there are none; all or nothing."""
    if not pipelines:
        return [_patch_registration(), *replace_native()]
    replacements = [(pipeline, _replacement(pipeline)) for pipeline in pipelines]
    return [_swap(pipeline, scheduler) for pipeline, scheduler in replacements]


def drop_in_class(scheduler: Any) -> type | None:
    """The drop-in for a scheduler whose class is one of diffusers' own, otherwise None."""
    kind = type(scheduler)
    name = kind.__name__
    if not kind.__module__.startswith("diffusers.schedulers.") or name not in drop_ins.SCHEDULERS:
        return None
    return getattr(drop_ins, name)


def _replacement(pipeline: Any) -> Any:
    scheduler = getattr(pipeline, "scheduler", None)
    if scheduler is None:
        kind = type(pipeline).__name__
        raise TypeError(f"enable: target is a {kind}, expected a pipeline with a scheduler")
    drop_in = drop_in_class(scheduler)
    if drop_in is None:
        own = type(scheduler)
        raise TypeError(
            f"enable: {type(pipeline).__name__}.scheduler is a {own.__module__}.{own.__name__}, "
            "expected one of diffusers' schedulers that suffuse.compat.diffusers.SCHEDULERS lists"
        )
    return _converted(drop_in, scheduler)


def _converted(drop_in: Any, scheduler: Any) -> Any:
    """The drop-in with a scheduler's configuration, as far as `set_timesteps` has not changed it."""
    config = dict(scheduler.config)
    made = drop_in.from_config({k: v for k, v in config.items() if k != "_use_default_values"})
    made.register_to_config(_use_default_values=config.get("_use_default_values", []))
    shift = getattr(scheduler, "shift", None)
    if hasattr(made, "set_shift") and shift is not None:
        made.set_shift(shift)
    return made


def _swap(pipeline: Any, scheduler: Any) -> Change:
    original = pipeline.scheduler
    _assign(pipeline, scheduler)

    def undo() -> None:
        # A scheduler that was set since is the user's choice and stays.
        if pipeline.scheduler is scheduler:
            _assign(pipeline, original)

    return f"{type(pipeline).__name__}.scheduler: {type(scheduler).__name__}", undo


def _assign(pipeline: Any, scheduler: Any) -> None:
    """Sets the scheduler; the pipeline goes on to be saved with diffusers' class of that name."""
    recorded = pipeline.config.get("scheduler") if hasattr(pipeline, "config") else None
    pipeline.scheduler = scheduler
    if recorded is not None:
        pipeline.register_to_config(scheduler=recorded)


def _patch_registration() -> Change:
    import diffusers

    pipeline_class: Any = diffusers.DiffusionPipeline

    original = pipeline_class.register_modules
    if not original.__module__.startswith("diffusers."):
        raise RuntimeError(
            f"enable: DiffusionPipeline.register_modules is already patched by {original.__module__}"
        )

    @functools.wraps(original, assigned=("__doc__", "__name__", "__qualname__"))
    def register_modules(self: Any, **modules: Any) -> None:
        original(self, **modules)
        scheduler = modules.get("scheduler")
        drop_in = None if scheduler is None else drop_in_class(scheduler)
        if drop_in is not None:
            _assign(self, _converted(drop_in, scheduler))

    pipeline_class.register_modules = register_modules

    def undo() -> None:
        if pipeline_class.register_modules is not register_modules:
            raise RuntimeError(
                "disable: DiffusionPipeline.register_modules was patched by another package since; "
                "undo that first"
            )
        pipeline_class.register_modules = original

    return "every new DiffusionPipeline: its scheduler", undo
