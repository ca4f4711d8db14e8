"""UniPC: unified predictor and corrector (Zhao et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import drop_in
from suffuse.compat.diffusers._corrected import Corrected
from suffuse.compat.diffusers._sigma import RESPACING
from suffuse.compat.diffusers._update import (
    SchedulerOutput,
)
from suffuse.compat.diffusers._vp import BETAS, THRESHOLDING, needed_steps
from suffuse.compat.diffusers.euler import last_level


@drop_in
class UniPCMultistepScheduler(Corrected):
    """Drop-in for diffusers.UniPCMultistepScheduler (Zhao et al. 2023), solver_order up to 4."""

    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "solver_order": 2,
        "prediction_type": "epsilon",
        **THRESHOLDING,
        "sample_max_value": 1.0,
        "predict_x0": True,
        "solver_type": "bh2",
        "lower_order_final": True,
        "disable_corrector": [],
        "solver_p": None,
        **RESPACING,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "final_sigmas_type": "zero",
        "rescale_betas_zero_snr": False,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    }

    def _setup(self) -> None:
        config, name = self.config, type(self).__name__
        if config.shift_terminal is not None and not config.use_flow_sigmas:
            raise ValueError(f"{name}: shift_terminal is given, expected use_flow_sigmas with it")
        if config.solver_p is not None:
            raise NotImplementedError(f"{name}: solver_p is not supported, expected None")
        if not 1 <= config.solver_order <= 4:
            raise ValueError(f"{name}: solver_order is {config.solver_order}, expected 1 to 4")
        foreign = {"midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}
        self._replace_option("solver_type", ("bh1", "bh2"), foreign)
        self.predict_x0 = config.predict_x0
        self.disable_corrector = config.disable_corrector
        self._setup_tables()

    @property
    def _form(self) -> Any:  # type: ignore[override]
        return "data" if self.predict_x0 else "noise"

    @property
    def _rule(self) -> Any:  # type: ignore[override]
        return "midpoint" if self.config.solver_type == "bh2" else "half_step"

    def _orders(self, i: int, behind: int) -> tuple[int, int]:
        config = self.config
        order = min(config.solver_order, behind + 1)
        if config.lower_order_final:
            order = min(order, len(self.timesteps) - i)
        return order, 0 if i in self.disable_corrector else order + 1

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Timesteps, noise levels and coefficients for sampling.

        sigmas: flow levels [steps] before the shift, instead of a number of steps. mu: log of the
        flow shift, required with dynamic shifting.

        Raises:
            ValueError: mu is missing, sigmas without use_flow_sigmas, or an unknown spacing.
        """
        config, name = self.config, type(self).__name__
        if config.use_dynamic_shifting and mu is None:
            raise ValueError(f"{name}.set_timesteps: mu is None, expected a number")
        if sigmas is not None:
            if not config.use_flow_sigmas:
                raise ValueError(f"{name}.set_timesteps: sigmas needs use_flow_sigmas")
            num_inference_steps = len(sigmas)
        steps = needed_steps(self, num_inference_steps)
        if config.use_flow_sigmas and not any(config.get(option) for option in RESPACING):
            levels = self._shifted_levels(steps, sigmas, mu)
            last = last_level(self, float(levels[-1]))
            return self._set_levels(levels * config.num_train_timesteps, levels, last, device)
        grid = _tables.spaced_multistep(name, config, steps)
        times, levels, on_table = self._levels_at(grid, steps)
        if config.use_karras_sigmas and config.use_flow_sigmas:
            levels = levels / (levels + 1)
            times = levels * config.num_train_timesteps
        table = _tables.sigma_table(self.alphas_cumprod)
        last = last_level(self, float(table[0] if on_table else levels[-1]))
        return self._set_levels(times, levels, last, device)

    def _shifted_levels(self, steps: int, sigmas: Any, mu: float | None) -> Any:
        config = self.config
        if sigmas is None:
            sigmas = np.linspace(1, 1 / config.num_train_timesteps, steps + 1)[:-1]
        levels = np.asarray(sigmas, dtype=np.float64)
        if config.use_dynamic_shifting:
            levels = _tables.dynamic_shifted(config.time_shift_type, mu, levels)  # type: ignore[arg-type]
        else:
            levels = _tables.flow_shifted(levels, config.flow_shift)
        if config.shift_terminal:
            levels = _tables.stretched_to(levels, config.shift_terminal)
        if abs(levels[0] - 1) < 1e-6:
            # log(alpha) has to be finite.
            levels[0] -= 1e-6
        return levels

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """Corrects the sample by the new model output, and goes on to the next timestep.

        Args:
            model_output: what the model predicts at (sample, timestep), [B, ...].
            timestep: an element of `timesteps`, read at the first step only.
            sample: [B, ...].
            return_dict: is accepted; the result is a tuple with a named entry in either case.

        Returns:
            `SchedulerOutput(prev_sample)`.
        """
        return SchedulerOutput((self._advance(self._here(timestep), sample, model_output),))
