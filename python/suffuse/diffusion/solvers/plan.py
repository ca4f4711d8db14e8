"""The plan of a sampling run: stages of float64 coefficients, plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

Pair = tuple[float, float]


@dataclass(frozen=True)
class Stage:
    """One model call and one update; every number is a float64 coefficient.

    With x the current sample, F the guided model output, D the (clipped) data estimate, H_j the
    kept tensors (newest first), A the sample at the start of the step and z noise, and with c_name
    for the field of that name:

        D  = clip(c_data_from_x x + c_data_from_model F)
        x' = c_x x + c_model F + c_data D + sum_j c_history[j] H_j + c_anchor A + c_noise z

    and where `keep` is set, H_0 of the next stage is kept[0] x + kept[1] F + kept[2] D.

    Attributes:
        step: index of the time step that the stage belongs to.
        time: process time of the model call.
        model_time: time given to the model.
        input_scale: factor on x at the model's input.
        clip: bound on |D|; inf for none.
        threshold: (quantile, maximum) of dynamic thresholding instead of the clip, or None.
        forget: how many of the newest H are dropped after the update (before `keep` adds one).
        holds: True in the later stages of a step: A stays the sample that the step began with.
        calls_model: False for a stage that only moves x, such as added noise: then F is 0.
        draws: normal tensors that a generator draws here, of which the last is z; None is one where
            the weight of z is not 0, else none.
        noise_model: the part of the weights of F that comes from the noise estimate, so that
            guidance may take that part from another output (CFG++); None where it has no meaning.
        snr: for a Langevin step: x' = x + e s + sqrt(2 e) z with the score s given by `kept` and
            e = 2 (snr |z| / |s|)^2 from norms on the device; no other weight is then read.
        known: (alpha, sigma) at the end of the stage, for a plan that inpaints: known data with that
            noise, of the same z, are put into x'.
        variances: (smallest, largest) variance of the noise where the model learned what lies between:
            it then gives twice the channels (see `learned_range_std`), and c_noise is 1 or 0.
    """

    step: int
    time: float
    model_time: float
    input_scale: float
    x: float = 0.0
    model: float = 0.0
    data: float = 0.0
    history: tuple[float, ...] = ()
    anchor: float = 0.0
    noise: float = 0.0
    data_from_x: float = 0.0
    data_from_model: float = 0.0
    clip: float = math.inf
    threshold: Pair | None = None
    kept: tuple[float, float, float] = (0.0, 0.0, 1.0)
    keep: bool = False
    forget: int = 0
    holds: bool = False
    calls_model: bool = True
    draws: int | None = None
    noise_model: float | None = None
    snr: float | None = None
    known: Pair | None = None
    variances: Pair | None = None

    @property
    def needs_noise(self) -> bool:
        """Whether z takes part."""
        known = self.known is not None and self.known[1] != 0
        return self.noise != 0 or self.snr is not None or known


@dataclass(frozen=True)
class Plan:
    """All stages of one sampling run.

    Attributes:
        solver: its name.
        times: the grid, steps + 1 entries.
        stages: in the order of execution.
    """

    solver: str
    times: tuple[float, ...]
    stages: tuple[Stage, ...]

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def needs_noise(self) -> bool:
        return any(stage.needs_noise for stage in self.stages)

    @property
    def calls(self) -> int:
        """Number of model calls."""
        return sum(stage.calls_model for stage in self.stages)

    def frozen(self, model_time: float) -> Plan:
        """The plan that leaves x as it is while another sample or token follows this one.

        model_time: the time that the model is told for it, such as that of clean data. Its input is
        scaled as in this plan.
        """
        still: dict[str, Any] = {"x": 1.0, "model": 0.0, "data": 0.0, "history": ()}
        stages = (
            replace(stage, **still, anchor=0.0, noise=0.0, noise_model=0.0, model_time=model_time)
            for stage in self.stages
        )
        return replace(self, stages=tuple(stages))
