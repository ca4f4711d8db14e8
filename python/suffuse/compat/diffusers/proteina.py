"""The flow sampler of RFdiffusion4 (Proteina)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers._base import Generator, drop_in, mixed, randn
from suffuse.compat.diffusers._by_index import ByIndex
from suffuse.compat.diffusers._config import REQUIRED
from suffuse.compat.diffusers._update import F, Output, Update, X, Z


class RFD4ProteinaSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


@drop_in
class RFD4ProteinaScheduler(ByIndex):
    """Drop-in for diffusers.RFD4ProteinaScheduler: a flow from noise at 0 to data at 1, with SDE
    steps in the middle and a rescaled score.
    """

    _config: ClassVar[dict[str, Any]] = {
        "schedule_mode": REQUIRED,
        "noise_mode": REQUIRED,
        "tsr_k": REQUIRED,
        "tsr_sigma": REQUIRED,
        "tail_steps": 10,
        "tail_step_multiplier": 2,
        "t_lim_ode": 0.95,
        "t_lim_ode_below": 0.02,
    }

    def _setup(self) -> None:
        for option, known in (("schedule_mode", ("log", "power")), ("noise_mode", ("1/t", "tan"))):
            if self.config[option] not in known:
                raise ValueError(
                    f"RFD4ProteinaScheduler: {option} is {self.config[option]!r}, expected one of "
                    f"{', '.join(known)}"
                )
        self.timesteps = None  # type: ignore[assignment]

    def _grid(self, steps: int, tail: int, fine: int) -> Tensor:
        """Times [steps + 1] from nearly 0 to 1, the last `tail` steps of them `fine` times finer."""
        if tail:
            if not isinstance(fine, int) or fine < 2 or steps - (fine - 1) * tail < tail:
                raise ValueError(
                    f"RFD4ProteinaScheduler: {steps} steps with tail_steps {tail} and "
                    f"tail_step_multiplier {fine}, expected an integer of at least 2, and at least "
                    "tail_steps * tail_step_multiplier steps"
                )
            base = steps - (fine - 1) * tail
            dense = self._grid(base * fine, 0, 1)
            start = (base - tail) * fine
            return torch.cat([dense[:start:fine], dense[start:]])
        start_time, dtype = 0.001, self._precision
        if self.config.schedule_mode == "power":
            return torch.linspace(start_time**0.5, 1, steps + 1, dtype=dtype) ** 2
        times = 1 - torch.logspace(-2, start_time, steps + 1, dtype=dtype).flip(0)
        times = times - (times.min() - start_time)
        return times / times.max()

    def _times_for(self, steps: int) -> Tensor:
        return self._grid(steps, self.config.tail_steps, self.config.tail_step_multiplier)

    def set_timesteps(
        self, num_inference_steps: int, device: Any = None, start_time: float | None = None
    ) -> None:
        """Times and coefficients; start_time: in [0, 1), to start from a noised structure."""
        steps = num_inference_steps
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"RFD4ProteinaScheduler.set_timesteps: num_inference_steps is {steps}, expected a "
                "positive integer"
            )
        if start_time is not None and not 0 <= start_time < 1:
            raise ValueError(
                f"RFD4ProteinaScheduler.set_timesteps: start_time is {start_time}, expected [0, 1)"
            )
        whole = self._times_for(steps)
        if start_time is not None:
            dense = max(steps * 100, 1000)
            above = int((self._times_for(dense) < start_time - 1e-6).sum())
            whole = self._times_for(round(steps * dense / max(dense - min(above, dense), 1)))
        self._all_times: list[float] = whole[-(steps + 1) :].double().tolist()
        self.timesteps = whole[-(steps + 1) : -1].to(device)
        self.num_inference_steps = steps
        self._restart()
        self._step_index = 0

    def _ratio(self, t: float) -> float:
        signal, k = (t / (1 - t)) ** 2 * self.config.tsr_sigma**2, self.config.tsr_k
        return (signal + 1) / (signal / k + 1)

    def _noise_rate(self, t: float) -> float:
        t = min(t, 1 - 1e-5)
        if self.config.noise_mode == "tan":
            angle = (1 - t) * math.pi / 2
            return max(math.pi / 2 * math.sin(angle) / (math.cos(angle) + 0.01), 0.0)
        return 1 / (t + 0.01)

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        times = self._all_times
        return [self._update(times[i], times[i + 1]) for i in range(begin, len(times) - 1)]

    def _update(self, t: float, end: float) -> Update:
        if t == 0:
            return Update(X)
        ratio, dt = self._ratio(t), end - t
        score = (t * F - X) / (1 - t) * ratio
        velocity = (X + (1 - t) * score) / t
        if t > self.config.t_lim_ode or t < self.config.t_lim_ode_below:
            return Update(X + dt * velocity)
        rate = self._noise_rate(t) / ratio**2
        noise = math.sqrt(2 * rate * dt)
        return Update(X + dt * (velocity + rate * score) + noise * Z, draws=True)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """(1 - t) noise + t x0 at times in [0, 1), [B] or one."""
        t = torch.as_tensor(timesteps, device=original_samples.device).double()
        if t.shape not in ((), original_samples.shape[:1]) or bool(((t < 0) | (t >= 1)).any()):
            raise ValueError(
                f"RFD4ProteinaScheduler.add_noise: timesteps has shape {tuple(t.shape)}, expected "
                f"({len(original_samples)},) with values in [0, 1)"
            )
        return mixed(t.flatten(), original_samples, 1 - t.flatten(), noise)

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        emit_mask: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next time, set to 0 where emit_mask [B, T] is 0.

        model_output: the velocity, like sample [B, T, C]. timestep: the next element of
        `timesteps`; it is not read. generator: a list with one for each sample, or None.

        Returns:
            `RFD4ProteinaSchedulerOutput(prev_sample)`.
        """
        if self.timesteps is None:
            raise ValueError("RFD4ProteinaScheduler.step: call set_timesteps first")
        if self._step_index >= len(self.timesteps):  # type: ignore[operator]
            raise ValueError("RFD4ProteinaScheduler.step: all steps are made, call set_timesteps")
        step = self._here(timestep)
        noise = None
        if step.draws:
            noise = randn(sample.shape, generator, sample.device, sample.dtype)
        out = self._advance(step, sample, model_output, noise)
        return RFD4ProteinaSchedulerOutput((out * emit_mask[..., None],))
