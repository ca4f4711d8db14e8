"""Exponential integration of one step: the exact solution with an interpolated estimate.

From noise level s to t, with lambda = log(alpha / sigma), h = lambda_t - lambda_s and eta the
strength of the noise (0: the probability-flow ODE, 1: the reverse SDE; Lu et al. 2022,
"DPM-Solver++", section 5; Xue et al. 2023, "SA-Solver", eq. 14, with eta = tau^2):

    data:   x_t = e^(-eta h) (sigma_t / sigma_s) x_s + alpha_t I[D] + sigma_t sqrt(1 - e^(-2 eta h)) z
    noise:  x_t = (alpha_t / alpha_s) x_s + (1 + eta) sigma_t I[eps] + sigma_t sqrt(eta (e^(2h) - 1)) z

    I[G] = integral over u from 0 to H of e^(u - H) G(u) du,   u = rate (lambda - lambda_s)

with rate 1 + eta and -1. A method is a choice of polynomial for G through estimates at known nodes:
sum_j w_j G_j with sum_j w_j = 1 - e^-H.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from suffuse.diffusion.solvers.base import Node

Form = Literal["data", "noise"]
Rule = Literal["exact", "midpoint", "half_step"]


@dataclass(frozen=True)
class Leg:
    """x_t = keep x_s + scale sum_j w_j G_j + noise z, in float64.

    Attributes:
        origin, rate: u of a node is rate (lambda - origin).
        length: H, u at the end of the step; infinite to clean data and from alpha = 0.
    """

    keep: float
    scale: float
    noise: float
    origin: float
    rate: float
    length: float

    def weights(
        self, nodes: Sequence[Node], rule: Rule = "exact", half_curve: bool = False
    ) -> list[float]:
        """w_j for estimates at `nodes`, of which the one at the step's start has to be one.

        rule: "exact" integrates the interpolating polynomial. "midpoint" and "half_step" replace, for
            two nodes, the weight of the slope: half of 1 - e^-H or of H for the integral of u / H.
        half_curve: halves the second-order term of three nodes, as the 3M methods in use do.
        """
        places = [self.rate * (node.lam - self.origin) for node in nodes]
        total = -math.expm1(-self.length)
        if len(nodes) == 1:
            return [total]
        places = [place / self.length for place in places]
        if rule in ("midpoint", "half_step") and len(nodes) == 2:
            slope = 0.5 * (total if rule == "midpoint" else self.length)
            other = slope / max(places, key=abs)
            return [other if place else total - other for place in places]
        moments = [self.length * m for m in unit_moments(self.length, len(nodes))]
        weights = _integrals(lagrange(places), moments)
        if half_curve and len(nodes) == 3:
            # The last coefficient is the weight of G_j in the second divided difference.
            second = [polynomial[2] for polynomial in lagrange(places)]
            weights = [w - 0.5 * moments[2] * d for w, d in zip(weights, second, strict=True)]
        return weights


def leg(s: Node, t: Node, form: Form = "data", eta: float = 0.0) -> Leg:
    """The step s -> t with noise of strength eta >= 0."""
    h = _difference(t.lam, s.lam)
    loss = eta * h if eta else 0.0
    if form == "data":
        keep = math.exp(-loss) * t.sigma / s.sigma
        noise = t.sigma * math.sqrt(-math.expm1(-2 * loss))
        return Leg(keep, t.alpha, noise, s.lam, 1 + eta, (1 + eta) * h)
    noise = t.sigma * math.sqrt(eta * math.expm1(2 * h)) if eta else 0.0
    return Leg(t.alpha / s.alpha, (1 + eta) * t.sigma, noise, s.lam, -1.0, -h)


def ancestral_leg(s: Node, t: Node, eta: float) -> Leg:
    """The deterministic step to a level below t, then noise up to t.

    u of nodes between s and t is stretched by as much as the step is.
    """
    down, up = ancestral(s, t, eta)
    part = leg(s, replace(t, sigma=down))
    h = _difference(t.lam, s.lam)
    rate = part.length / h if math.isfinite(h) else 1.0
    return replace(part, noise=up, rate=rate)


def ancestral(s: Node, t: Node, eta: float) -> tuple[float, float]:
    """(sigma down, sigma up) of x_t: what is left of the noise of x_s, and what is added.

    In x / alpha with r = sigma / alpha: r_up^2 = eta^2 r_t^2 (r_s^2 - r_t^2) / r_s^2 and
    r_down^2 = r_t^2 - r_up^2, which is the noise of Song et al. 2021, "DDIM", eq. 16.
    """
    if eta == 0 or t.sigma == 0:
        return t.sigma, 0.0
    left = (t.sigma * s.alpha) / (s.sigma * t.alpha) if s.sigma * t.alpha != 0 else math.inf
    if left > 1:
        raise ValueError("times run from data to noise, which needs eta = 0")
    up = min(t.sigma, eta * t.sigma * math.sqrt(1 - left**2))
    return math.sqrt(t.sigma**2 - up**2), up


def _difference(end: float, start: float) -> float:
    """end - start, infinite where either is (a step inside clean data or alpha = 0 has length 0)."""
    return 0.0 if end == start else end - start


def unit_moments(length: float, count: int) -> list[float]:
    """The integrals over [0, 1] of e^(length (u - 1)) u^k for k < count.

    By the series where the recursion of integration by parts would cancel.
    """
    if abs(length) < 1:
        return [
            math.exp(-length)
            * math.fsum(length**n / (math.factorial(n) * (n + k + 1)) for n in range(22))
            for k in range(count)
        ]
    moments = [-math.expm1(-length) / length]
    for k in range(1, count):
        moments.append((1 - k * moments[-1]) / length)
    return moments


def lagrange(places: Sequence[float]) -> list[list[float]]:
    """Coefficients, lowest power first, of the polynomials that are 1 at one place, 0 at the rest."""
    polynomials = []
    for j, here in enumerate(places):
        polynomial = [1.0]
        for other in (place for i, place in enumerate(places) if i != j):
            shifted = [0.0, *polynomial]
            below = [*(other * c for c in polynomial), 0.0]
            polynomial = [(a - b) / (here - other) for a, b in zip(shifted, below, strict=True)]
        polynomials.append(polynomial)
    return polynomials


def adams_weights(places: Sequence[float], end: float) -> list[float]:
    """Integrals from places[0] to `end` of the Lagrange polynomials of `places`."""
    width = end - places[0]
    scaled = [(place - places[0]) / width for place in places]
    return _integrals(lagrange(scaled), [width / (k + 1) for k in range(len(places))])


def _integrals(polynomials: list[list[float]], moments: Sequence[float]) -> list[float]:
    return [math.fsum(c * m for c, m in zip(p, moments, strict=True)) for p in polynomials]
