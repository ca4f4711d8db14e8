"""Bounds on the data estimate that several solvers share."""

from __future__ import annotations

import math


def check_clipping(solver: str, clip: float, threshold: tuple[float, float] | None) -> None:
    """Refuse a clip or a (quantile, maximum) that has no meaning, or both at once."""
    if not clip > 0:
        raise ValueError(f"{solver}: clip is {clip}, expected more than 0")
    if threshold is None:
        return
    quantile, maximum = threshold
    if not (0 < quantile <= 1 and maximum >= 1):
        raise ValueError(
            f"{solver}: threshold is {threshold}, expected (quantile in (0, 1], maximum >= 1)"
        )
    if clip != math.inf:
        raise ValueError(f"{solver}: clip is {clip} and threshold is {threshold}, expected one")
