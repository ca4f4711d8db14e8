"""Schedulers of flow models, x = (1 - sigma) x0 + sigma noise, F = noise - x0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import Generator, drop_in, mixed, needed
from suffuse.compat.diffusers._sigma import RESPACING, OnSigmas
from suffuse.compat.diffusers._update import (
    F,
    Output,
    Update,
    X,
    Z,
)


class FlowMatchEulerDiscreteSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


class Flow(OnSigmas):
    """Base: noise levels in [0, 1] and how a sample is noised to one of them."""

    _in_model_dtype = True

    def _setup(self) -> None:
        config = self.config
        n, shift = config.num_train_timesteps, config.shift
        levels = torch.arange(n, 0, -1, dtype=self._precision) / n
        if not config.get("use_dynamic_shifting"):
            levels = _tables.flow_shifted(levels, shift)
        self._shift = shift
        self.sigma_min, self.sigma_max = levels[-1].item(), levels[0].item()
        self._set(levels * n, levels, None, plan=False)

    @property
    def shift(self) -> float:
        """The flow shift of `set_timesteps`."""
        return self._shift

    def set_shift(self, shift: float) -> None:
        """Replaces the flow shift."""
        self._shift = shift

    def _even_levels(self, steps: int) -> Any:
        """Unshifted levels [steps]."""
        n = self.config.num_train_timesteps
        return np.linspace(self.sigma_max * n, self.sigma_min * n, steps) / n

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor | None = None) -> Tensor:
        """sigma noise + (1 - sigma) sample at timesteps [B], elements of `timesteps`."""
        noise = needed(self, noise)
        levels = [self._level(i) for i in self._indices(sample, timestep)]
        sigma = torch.tensor(levels, dtype=torch.float64).to(sample.device)
        return mixed(1 - sigma, sample, sigma, noise)

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        return [self._update(i, key) for i in range(begin, len(self.timesteps))]

    def _update(self, i: int, key: tuple[Any, ...]) -> Update:
        raise NotImplementedError


SHIFTED: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
    **RESPACING,
    "time_shift_type": "exponential",
}


class Shifted(Flow):
    """Levels with a static, a dynamic and a terminal shift, then perhaps a spacing of their own."""

    def _setup(self) -> None:
        kind, name = self.config.time_shift_type, type(self).__name__
        if kind not in ("exponential", "linear"):
            raise ValueError(
                f"{name}: time_shift_type is {kind!r}, expected 'exponential' or 'linear'"
            )
        super()._setup()
        _tables.respaced(name, self.config, self.sigmas.numpy(), 1)

    def time_shift(self, mu: float, sigma: float, t: Any) -> Any:
        """Dynamically shifted levels, e^mu / (e^mu + (1 / t - 1)^sigma) or linear in mu."""
        scale = math.exp(mu) if self.config.time_shift_type == "exponential" else mu
        return scale / (scale + (1 / t - 1) ** sigma)

    def stretch_shift_to_terminal(self, t: Any) -> Any:
        """Levels whose last one is `shift_terminal`."""
        return _tables.stretched_to(t, self.config.shift_terminal)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | None = None,
    ) -> None:
        """Timesteps, noise levels and coefficients for sampling.

        Args:
            sigmas: levels [steps] before the shifts instead of equal ones.
            mu: log of the shift, required with dynamic shifting.
            timesteps: what the model gets, [steps]; without sigmas the levels follow from them.

        Raises:
            ValueError: mu is missing, or lengths differ.
        """
        config, name = self.config, type(self).__name__
        steps = self._count(num_inference_steps, sigmas, timesteps)
        if config.use_dynamic_shifting and mu is None:
            raise ValueError(f"{name}.set_timesteps: mu is None, expected a number")
        self.num_inference_steps = steps
        given = None if timesteps is None else np.asarray(timesteps, dtype=self._float)
        if sigmas is not None:
            levels = np.asarray(sigmas, dtype=self._float)
        elif given is not None:
            levels = given / config.num_train_timesteps
        else:
            levels = self._even_levels(steps)
        sigma = torch.from_numpy(self._moved(levels, steps, mu)).to(self._precision)
        times = sigma * config.num_train_timesteps
        if given is not None:
            times = torch.from_numpy(given)
        last = sigma.new_zeros(1)
        if config.invert_sigmas:
            sigma, last = 1.0 - sigma, sigma.new_ones(1)
            times = sigma * config.num_train_timesteps
        self._set(times, torch.cat([sigma, last]), device)

    def _count(self, steps: int | None, *lists: Sequence[float] | None) -> int:
        lengths = {len(given) for given in lists if given is not None}
        lengths |= set() if steps is None else {steps}
        if len(lengths) != 1:
            raise ValueError(
                f"{type(self).__name__}.set_timesteps: num_inference_steps, sigmas and timesteps "
                f"give {sorted(lengths) or 'no'} steps, expected one number"
            )
        return lengths.pop()

    def _moved(self, levels: Any, steps: int, mu: float | None) -> Any:
        config = self.config
        if config.use_dynamic_shifting:
            levels = self.time_shift(mu, 1.0, levels)  # type: ignore[arg-type]
        else:
            levels = _tables.flow_shifted(levels, self._shift)
        if config.shift_terminal:
            levels = self.stretch_shift_to_terminal(levels)
        spaced = _tables.respaced(type(self).__name__, config, levels, steps)
        return levels if spaced is None else spaced


@drop_in
class FlowMatchEulerDiscreteScheduler(Shifted):
    """Drop-in for diffusers.FlowMatchEulerDiscreteScheduler."""

    _config: ClassVar[dict[str, Any]] = {**SHIFTED, "stochastic_sampling": False}

    def _update(self, i: int, key: tuple[Any, ...]) -> Update:
        s, t = self._level(i), self._level(i + 1)
        if self.config.stochastic_sampling:
            return Update((1 - t) * (X - s * F) + t * Z, draws=True)
        return Update(X + (t - s) * F)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = float("inf"),
        s_noise: float = 1.0,
        generator: Generator = None,
        per_token_timesteps: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next noise level.

        Args:
            model_output: what the model predicts, [B, ...].
            timestep: an element of `timesteps`, read at the first step only.
            sample: [B, ...].
            s_churn, s_tmin, s_tmax, s_noise: are accepted and change nothing, as in diffusers.
            generator: of the noise of stochastic_sampling.
            per_token_timesteps: [B, T] for a sample [B, T, C]: every token goes from its own level
                to the next lower one, with diffusers' sign: x + (level - next) F.
            return_dict: is accepted; the result is a tuple with a named entry in either case.

        Returns:
            `FlowMatchEulerDiscreteSchedulerOutput(prev_sample)`, in the model output's dtype.
        """
        self._refuse_integer(timestep)
        step = self._here(timestep)
        noise = None
        if step.draws:
            noise = self._noise(step, sample.to(self._precision), generator)
        if per_token_timesteps is None:
            out = self._advance(step, sample, model_output, noise)
        else:
            out = self._per_token(per_token_timesteps, sample, model_output, noise)
            self._step_index += 1  # type: ignore[operator]
        return FlowMatchEulerDiscreteSchedulerOutput((out,))

    def _per_token(
        self, timesteps: Tensor, sample: Tensor, model_output: Tensor, noise: Tensor | None
    ) -> Tensor:
        if sample.dim() != 3 or timesteps.shape != sample.shape[:2]:
            got = tuple(timesteps.shape)
            raise ValueError(
                f"{type(self).__name__}.step: per_token_timesteps has shape {got}, expected [B, T] "
                f"for a sample [B, T, C], here {tuple(sample.shape)}"
            )
        now = timesteps.flatten().to(sample.device).double() / self.config.num_train_timesteps
        levels = self.sigmas.to(sample.device).double()[:, None]
        following = torch.where(levels < now - 1e-6, levels, 0.0).amax(dim=0)
        # Every token is a sample of its own to the kernel.
        table = now.new_zeros(len(now), 21)
        table[:, 17] = 1
        if self.config.stochastic_sampling:
            table[:, 0], table[:, 1] = 1 - following, -(1 - following) * now
            table[:, 9] = following
        else:
            table[:, 0], table[:, 1] = 1, now - following
        x, output = sample.flatten(0, 1).to(self._precision), model_output.flatten(0, 1)
        z = None if noise is None else noise.flatten(0, 1)
        wide = torch.promote_types(x.dtype, output.dtype)
        out = self._run_any(table, 0, False, x.to(wide), output.to(wide), [], None, z)[0]
        return out.view(sample.shape)
