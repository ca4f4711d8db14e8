"""DEIS: exact integration of the interpolated noise estimate (Zhang & Chen 2023)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from suffuse.compat.diffusers import _tables
from suffuse.compat.diffusers._base import drop_in
from suffuse.compat.diffusers._corrected import Corrected
from suffuse.compat.diffusers._sigma import RESPACING
from suffuse.compat.diffusers._update import (
    SchedulerOutput,
)
from suffuse.compat.diffusers._vp import BETAS, THRESHOLDING


@drop_in
class DEISMultistepScheduler(Corrected):
    """Drop-in for diffusers.DEISMultistepScheduler (Zhang & Chen 2023), in log rho."""

    _config: ClassVar[dict[str, Any]] = {
        **BETAS,
        "solver_order": 2,
        "prediction_type": "epsilon",
        **THRESHOLDING,
        "sample_max_value": 1.0,
        "algorithm_type": "deis",
        "solver_type": "logrho",
        "lower_order_final": True,
        **RESPACING,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    }
    _form = "noise"
    _flow_noise = True

    def _setup(self) -> None:
        config, name = self.config, type(self).__name__
        foreign = {"dpmsolver": "deis", "dpmsolver++": "deis"}
        self._replace_option("algorithm_type", ("deis",), foreign)
        others = ("midpoint", "heun", "bh1", "bh2")
        self._replace_option("solver_type", ("logrho",), dict.fromkeys(others, "logrho"))
        if not 1 <= config.solver_order <= 3:
            raise ValueError(f"{name}: solver_order is {config.solver_order}, expected 1, 2 or 3")
        self._setup_tables()

    def _orders(self, i: int, behind: int) -> tuple[int, int]:
        left, config = len(self.timesteps) - i, self.config
        order = min(config.solver_order, behind + 1)
        if config.lower_order_final and len(self.timesteps) < 15:
            order = min(order, left)
        return order, 0

    def set_timesteps(
        self, num_inference_steps: int, device: Any = None, mu: float | None = None
    ) -> None:
        """Timesteps, noise levels and coefficients; mu: log of the flow shift, if dynamic."""
        self._use_shift(mu)
        grid = _tables.spaced_multistep(type(self).__name__, self.config, num_inference_steps)
        times, levels, on_table = self._levels_at(grid, num_inference_steps)
        table = _tables.sigma_table(self.alphas_cumprod)
        last = float(table[0] if on_table else levels[-1])
        self._set_levels(times, levels, last, device)

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        """The sample at the next timestep; as `UniPCMultistepScheduler.step`, uncorrected."""
        return SchedulerOutput((self._advance(self._here(timestep), sample, model_output),))
