"""Schedulers that count their steps."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import suffuse.ops  # noqa: F401  registers the op
from suffuse.compat.diffusers import _update
from suffuse.compat.diffusers._base import (
    NO_HISTORY,
    Generator,
    Scheduler,
    compiling,
    gradients,
    randn,
    raw_step,
)
from suffuse.compat.diffusers._update import KEEP_CONVERTED, Step, Update, on_device


class ByIndex(Scheduler):
    """A scheduler that counts its steps, from the index of the first timestep it is given."""

    _step_index: int | None = None
    _begin_index: int | None = None
    # False where an unknown timestep means the last one, True where it is an error.
    _strict_index = True

    @property
    def step_index(self) -> int | None:
        """Index of the next step; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Index of the first step, if it was set."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Says where sampling starts, so that the first timestep need not be looked up."""
        self._begin_index = begin_index

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Tensor | None = None) -> int:
        """Position of a timestep; the second one where it is there twice, as image-to-image
        pipelines start in the middle and must not skip one.
        """
        known = self.timesteps if schedule_timesteps is None else schedule_timesteps
        if isinstance(timestep, Tensor):
            timestep = timestep.to(known.device)
        found = (known == timestep).nonzero().flatten()
        if len(found) == 0:
            if not self._strict_index:
                return len(self.timesteps) - 1
            name = type(self).__name__
            raise IndexError(f"{name}: timestep is {timestep}, expected one of timesteps")
        return int(found[1 if len(found) > 1 else 0])

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        """The updates from step `begin` on; key: what else `step` makes them depend on."""
        raise NotImplementedError

    def _restart(self, plan: bool = True) -> None:
        """After new timesteps: no step is made yet. plan: tabulates them, from the first on."""
        self._read_threshold()
        self._step_index, self._begin_index = None, None
        self._plans: dict[tuple[Any, ...], list[Step | None]] = {}
        self._history: list[Tensor] = []
        self._anchor: Tensor | None = None
        self._first = 0 if plan else -1
        self._steps = self._steps_for(()) if plan else []

    def _init_step_index(self, timestep: Any) -> None:
        if self._begin_index is None:
            self._step_index = self.index_for_timestep(timestep)
        else:
            self._step_index = self._begin_index
        if self._first != self._step_index:
            self._first, self._plans = self._step_index, {}
            self._steps = self._steps_for(())

    def _steps_for(self, key: tuple[Any, ...]) -> list[Step | None]:
        if key not in self._plans:
            steps = on_device(self._plan(self._first, key), self.timesteps.device)
            self._plans[key] = [*[None] * self._first, *steps]
        return self._plans[key]

    def _here(self, timestep: Any, key: tuple[Any, ...] = ()) -> Step:
        """The step to make now."""
        index = self._step_index
        if index is None:
            self._ready()
            self._init_step_index(timestep)
            index = self._step_index
        step = (self._steps_for(key) if key else self._steps)[index]  # type: ignore[index]
        if step is None:
            name = type(self).__name__
            raise IndexError(f"{name}: step {index} is before the first, {self._first}")
        return step

    def _advance(
        self, step: Step, x: Tensor, model_output: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Makes the step and moves on."""
        row, depth, keep, hold, anchor, noisy, _, _ = step
        special = anchor or noisy or self._threshold or gradients() or compiling()
        if special or x.dtype is not model_output.dtype:
            held = self._anchor if anchor else None
            noise = noise if noisy else None
            out, converted = self._run(step, x, model_output, self._history, held, noise)
        else:
            # `_run` without what it does for other steps, which costs a tenth of a small call.
            history, wanted = self._history[:depth] if depth else NO_HISTORY, keep == KEEP_CONVERTED
            try:
                out, converted, _ = raw_step(x, (model_output,), row, history, wanted)
            except RuntimeError:
                out, converted = self._run_any(
                    row, depth, wanted, x, model_output, self._history, None, None
                )
        if keep:
            kept = (converted, model_output, out)[keep - 1]
            self._history = [kept, *self._history[:3]]
        if hold:
            self._anchor = x if hold == _update.HOLD_BEFORE else out
        self._step_index += 1  # type: ignore[operator]
        return out

    def _noise(self, step: Step, like: Tensor, generator: Generator) -> Tensor | None:
        """The noise of a step, drawn in the dtype and on the device of `like`."""
        if not step.draws:
            return None
        return randn(like.shape, generator, like.device, like.dtype)
