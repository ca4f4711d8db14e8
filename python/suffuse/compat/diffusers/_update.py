"""One scheduler step as data: weights of its operands, and the table that the kernel reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suffuse.reference import sampler_step as formula

Weights = NDArray[np.float64]
Pair = tuple[float, float]
Triple = tuple[float, float, float]

# The operands of one update as unit vectors, so that a sampler's formula can be written down as it
# is in the paper and comes out as its table row: `0.9 * X - 0.1 * D + 0.3 * Z`.
X, F, D, H1, H2, H3, H4, A, G, Z = np.eye(10)
HISTORY = (H1, H2, H3, H4)
NOTHING = np.zeros(10)

# What goes to the front of the history after a step.
KEEP_NOTHING, KEEP_CONVERTED, KEEP_MODEL, KEEP_SAMPLE = range(4)
# What becomes the anchor.
HOLD_NOTHING, HOLD_BEFORE, HOLD_AFTER = range(3)


@dataclass(frozen=True)
class Update:
    """One step in float64.

    Attributes:
        sample: weights of the operands in the new sample.
        data: D = data[0] x + data[1] F.
        clip: bound on |D|.
        converted: weights of (x, F, D) in what KEEP_CONVERTED keeps.
        second: weights of (x, F, D) in the second result of `step`, usually D.
        churn: weight of the noise that is added to x before D is taken, for the second result.
        keep, hold: see the constants above.
        draws: True if the step draws noise, even where its weight is 0.
    """

    sample: Weights
    data: Pair = (0.0, 0.0)
    clip: float = math.inf
    converted: Triple = (0.0, 0.0, 1.0)
    second: Triple = (0.0, 0.0, 1.0)
    churn: float = 0.0
    keep: int = KEEP_NOTHING
    hold: int = HOLD_NOTHING
    draws: bool = False

    def row(self) -> list[float]:
        return [*self.sample, *self.data, self.clip, *self.converted, 1.0, 1.0, 0.0, 0.0, 0.0]

    def second_row(self) -> list[float]:
        weights = [0.0] * formula.DATA_FROM_X
        return [*weights, *self.data, self.clip, *self.second, 1.0, 1.0, 0.0, 0.0, 0.0]


class Step(NamedTuple):
    """An `Update` on the device, with what `step` has to know about it."""

    row: Tensor
    history: int
    keep: int
    hold: int
    anchor: bool
    noise: bool
    draws: bool
    update: Update


def on_device(updates: Sequence[Update], device: torch.device | str | None) -> list[Step]:
    """All steps, their rows in one table [steps, 21], float64, on the device."""
    if not updates:
        return []
    table = torch.tensor([u.row() for u in updates], dtype=torch.float64).to(device)
    return [_step(row, update) for row, update in zip(table.unbind(0), updates, strict=True)]


def _step(row: Tensor, update: Update) -> Step:
    weights = update.sample.tolist()
    used = [j for j in range(4) if weights[formula.HISTORY + j] != 0]
    return Step(
        row,
        used[-1] + 1 if used else 0,
        update.keep,
        update.hold,
        weights[formula.ANCHOR] != 0,
        weights[formula.NOISE] != 0,
        update.draws,
        update,
    )


def estimates(prediction: str, alpha: float, sigma: float, name: str) -> tuple[Pair, Weights]:
    """Weights of (x, F) in D, and eps over the operands, where x = alpha x0 + sigma eps.

    The names are diffusers'; "original_sample" is "sample". VP processes only, but for
    "flow_prediction", where alpha = 1 - sigma.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        a, s = np.float64(alpha), np.float64(sigma)
        if prediction == "epsilon":
            return (1 / a, -s / a), F
        if prediction in ("sample", "original_sample"):
            return (0.0, 1.0), (X - a * F) / s if sigma != 0 else NOTHING
        if prediction == "v_prediction":
            return (a, -s), a * F + s * X
        if prediction == "flow_prediction":
            return (1.0, -s), X + (1 - s) * F
    raise ValueError(
        f"{name}: prediction_type is {prediction!r}, expected 'epsilon', 'sample', 'v_prediction' "
        "or 'flow_prediction'"
    )


def data_operand(data: Pair, bounded: bool) -> Weights:
    """D as an operand of its own if it is bounded, otherwise through x and F.

    The second form spares the kernel nothing, but makes a step whose D is x or F exact.
    """
    return D if bounded else data[0] * X + data[1] * F


def triple(weights: Weights) -> Triple:
    """The weights of (x, F, D) of an expression in which nothing else takes part."""
    return weights[0], weights[1], weights[2]


class Output(tuple[Any, ...]):
    """What `step` returns: a tuple whose entries are attributes too.

    The second entry, where there is one, is computed when it is read (and again when it is read
    again): pipelines hardly ever read it, and it costs a write of the sample's size. It is kept as
    (function, arguments ...), with the step's inputs, which must not be changed in place before.
    """

    __slots__ = ()
    names: tuple[str, ...] = ("prev_sample",)

    def __getattr__(self, name: str) -> Any:
        if name in self.names:
            return self[self.names.index(name)]
        raise AttributeError(f"the output of step has {', '.join(self.names)}, not {name!r}")

    def __getitem__(self, key: Any) -> Any:
        if key == 0:
            return tuple.__getitem__(self, 0)
        return getattr(self, key) if isinstance(key, str) else tuple(self)[key]

    def __iter__(self) -> Any:
        for entry in tuple.__iter__(self):
            yield entry[0](*entry[1:]) if type(entry) is tuple else entry

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self)

    def keys(self) -> tuple[str, ...]:
        return self.names


class SchedulerOutput(Output):
    """prev_sample."""

    __slots__ = ()
