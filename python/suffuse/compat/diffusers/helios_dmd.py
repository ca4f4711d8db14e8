"""The scheduler of the distilled Helios."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from suffuse.compat.diffusers._base import Generator, drop_in, mixed
from suffuse.compat.diffusers._helios_stages import STAGED, Stages
from suffuse.compat.diffusers._update import Output
from suffuse.ops import sampler_step


class HeliosDMDSchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()


@drop_in
class HeliosDMDScheduler(Stages):
    """Drop-in for diffusers.HeliosDMDScheduler: the data estimate, noised again."""

    _config: ClassVar[dict[str, Any]] = {
        **STAGED,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "use_dynamic_shifting": False,
        "time_shift_type": "linear",
    }

    def _setup(self) -> None:
        self.last_sample = None
        self._setup_stages()

    def set_timesteps(
        self,
        num_inference_steps: int,
        stage_index: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        is_amplify_first_chunk: bool = False,
    ) -> None:
        """Timesteps and noise levels of a stage; arguments as of `HeliosScheduler`."""
        steps = num_inference_steps
        steps = steps * 2 + 1 if is_amplify_first_chunk else steps + 1
        self._lay_out(steps, stage_index, sigmas, mu, True)
        self.timesteps, self.sigmas = self.timesteps.to(device), self.sigmas.to(device)
        self._restart(plan=False)

    def _nearest(self, timestep: Any, sigmas: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
        """Levels [B] or [] of the timesteps nearest to the given ones, on like's device."""
        known = timesteps.to(like.device).double()
        wanted = torch.as_tensor(timestep, device=like.device)
        index = (known - wanted.double()[..., None]).abs().argmin(dim=-1)
        return sigmas.to(like.device).double()[index]

    def add_noise(
        self,
        original_samples: Tensor,
        noise: Tensor,
        timestep: Tensor,
        sigmas: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """(1 - sigma) x0 + sigma noise, in the noise's dtype, at the timesteps [B] nearest to it."""
        level = self._nearest(timestep, sigmas, timesteps, noise)
        return mixed(1 - level, original_samples, level, noise).to(noise.dtype)

    def convert_flow_pred_to_x0(
        self, flow_pred: Tensor, xt: Tensor, timestep: Tensor, sigmas: Tensor, timesteps: Tensor
    ) -> Tensor:
        """The data estimate x - sigma F, in the model output's dtype."""
        level = self._nearest(timestep, sigmas, timesteps, flow_pred)
        return mixed(torch.ones_like(level), xt, -level, flow_pred).to(flow_pred.dtype)

    def step(
        self,
        model_output: Tensor,
        timestep: Any = None,
        sample: Tensor | None = None,
        generator: Generator = None,
        return_dict: bool = True,
        cur_sampling_step: int | None = 0,
        dmd_noisy_tensor: Tensor | None = None,
        dmd_sigmas: Tensor | None = None,
        dmd_timesteps: Tensor | None = None,
        all_timesteps: Any = None,
    ) -> Any:
        """The data estimate at a timestep, noised to the next one of all_timesteps unless it is the
        last.

        dmd_noisy_tensor: the noise. dmd_sigmas, dmd_timesteps: the levels and timesteps in which
        the nearest ones are looked up, on the device.

        Returns:
            `HeliosDMDSchedulerOutput(prev_sample)`.
        """
        if sample is None or dmd_sigmas is None or dmd_timesteps is None or all_timesteps is None:
            raise ValueError(
                "HeliosDMDScheduler.step: expected sample, dmd_sigmas, dmd_timesteps, all_timesteps"
            )
        known = dmd_sigmas, dmd_timesteps
        # diffusers looks whole timesteps up.
        now = torch.as_tensor(timestep, device=model_output.device).long()
        step = cur_sampling_step or 0
        if step >= len(all_timesteps) - 1:
            out = self.convert_flow_pred_to_x0(model_output, sample, now, *known)
            return HeliosDMDSchedulerOutput((out,))
        if dmd_noisy_tensor is None:
            raise ValueError("HeliosDMDScheduler.step: dmd_noisy_tensor is None, expected a Tensor")
        following = torch.as_tensor(all_timesteps[step + 1], device=model_output.device).long()
        level = self._nearest(now, *known, model_output)
        end = self._nearest(following, *known, model_output)
        row = level.new_zeros(21)
        row[0], row[1], row[9], row[17] = 1 - end, -(1 - end) * level, end, 1
        noise = dmd_noisy_tensor.to(sample)
        output = (model_output.to(sample.dtype),)
        out = sampler_step(sample, output, row, noise=noise, converted=False).sample
        return HeliosDMDSchedulerOutput((out.to(dmd_noisy_tensor.dtype),))
