"""Rules that turn a pair of outputs into weights per sample, from their products alone.

All are written for three vectors: the strong output c (with the condition), the weak one u (without
it) and their difference d, which may be a running average over steps. `gram` is [B, 3, 3] in this
order, float64; the results are weights [B, 3] of (c, u, d). Nothing waits for the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

C, U, D = 0, 1, 2


class Combine(ABC):
    """How the pair is combined instead of u + weight (c - u). Final subclasses are dataclasses.

    Attributes:
        momentum: factor on the difference of the step before that is added to each difference.
        zero_steps: how many first steps take F = 0, without a model call.
    """

    momentum: float = 0.0
    zero_steps: int = 0

    @abstractmethod
    def weights(self, gram: Tensor, weight: float | Tensor, original: bool) -> Tensor:
        """Weights [B, 3] of (c, u, d); weight is a number or [B]; original: c leads, not u."""


def _columns(gram: Tensor, *columns: Any) -> Tensor:
    """Numbers and tensors [B] side by side as [B, n]."""
    like = gram[:, 0, 0]
    whole = [c if isinstance(c, Tensor) else torch.full_like(like, c) for c in columns]
    return torch.stack([column.to(like).expand_as(like) for column in whole], dim=1)


def _leading(original: bool, weak: Any = 1.0) -> tuple[Any, Any]:
    """Weights of (c, u) in the output that leads."""
    return (1.0, 0.0) if original else (0.0, weak)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where the denominator is 0: nothing lies along a vector of length 0."""
    safe = torch.where(denominator > 0, denominator, torch.ones_like(denominator))
    return torch.where(denominator > 0, numerator / safe, torch.zeros_like(numerator))


@dataclass(frozen=True)
class Projected(Combine):
    """The difference, kept short and turned away from c (Sadat et al. 2024, "APG", algorithm 1).

    d' = min(1, norm / |d|) d, of which the part along c is multiplied by eta:
    F = u + weight (d' - (1 - eta) (<d', c> / <c, c>) c). The paper leads with c: `original=True`
    with its weight less 1.

    Attributes:
        eta: 0 leaves out what only changes contrast; 1 keeps it.
        norm: bound on |d|, the norm over a whole sample; inf for none.
        momentum: of the running average; the paper takes negative ones, such as -0.5.
    """

    eta: float = 0.0
    norm: float = float("inf")
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not self.norm > 0:
            raise ValueError(f"Projected: norm is {self.norm}, expected more than 0")

    def weights(self, gram: Tensor, weight: float | Tensor, original: bool) -> Tensor:
        length = gram[:, D, D].clamp(min=0).sqrt()
        scale = weight * (self.norm / length).clamp(max=1)
        along = scale * (1 - self.eta) * _ratio(gram[:, D, C], gram[:, C, C])
        lead_c, lead_u = _leading(original)
        return _columns(gram, lead_c - along, lead_u, scale)


@dataclass(frozen=True)
class ZeroStar(Combine):
    """u is first scaled to be nearest to c (Fan et al. 2025, "CFG-Zero*", section 4).

    u' = (<c, u> / <u, u>) u, F = u' + weight (c - u'); the first steps stand still.

    Attributes:
        zero_steps: how many first steps take F = 0; the paper takes about 4 % of the steps of a flow.
    """

    zero_steps: int = 1

    def __post_init__(self) -> None:
        if self.zero_steps < 0:
            raise ValueError(f"ZeroStar: zero_steps is {self.zero_steps}, expected at least 0")

    def weights(self, gram: Tensor, weight: float | Tensor, original: bool) -> Tensor:
        nearest = _ratio(gram[:, C, U], gram[:, U, U])
        lead_c, lead_u = _leading(original, nearest)
        return _columns(gram, lead_c + weight, lead_u - weight * nearest, 0.0)


@dataclass(frozen=True)
class Tangential(Combine):
    """u is first projected on the direction that c and u have most in common.

    Kwon et al. 2025, "TCFG": the first right singular vector v of the two rows c and u;
    u' = <u, v> v, F = u' + weight (c - u'). v = (p c + q u) / |p c + q u| for the eigenvector (p, q)
    of their 2 x 2 products with the larger eigenvalue.
    """

    def weights(self, gram: Tensor, weight: float | Tensor, original: bool) -> Tensor:
        cc, cu, uu = gram[:, C, C], gram[:, C, U], gram[:, U, U]
        half = 0.5 * (cc - uu)
        root = torch.hypot(half, cu)
        # Of the two forms of the eigenvector the one without cancellation.
        p = torch.where(half >= 0, half + root, cu)
        q = torch.where(half >= 0, cu, root - half)
        square = p * p * cc + 2 * p * q * cu + q * q * uu
        share = _ratio(p * cu + q * uu, square)  # u' = share (p c + q u)
        on_c, on_u = share * p, share * q
        rest = 1 - weight if not original else -weight
        return _columns(gram, weight + float(original) + rest * on_c, rest * on_u, 0.0)


@dataclass(frozen=True)
class MagnitudeAware(Combine):
    """The weight falls where the difference is large against u (MAMBO-G).

    weight' = 1 + (weight - 1) exp(-decay |d| / |u|), or weight exp(...) with original=True;
    F = u + weight' d.

    Attributes:
        decay: 0 is plain guidance.
    """

    decay: float = 8.0

    def __post_init__(self) -> None:
        if not self.decay >= 0:
            raise ValueError(f"MagnitudeAware: decay is {self.decay}, expected at least 0")

    def weights(self, gram: Tensor, weight: float | Tensor, original: bool) -> Tensor:
        lengths = torch.diagonal(gram, dim1=1, dim2=2).clamp(min=0).sqrt()
        tiny = torch.finfo(lengths.dtype).tiny  # an empty pair has ratio 0, an empty u a huge one
        factor = torch.exp(-self.decay * lengths[:, D] / lengths[:, U].clamp(min=tiny))
        damped = weight * factor if original else 1 + (weight - 1) * factor
        lead_c, lead_u = _leading(original)
        return _columns(gram, lead_c, lead_u, damped)


@dataclass(frozen=True)
class Extrapolate(Combine):
    """Plain guidance: F = u + weight d, for use with rescaling."""

    def weights(self, gram: Tensor, weight: float | Tensor, original: bool) -> Tensor:
        lead_c, lead_u = _leading(original)
        return _columns(gram, lead_c, lead_u, weight)


def rescaled(weights: Tensor, gram: Tensor, means: Tensor, elements: int, share: float) -> Tensor:
    """Weights [B, n] of the result scaled to the standard deviation of the first output.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.4:
    share of F std(c) / std(F) and 1 - share of F. gram, means: of the n outputs, each of `elements`
    numbers.
    """
    centred = gram - elements * means[:, :, None] * means[:, None, :]
    result = torch.einsum("bi,bij,bj->b", weights, centred, weights)
    factor = (_ratio(centred[:, C, C], result)).clamp(min=0).sqrt()
    return weights * (share * factor + (1 - share))[:, None]
