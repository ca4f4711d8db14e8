"""Log-likelihood of data under the probability-flow ODE, with the exact or an estimated trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from suffuse.diffusion.adaptive import Estimates
from suffuse.diffusion.guidance import Guidance
from suffuse.diffusion.ode import dormand_prince
from suffuse.diffusion.prediction import Prediction
from suffuse.diffusion.process import Process


class Likelihood(NamedTuple):
    """log_prob: [B] nats. latent: where the ODE carries x, [B, ...]. calls: model calls."""

    log_prob: Tensor
    latent: Tensor
    calls: int

    def bits_per_dim(self) -> Tensor:
        """[B] bits for each number of a sample, of the density as it is (no dequantisation)."""
        return -self.log_prob / (math.log(2) * max(self.latent[0].numel(), 1))


def log_likelihood(
    guided: Guidance | Callable[..., Tensor],
    x: Tensor,
    process: Process,
    prediction: Prediction | str,
    *,
    start: float,
    end: float | None = None,
    probes: int | None = None,
    generator: torch.Generator | None = None,
    prior_std: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Likelihood:
    """log p_start(x) by the change of variables along the probability-flow ODE.

    Song et al. 2021, "Score-Based Generative Modeling through SDEs", section 4.3 and D.2; Grathwohl
    et al. 2019, "FFJORD", for the estimated trace.

    Args:
        guided, process, prediction: as for `sample` and `Solver.plan`. The model is differentiated.
        x: data [B, ...]; fp32 or fp64 is kept, anything less becomes fp32.
        start: time that the data are taken to be at, with sigma > 0: a little above clean.
        end: default `process.t_max`.
        probes: None takes the exact trace, one backward pass for each number of a sample. Else the
            number of Rademacher vectors that estimate it (Hutchinson), the same along the way.
        generator: for the probes, on its device.
        prior_std: of the normal distribution at `end`; default sigma there.
        rtol, atol: of the adaptive solver, for x / alpha and the log-density.

    Raises:
        ValueError: probes below 1, or ends without alpha and sigma where they are needed.
    """
    if probes is not None and probes < 1:
        raise ValueError(f"log_likelihood: probes is {probes}, expected at least 1 or None")
    model = Estimates(guided, process, prediction)
    first = model.grid.at(start)
    last = model.grid.at(process.t_max if end is None else end)
    axis = model.axis
    if first.sigma == 0 or 0 in (axis.scale(first), axis.scale(last)):
        raise ValueError(
            f"log_likelihood: start, end are {first.time:g}, {last.time:g}, expected sigma > 0 at "
            "the start and alpha > 0"
        )
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    size = max(x[0].numel(), 1) if len(x) else 1
    signs = None if probes is None else _rademacher(probes, x, generator)

    def slope(state: Tensor, clock: float) -> Tensor:
        with torch.enable_grad():
            y = state[:, :-1].reshape(x.shape).requires_grad_()
            velocity = model.slope(y, clock)
            trace = _exact_trace(velocity, y) if signs is None else _traces(velocity, y, signs)
        return torch.cat([velocity.detach().flatten(1), trace[:, None]], dim=1)

    y = (x / axis.scale(first)).flatten(1)
    state = torch.cat([y, y.new_zeros(len(y), 1)], dim=1)
    clocks = axis.clock(first), axis.clock(last)
    with torch.no_grad():
        state, _ = dormand_prince(slope, state, *clocks, rtol=rtol, atol=atol)
    latent = axis.scale(last) * state[:, :-1].reshape(x.shape)
    std = last.sigma if prior_std is None else prior_std
    prior = -0.5 * (latent / std).flatten(1).square().sum(1)
    prior = prior - size * (math.log(std) + 0.5 * math.log(2 * math.pi))
    scales = math.log(axis.scale(last)) - math.log(axis.scale(first))
    return Likelihood(prior + state[:, -1] + size * scales, latent, model.calls)


def _rademacher(probes: int, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """[probes, B, ...] of -1 and 1."""
    device = x.device if generator is None else generator.device
    bits = torch.randint(2, (probes, *x.shape), generator=generator, device=device)
    return (2 * bits - 1).to(x)


def _exact_trace(velocity: Tensor, y: Tensor) -> Tensor:
    """Sum over i of dv_i / dy_i, [B]."""
    columns = velocity.flatten(1)
    trace = columns.new_zeros(len(columns))
    for i in range(columns.shape[1]):
        (row,) = torch.autograd.grad(columns[:, i].sum(), y, retain_graph=True)
        trace = trace + row.flatten(1)[:, i]
    return trace.detach()


def _traces(velocity: Tensor, y: Tensor, signs: Tensor) -> Tensor:
    """Mean over probes of e^T (dv / dy) e, [B]."""
    total = y.new_zeros(len(y))
    for probe in signs:
        (row,) = torch.autograd.grad((velocity * probe).sum(), y, retain_graph=True)
        total = total + (row * probe).flatten(1).sum(1)
    return (total / len(signs)).detach()
