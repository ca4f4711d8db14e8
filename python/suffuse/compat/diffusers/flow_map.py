"""Flow maps, which jump between any two levels, and the flow of MiniMax-H3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import drop_in, mixed, needed
from suffuse.compat.diffusers._by_index import ByIndex
from suffuse.compat.diffusers._update import F, Output, Update, X, on_device


class FlowMapEulerDiscreteSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


class MiniMaxH3SchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


@drop_in
class FlowMapEulerDiscreteScheduler(ByIndex):
    """Drop-in for diffusers.FlowMapEulerDiscreteScheduler: from any level to any lower one."""

    _in_model_dtype = True
    _config: ClassVar[dict[str, Any]] = {"num_train_timesteps": 1000, "shift": 1.0}

    def _setup(self) -> None:
        self.set_timesteps(self.config.num_train_timesteps)

    def apply_shift(self, sigmas: Tensor) -> Tensor:
        """The levels after the flow shift."""
        return _tables.flow_shifted(sigmas, self.config.shift)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor | None = None) -> Tensor:
        """sigma noise + (1 - sigma) sample at timesteps [B]."""
        noise = needed(self, noise)
        sigma = timestep.to(sample.device).flatten().double() / self.config.num_train_timesteps
        return mixed(1 - sigma, sample, sigma, noise)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Noise levels and timesteps, float64.

        sigmas, or else timesteps: before the shift, instead of equal levels.

        Raises:
            ValueError: no argument gives a number of steps, or they give different ones.
        """
        lengths = {len(given) for given in (sigmas, timesteps) if given is not None}
        lengths |= set() if num_inference_steps is None else {num_inference_steps}
        if len(lengths) != 1:
            raise ValueError(
                f"{type(self).__name__}.set_timesteps: num_inference_steps, sigmas and timesteps "
                f"give {sorted(lengths) or 'no'} steps, expected one number"
            )
        n = self.config.num_train_timesteps
        self.num_inference_steps = steps = lengths.pop()
        if sigmas is not None:
            levels = torch.as_tensor(sigmas, dtype=torch.float64)
        elif timesteps is not None:
            levels = torch.as_tensor(timesteps, dtype=torch.float64) / n
        else:
            levels = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)[:-1]
        levels = self.apply_shift(levels)
        self.sigmas = torch.cat([levels, levels.new_zeros(1)]).to(device)
        self.timesteps = self.sigmas[:-1] * n
        self._times: list[float] = self.timesteps.tolist()
        self._restart(plan=False)
        self._rows: dict[tuple[float, float], Any] = {}

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Any = None) -> int | None:  # type: ignore[override]
        """Position of the nearest timestep, None if it is further off than 0.001."""
        value = float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)
        distances = [abs(time - value) for time in self._times]
        index = min(range(len(distances)), key=distances.__getitem__)
        return index if distances[index] <= 1e-3 else None

    def _level_of(self, timestep: Any) -> tuple[float, int | None]:
        index = self.index_for_timestep(timestep)
        if index is not None:
            return float(self.sigmas[index]), index
        value = timestep.flatten() if isinstance(timestep, Tensor) else torch.tensor([timestep])
        if not bool((value == value[0]).all()):
            raise NotImplementedError(
                f"{type(self).__name__}.step: timestep has several values, expected one"
            )
        return float(value[0]) / self.config.num_train_timesteps, None

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        r_timestep: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at r_timestep, by default the next one.

        model_output: the mean velocity between the two, [B, ...]. timestep, r_timestep: of the
        schedule or any other, one for all samples.

        Returns:
            `FlowMapEulerDiscreteSchedulerOutput(prev_sample)`, in the model output's dtype.
        """
        level, index = self._level_of(timestep)
        if self._step_index is None:
            self._step_index = self._begin_index if self._begin_index is not None else index or 0
        if r_timestep is not None:
            end = self._level_of(r_timestep)[0]
        elif index is not None:
            end = float(self.sigmas[index + 1])
        else:
            raise ValueError(
                f"{type(self).__name__}.step: timestep is not on the schedule, expected r_timestep"
            )
        if (level, end) not in self._rows:
            update = Update(X - (level - end) * F)
            self._rows[level, end] = on_device([update], sample.device)[0]
        out = self._run(self._rows[level, end], sample, model_output, [])[0]
        self._step_index += 1
        return FlowMapEulerDiscreteSchedulerOutput((out.to(model_output.dtype),))


@drop_in
class MiniMaxH3Scheduler(ByIndex):
    """Drop-in for diffusers.MiniMaxH3Scheduler: a flow whose velocity points to the data."""

    _config: ClassVar[dict[str, Any]] = {"shift": 12.0}

    def _setup(self) -> None:
        self.set_shift(self.config.shift)
        self.sigmas: Any = None
        self.timesteps: Any = None
        self.num_inference_steps = None

    @property
    def shift(self) -> float:
        """The flow shift of `set_timesteps`."""
        return self._shift

    def set_shift(self, shift: float) -> None:
        """Replaces the flow shift."""
        if not shift > 0:
            raise ValueError(f"MiniMaxH3Scheduler: shift is {shift}, expected more than 0")
        self._shift = float(shift)

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: Any = None
    ) -> None:
        """Noise levels [num_inference_steps] from 1 to 0, times 1 - sigma, and coefficients.

        sigmas: falling to 0 instead.
        """
        name = type(self).__name__
        if sigmas is None:
            if num_inference_steps is None or num_inference_steps < 2:
                raise ValueError(
                    f"{name}.set_timesteps: num_inference_steps is {num_inference_steps}, expected "
                    "at least 2, or sigmas"
                )
            base = torch.linspace(1.0, 0.0, num_inference_steps, dtype=self._precision)
            levels = torch.unique_consecutive(_tables.flow_shifted(base, self._shift))
        else:
            levels = torch.as_tensor(sigmas, dtype=self._precision).flatten().cpu()
            if len(levels) < 2 or not bool((levels.diff() < 0).all()) or levels[-1] != 0:
                raise ValueError(
                    f"{name}.set_timesteps: sigmas is {levels.tolist()}, expected at least two "
                    "falling values that end at 0"
                )
        self.sigmas, self.timesteps = levels.to(device), (1.0 - levels[:-1]).to(device)
        self.num_inference_steps = len(self.timesteps)
        self._restart()

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        levels, times = self.sigmas.double().tolist(), self.timesteps.double().tolist()
        return [
            Update(X + (1 - levels[i + 1] / levels[i]) * (1 - times[i]) * F)
            for i in range(begin, len(times))
        ]

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Tensor) -> Tensor:
        """t sample + (1 - t) noise at times t, [B] or one."""
        t = torch.as_tensor(timestep, device=sample.device).flatten().double()
        return mixed(t, sample, 1 - t, noise)

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """The sample at the next noise level; timestep: one element of `timesteps`.

        Returns:
            `MiniMaxH3SchedulerOutput(prev_sample)`, in the sample's dtype.
        """
        if isinstance(timestep, int) or (
            isinstance(timestep, Tensor) and not timestep.is_floating_point()
        ):
            raise ValueError("MiniMaxH3Scheduler.step: timestep is an integer, expected a time")
        if isinstance(timestep, Tensor) and timestep.numel() != 1:
            raise NotImplementedError(
                f"MiniMaxH3Scheduler.step: timestep has {timestep.numel()} values, expected one"
            )
        out = self._advance(self._here(timestep), sample, model_output)
        return MiniMaxH3SchedulerOutput((out.to(sample.dtype),))
