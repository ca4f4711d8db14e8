"""The scheduler of Helios: UniPC or Euler on a stage of its pyramid."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from suffuse.compat.diffusers._base import Generator, drop_in
from suffuse.compat.diffusers._corrected import Corrected, Stride
from suffuse.compat.diffusers._helios_stages import STAGED, Stages
from suffuse.compat.diffusers._update import F, Output, Pair, Step, Update, Weights, X, on_device


class HeliosSchedulerOutput(Output):
    """prev_sample, model_outputs (None), last_sample (the corrected one) and this_order."""

    __slots__ = ()
    names = ("prev_sample", "model_outputs", "last_sample", "this_order")


@drop_in
class HeliosScheduler(Stages, Corrected):
    """Drop-in for diffusers.HeliosScheduler."""

    _compatibles: ClassVar[list[str]] = []
    _config: ClassVar[dict[str, Any]] = {
        **STAGED,
        "thresholding": False,
        "prediction_type": "flow_prediction",
        "solver_order": 2,
        "predict_x0": True,
        "solver_type": "bh2",
        "lower_order_final": True,
        "disable_corrector": [],
        "solver_p": None,
        "use_flow_sigmas": True,
        "scheduler_type": "unipc",
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    }

    def _setup(self) -> None:
        config, name = self.config, type(self).__name__
        for option in ("solver_p", "thresholding"):
            if config[option]:
                raise NotImplementedError(f"{name}: {option} is not supported")
        if not 1 <= config.solver_order <= 4:
            raise ValueError(f"{name}: solver_order is {config.solver_order}, expected 1 to 4")
        foreign = {"midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}
        self._replace_option("solver_type", ("bh1", "bh2"), foreign)
        self.predict_x0, self.disable_corrector = config.predict_x0, config.disable_corrector
        self._setup_stages()

    @property
    def _form(self) -> Any:  # type: ignore[override]
        return "data" if self.predict_x0 else "noise"

    @property
    def _rule(self) -> Any:  # type: ignore[override]
        return "midpoint" if self.config.solver_type == "bh2" else "half_step"

    @property
    def _euler(self) -> bool:
        return self.config.scheduler_type == "euler"

    def _alpha_sigma(self, level: float) -> Pair:
        if not self.config.use_flow_sigmas:
            return super()._alpha_sigma(level)
        if level == 1:
            raise ValueError(
                f"{type(self).__name__}: a level is 1, where the data have no weight; expected less "
                "with scheduler_type 'unipc'"
            )
        return 1 - level, max(level, 1e-8)

    def _orders(self, i: int, behind: int) -> tuple[int, int]:
        order = min(self.config.solver_order, behind + 1)
        if self.config.lower_order_final:
            order = min(order, len(self.timesteps) - i)
        return order, 0 if i in self.disable_corrector else order + 1

    def set_timesteps(
        self,
        num_inference_steps: int,
        stage_index: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        is_amplify_first_chunk: bool = False,
    ) -> None:
        """Timesteps, noise levels and coefficients of a stage.

        stage_index: which, with several stages. sigmas: levels with one stage. mu: log of the
        shift, with dynamic shifting. is_amplify_first_chunk: twice the steps, for scheduler_type
        "dmd".
        """
        distilled = self.config.scheduler_type == "dmd"
        steps = num_inference_steps
        if distilled:
            steps = steps * 2 + 1 if is_amplify_first_chunk else steps + 1
        self._lay_out(steps, stage_index, sigmas, mu, distilled)
        self._set(self.timesteps, self.sigmas, device, plan=not distilled)

    def _plan(self, begin: int, key: tuple[Any, ...]) -> list[Update]:
        if self._euler:
            levels = self._levels
            return [
                Update(X + (levels[i + 1] - levels[i]) * F)
                for i in range(begin, len(self.timesteps))
            ]
        self._corrections: dict[int, tuple[Weights, int]] = {}
        return super()._plan(begin, key)

    def _correct_and_predict(
        self, i: int, behind: int, before: Stride | None
    ) -> tuple[Update, Stride]:
        update, stride = super()._correct_and_predict(i, behind, before)
        values = self._values(i)
        sample = X if before is None else self._corrected(i, before, values)
        self._corrections[i] = sample, self._orders(i, behind)[0]
        return update, stride

    def step(
        self,
        model_output: Tensor,
        timestep: Any = None,
        sample: Tensor | None = None,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> Any:
        """One step of scheduler_type "unipc" or "euler"; timestep and generator are not read."""
        kind = self.config.scheduler_type
        if kind == "euler":
            return self.step_euler(model_output, timestep, sample, return_dict=return_dict)
        if kind == "unipc":
            return self.step_unipc(model_output, timestep, sample, return_dict=return_dict)
        raise NotImplementedError(f"HeliosScheduler.step: scheduler_type is {kind!r}")

    def step_euler(
        self,
        model_output: Tensor,
        timestep: Any = None,
        sample: Tensor | None = None,
        generator: Generator = None,
        sigma: Any = None,
        sigma_next: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """The sample at the next noise level, or from sigma to sigma_next."""
        if (sigma is None) != (sigma_next is None):
            raise ValueError("HeliosScheduler.step_euler: expected both sigma and sigma_next")
        x = self._needed(sample)
        index = self._start()
        change = self._levels[index + 1] - self._levels[index]
        if sigma is not None:
            change = float(sigma_next) - float(sigma)
        step = on_device([Update(X + change * F)], x.device)[0]
        if sigma is None and self._euler:
            step = self._here(timestep)
        return HeliosSchedulerOutput((self._advance(step, x, model_output), None, None, None))

    def step_unipc(
        self,
        model_output: Tensor,
        timestep: Any = None,
        sample: Tensor | None = None,
        return_dict: bool = True,
        model_outputs: Any = None,
        timestep_list: Any = None,
        sigma_before: Any = None,
        sigma: Any = None,
        sigma_next: Any = None,
        cus_step_index: int | None = None,
        cus_lower_order_num: int | None = None,
        cus_this_order: int | None = None,
        cus_last_sample: Tensor | None = None,
    ) -> Any:
        """Corrects the sample by the new model output, and goes on to the next noise level.

        Returns:
            `HeliosSchedulerOutput(prev_sample, None, last_sample, this_order)`.

        Raises:
            NotImplementedError: any of the arguments after return_dict, which set the state from
                outside.
        """
        given = {
            "model_outputs": model_outputs, "timestep_list": timestep_list,
            "sigma_before": sigma_before, "sigma": sigma, "sigma_next": sigma_next,
            "cus_step_index": cus_step_index, "cus_lower_order_num": cus_lower_order_num,
            "cus_this_order": cus_this_order, "cus_last_sample": cus_last_sample,
        }  # fmt: skip
        refused = [name for name, value in given.items() if value is not None]
        if refused:
            raise NotImplementedError(
                f"HeliosScheduler.step_unipc: {', '.join(refused)} is not supported, expected None"
            )
        x = self._needed(sample)
        index, history, anchor = self._start(), self._history, self._anchor
        step = self._here(timestep)
        weights, order = self._corrections[index]
        out = self._advance(step, x, model_output)
        last = (self._combine, step, weights, x, model_output, history, anchor)
        return HeliosSchedulerOutput((out, None, last, order))

    def _combine(
        self,
        step: Step,
        weights: Weights,
        x: Tensor,
        model_output: Tensor,
        history: list[Tensor],
        anchor: Tensor | None,
    ) -> Tensor:
        """Another combination of a step's operands."""
        other = on_device([Update(weights, step.update.data)], x.device)[0]
        held = anchor if other.anchor else None
        return self._run(other, x, model_output, history, held)[0]

    def _start(self) -> int:
        """The index of the step; the first one is 0 whatever the timestep."""
        self._ready()
        if self._step_index is None:
            self._step_index = 0
        return self._step_index

    def _needed(self, sample: Tensor | None) -> Tensor:
        if sample is None:
            raise ValueError("HeliosScheduler.step: sample is None, expected a Tensor")
        return sample

    def reset_scheduler_history(self) -> None:
        """Forgets the steps that were made."""
        self._restart(plan=self.num_inference_steps is not None)
