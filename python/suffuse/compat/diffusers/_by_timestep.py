"""Schedulers that are told by the timestep where they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import suffuse.ops  # noqa: F401  registers the op
from suffuse.compat.diffusers._base import Scheduler
from suffuse.compat.diffusers._update import Step, Update, on_device


class ByTimestep(Scheduler):
    """A scheduler that is told by every call's timestep alone where it is, in any order.

    A timestep on the CPU is read. On another device it is recognised by its address if it is an
    element of `timesteps`, so that the device is not waited for; others have to be read.
    """

    def _updates(self, timestep: int, key: tuple[Any, ...]) -> Update:
        """The update at a timestep; key: further arguments of `step` that it depends on."""
        raise NotImplementedError

    def _retabulate(self, key: tuple[Any, ...] = ()) -> None:
        """New timesteps: fills the table for `step` without further arguments."""
        self._read_threshold()
        self._remember_timesteps()
        self._tables: dict[tuple[Any, ...], dict[int, Step]] = {}
        steps = self._table(key)
        # What `step` needs where nothing is special: the rows alone.
        self._rows = {} if self._threshold else {value: step.row for value, step in steps.items()}

    def _remember_timesteps(self) -> None:
        # Held, so that its addresses are not given to another tensor.
        self._known_timesteps = self.timesteps
        first, size = self.timesteps.data_ptr(), self.timesteps.element_size()
        values = self.timesteps.tolist()
        self._values = {first + size * i: value for i, value in enumerate(values)}

    def _table(self, key: tuple[Any, ...]) -> dict[int, Step]:
        if key not in self._tables:
            values = list(dict.fromkeys(self.timesteps.tolist()))
            updates = [self._updates(value, key) for value in values]
            steps = on_device(updates, self.timesteps.device)
            self._tables[key] = dict(zip(values, steps, strict=True))
        return self._tables[key]

    def _value(self, timestep: Any) -> int:
        """A timestep as a number."""
        if isinstance(timestep, Tensor) and not timestep.is_cpu:
            known = self._values.get(timestep.data_ptr()) if timestep.numel() == 1 else None
            if known is not None:
                return known
        return int(timestep)

    def _step_at(self, timestep: Any, key: tuple[Any, ...] = ()) -> Step:
        self._ready()
        value, table = self._value(timestep), self._table(key)
        if value not in table:
            table[value] = on_device([self._updates(value, key)], self.timesteps.device)[0]
        return table[value]
