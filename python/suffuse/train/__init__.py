"""Training: one trainer with exact resume, its config and its checkpoints."""

from suffuse.train.config import TrainConfig
from suffuse.train.trainer import StepResult, Trainer

__all__ = ["StepResult", "TrainConfig", "Trainer"]
