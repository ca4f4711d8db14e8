"""The learning rate over the steps of a training."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from suffuse.train.config import TrainConfig


def cosine_factor(step: int, config: TrainConfig) -> float:
    """Factor on the learning rate for optimizer step `step`, counted from 0.

    Rises linearly from 1/(warmup_steps + 1) to 1 at step `warmup_steps`, then falls along half a
    cosine and would reach `final_fraction` at step `steps`, which is the first not taken.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    done = min(1.0, (step - config.warmup_steps) / (config.steps - config.warmup_steps))
    fall = 0.5 * (1.0 + math.cos(math.pi * done))
    return config.final_fraction + (1.0 - config.final_fraction) * fall


def cosine_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig) -> LambdaLR:
    """The scheduler that multiplies the optimizer's learning rate by `cosine_factor`."""
    return LambdaLR(optimizer, lambda step: cosine_factor(step, config))
