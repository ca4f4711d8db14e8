"""Schedulers whose solver works in lambda = log(alpha / sigma), on a list of sigmas.

A sigma stands for the VP level alpha = 1 / sqrt(sigma^2 + 1), or for the flow level alpha = 1 -
sigma. The steps themselves are those of `suffuse.diffusion.solvers.exponential`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import mixed
from suffuse.compat.diffusers._sigma import RESPACING, OnSigmas
from suffuse.compat.diffusers._update import (
    KEEP_CONVERTED,
    KEEP_MODEL,
    D,
    F,
    Pair,
    Triple,
    Weights,
    X,
    estimates,
    triple,
)
from suffuse.compat.diffusers._vp import make_tables
from suffuse.diffusion.solvers.base import Node


@dataclass(frozen=True)
class Estimate:
    """What a solver interpolates at one step: D or eps.

    Attributes:
        data: weights of (x, F) in D.
        value: the estimate over the operands.
        converted, keep: how it gets into the history.
    """

    data: Pair
    value: Weights
    converted: Triple
    keep: int


class OnLambda(OnSigmas):
    """Base of the multistep and singlestep solvers."""

    _strict_index = False
    # "data" or "noise": what is interpolated.
    _form: Any = "data"
    _flow_noise = False

    def _setup_tables(self, avoid_zero: bool = True) -> None:
        make_tables(self, avoid_zero=avoid_zero)
        self.alpha_t = torch.sqrt(self.alphas_cumprod)
        self.sigma_t = torch.sqrt(1 - self.alphas_cumprod)
        self.lambda_t = torch.log(self.alpha_t) - torch.log(self.sigma_t)
        sigmas = ((1 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5
        n = self.config.num_train_timesteps
        grid = torch.arange(n - 1, -1, -1, dtype=self._precision)
        self._shift: float | None = None
        _tables.respaced(type(self).__name__, self.config, sigmas.flip(0).numpy(), 1)
        self._set(grid, sigmas, None, plan=False)
        self.num_inference_steps = None

    def _replace_option(self, option: str, known: Sequence[str], foreign: dict[str, str]) -> None:
        """Refuses an unknown option; other solvers' values mean the one `foreign` gives."""
        value = self.config[option]
        if value in foreign:
            self.register_to_config(**{option: foreign[value]})
        elif value not in known:
            raise NotImplementedError(
                f"{type(self).__name__}: {option} is {value!r}, expected one of {', '.join(known)}"
            )

    # levels

    def _alpha_sigma(self, level: float) -> Pair:
        if self.config.get("use_flow_sigmas"):
            return 1 - level, level
        alpha = 1 / math.sqrt(level**2 + 1)
        return alpha, level * alpha

    def _node(self, i: int) -> Node:
        alpha, sigma = self._alpha_sigma(self._level(i))
        return Node(float(i), alpha, sigma, (0.0, 0.0), (0.0, 0.0), 0.0, 1.0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x0 + sigma noise at timesteps [B], elements of `timesteps`."""
        indices = self._indices(original_samples, timesteps)
        pairs = [self._alpha_sigma(self._level(i)) for i in indices]
        table = torch.tensor(pairs, dtype=torch.float64).to(original_samples.device)
        return mixed(table[:, 0], original_samples, table[:, 1], noise)

    # spacing

    def _use_shift(self, mu: float | None) -> None:
        """Dynamic shifting: the flow shift is e^mu from here on."""
        if mu is None:
            return
        config = self.config
        if not (config.use_dynamic_shifting and config.time_shift_type == "exponential"):
            raise ValueError(
                f"{type(self).__name__}.set_timesteps: mu is {mu}, expected use_dynamic_shifting "
                "with time_shift_type 'exponential'"
            )
        self._shift = math.exp(mu)

    def _flow_levels(self, steps: int) -> Any:
        """Shifted flow levels [steps], falling."""
        n, shift = self.config.num_train_timesteps, self._shift
        levels = 1.0 - np.linspace(1, 1 / n, steps + 1)
        levels = _tables.flow_shifted(levels, self.config.flow_shift if shift is None else shift)
        return np.flip(levels)[:-1].copy()

    def _levels_at(
        self, grid: Any, steps: int, *, rounded: Sequence[str] = ("use_karras_sigmas",)
    ) -> tuple[Any, Any, bool]:
        """Timesteps and levels [steps], and whether the levels are the table's at the timesteps.

        rounded: the spacings whose timesteps are rounded.
        """
        config, table = self.config, _tables.sigma_table(self.alphas_cumprod)
        falling, log_table = np.flip(table).copy(), np.log(table)
        levels = _tables.respaced(type(self).__name__, config, falling, steps)
        if levels is not None:
            times = _tables.times_of(levels, log_table)
            option = next(option for option in RESPACING if config.get(option))
            return (times.round() if option in rounded else times), levels, False
        if config.get("use_flow_sigmas"):
            levels = self._flow_levels(steps)
            return levels * config.num_train_timesteps, levels, False
        return grid, np.interp(grid, np.arange(len(table)), table), True

    def _set_levels(self, times: Any, levels: Any, last: float, device: Any) -> None:
        levels = np.concatenate([levels, [last]]).astype(self._float)
        self.num_inference_steps = len(times)
        times = torch.from_numpy(np.asarray(times)).to(device=device, dtype=torch.int64)
        self._set(times, levels, device)

    # estimates

    def _estimate(self, i: int) -> Estimate:
        """What is interpolated, at step i."""
        level, kind, name = self._level(i), self.config.prediction_type, type(self).__name__
        alpha, sigma = self._alpha_sigma(level)
        if kind == "flow_prediction":
            if self._form == "noise" and not self._flow_noise:
                raise ValueError(f"{name}: prediction_type is {kind!r}, expected another one here")
            data = (1.0, -level)
            eps = (X - alpha * (X - level * F)) / sigma
        else:
            data, eps = estimates(kind, alpha, sigma, name)
        return self._in_form(data, eps, alpha, sigma)

    def _in_form(self, data: Pair, eps: Weights, alpha: float, sigma: float) -> Estimate:
        bounded = self.config.get("thresholding", False)
        estimate = D if bounded else data[0] * X + data[1] * F
        if self._form == "noise":
            estimate = (X - alpha * D) / sigma if bounded else eps
        keep = KEEP_MODEL if np.array_equal(estimate, F) else KEEP_CONVERTED
        return Estimate(data, estimate, triple(estimate), keep)

    def _restart(self, plan: bool = True) -> None:
        super()._restart(plan)
        config = self.config
        learned = config.get("variance_type") in ("learned", "learned_range")
        self._has_variance = learned and config.prediction_type == "epsilon"

    def _without_variance(self, model_output: Tensor) -> Tensor:
        """The prediction's channels, where the model predicts a variance too."""
        return model_output[:, :3] if self._has_variance else model_output

    @property
    def model_outputs(self) -> Stored:
        """The stored estimates, oldest first, as many as the solver's order; None where none is.

        Entries that are there can be replaced.
        """
        most = self._capacity()
        kept = self._history[:most][::-1]
        return Stored([None] * (most - len(kept)) + kept, self._history)

    def _capacity(self) -> int:
        return self.config.solver_order


class Stored(list[Any]):
    """Estimates, oldest first; replacing one replaces it in the history, newest first."""

    def __init__(self, entries: list[Any], history: list[Tensor]) -> None:
        super().__init__(entries)
        self._history = history

    def __setitem__(self, index: Any, value: Any) -> None:
        newest_first = len(self) - 1 - range(len(self))[index]
        if not newest_first < len(self._history):
            raise IndexError("model_outputs: only entries that are not None can be replaced")
        super().__setitem__(index, value)
        self._history[newest_first] = value
