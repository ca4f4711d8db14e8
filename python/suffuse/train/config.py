"""The trainer's settings, and reading settings from JSON and TOML files."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suffuse._config import check_types

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a `Trainer`.

    steps: optimizer steps of the whole training.
    learning_rate: its highest value; it rises linearly over `warmup_steps`, then falls along half a
        cosine to `final_fraction` of it at the last step (Loshchilov & Hutter 2017).
    weight_decay: AdamW's, on parameters of two and more dimensions only.
    beta1, beta2: AdamW's.
    accumulate: each batch is cut into this many equal parts, whose gradients are averaged.
    clip_norm: largest norm of the whole gradient; 0 leaves it as it is.
    ema_decay: of the exponential moving average of the weights; it starts at the first step.
    precision: "fp32", or "bf16" for forward passes under autocast (weights stay fp32).
    seed: of everything the loss draws.
    log_every: steps between two log lines.
    checkpoint_every: steps between two checkpoints; 0 makes one at the end only.
    keep_checkpoints: how many of the latest are kept.
    """

    steps: int
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    accumulate: int = 1
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    precision: str = "fp32"
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 0
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("steps", "accumulate", "log_every", "keep_checkpoints"):
            self._expect(name, getattr(self, name) >= 1, "at least 1")
        for name in ("weight_decay", "clip_norm", "seed", "checkpoint_every", "warmup_steps"):
            self._expect(name, 0 <= getattr(self, name) < math.inf, "at least 0")
        for name in ("beta1", "beta2", "ema_decay"):
            self._expect(name, 0 <= getattr(self, name) < 1, "0 <= value < 1")
        self._expect("learning_rate", 0 < self.learning_rate < math.inf, "more than 0")
        self._expect("final_fraction", 0 <= self.final_fraction <= 1, "0 <= value <= 1")
        self._expect(
            "warmup_steps", self.warmup_steps < self.steps, f"less than steps {self.steps}"
        )
        self._expect("precision", self.precision in PRECISIONS, f"one of {list(PRECISIONS)}")

    def _expect(self, name: str, condition: bool, expected: str) -> None:
        if not condition:
            raise ValueError(f"TrainConfig: {name} is {getattr(self, name)!r}, expected {expected}")


def read_table(path: str | Path) -> dict[str, Any]:
    """Read a `.json` or, on Python 3.11 and later, a `.toml` file into a dict.

    Raises FileNotFoundError, NotImplementedError for TOML on Python 3.10, and ValueError for
    another ending or a file that is not what its ending says.
    """
    path = Path(path)
    if path.suffix not in (".json", ".toml"):
        raise ValueError(f"{path}: expected a file that ends in .json or .toml")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    text = path.read_text(encoding="utf-8")
    try:
        table = json.loads(text) if path.suffix == ".json" else _parse_toml(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path} holds a JSON {type(table).__name__}, expected an object")
    return table


def _parse_toml(text: str) -> dict[str, Any]:
    if sys.version_info < (3, 11):
        raise NotImplementedError("TOML files need Python 3.11 or later: use JSON")
    import tomllib

    return tomllib.loads(text)
