"""k-diffusion's samplers by name and signature, each one of our plans.

`model(x, sigma, **extra_args)` returns the denoised sample, x = data + sigma noise; sigmas [steps + 1]
run from noise to data. Results are those of k-diffusion 0.1 to rounding, with its numbers from torch's
default generator or from `noise_sampler(sigma, sigma_next)`. Where k-diffusion defaults to a Brownian
tree, the default here is `BrownianPath`: the same law, other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from suffuse.diffusion.adaptive import StepControl, dpm_adaptive
from suffuse.diffusion.continuous import EDM
from suffuse.diffusion.likelihood import log_likelihood as _log_likelihood
from suffuse.diffusion.loop import Loop
from suffuse.diffusion.solvers import (
    DPM2,
    LMS,
    Churn,
    DPMSolver,
    DPMSolverPP2M,
    DPMSolverSDE,
    DPMSolverSinglestep,
    Euler,
    EulerAncestral,
    Heun,
    Solver,
    Stage,
)

Model = Callable[..., Tensor]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[dict[str, Any]], Any]


def append_zero(x: Tensor) -> Tensor:
    """x [n] with a 0 after it."""
    return torch.cat([x, x.new_zeros([1])])


def get_sigmas_karras(
    n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu"
) -> Tensor:
    """n levels of Karras et al. 2022, eq. 5, then 0: [n + 1]."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    root = high + torch.linspace(0, 1, n) * (low - high)
    return append_zero(root**rho).to(device)


def get_sigmas_exponential(
    n: int, sigma_min: float, sigma_max: float, device: Any = "cpu"
) -> Tensor:
    """n levels with equal ratios, then 0: [n + 1]."""
    return get_sigmas_polyexponential(n, sigma_min, sigma_max, device=device)


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Any = "cpu"
) -> Tensor:
    """n levels whose logarithm is a power rho of an even division, then 0: [n + 1]."""
    ramp = torch.linspace(1, 0, n, device=device) ** rho
    low, high = math.log(sigma_min), math.log(sigma_max)
    return append_zero(torch.exp(ramp * (high - low) + low))


def get_sigmas_vp(
    n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3, device: Any = "cpu"
) -> Tensor:
    """n levels of the continuous VP schedule from time 1 to eps_s, then 0: [n + 1]."""
    t = torch.linspace(1, eps_s, n, device=device)
    return append_zero(torch.sqrt(torch.exp(beta_d * t**2 / 2 + beta_min * t) - 1))


class BrownianPath:
    """Increments of one Brownian motion over sigma, scaled to variance 1: a noise sampler.

    Points between known ones are drawn from the Brownian bridge, so that overlapping intervals agree.

    Args:
        x: whose shape, dtype and device the increments have.
        seed: of an own generator on x's device; default: torch's default generator.
    """

    def __init__(self, x: Tensor, seed: int | None = None) -> None:
        self._like = x
        self._generator = None
        if seed is not None:
            self._generator = torch.Generator(x.device).manual_seed(seed)
        self._known: dict[float, Tensor] = {}

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        a, b = float(sigma), float(sigma_next)
        return (self._at(a) - self._at(b)) / math.sqrt(abs(a - b))

    def _at(self, place: float) -> Tensor:
        if place not in self._known:
            below = max((p for p in self._known if p < place), default=None)
            above = min((p for p in self._known if p > place), default=None)
            self._known[place] = self._between(below, place, above)
        return self._known[place]

    def _between(self, below: float | None, place: float, above: float | None) -> Tensor:
        z = torch.randn(
            self._like.shape,
            generator=self._generator,
            dtype=self._like.dtype,
            device=self._like.device,
        )
        if below is None or above is None:
            near = above if below is None else below
            if near is None:
                return torch.zeros_like(self._like)
            return self._known[near] + math.sqrt(abs(place - near)) * z
        share = (place - below) / (above - below)
        spread = math.sqrt(share * (above - place))
        return torch.lerp(self._known[below], self._known[above], share) + spread * z


class _Run:
    """One sampling run: calls the model as k-diffusion does, with its callback and noise."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None,
        callback: Callback | None,
        disable: bool | None,
    ) -> None:
        self._model, self._x, self._sigmas = model, x, sigmas
        self._extra, self._callback, self._disable = extra_args or {}, callback, disable
        self._stage: Stage | None = None
        self._called = -1  # the step whose first model call was made

    def _denoiser(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.to(x.dtype)
        denoised = self._model(x, sigma, **self._extra)
        stage = self._stage
        assert stage is not None  # set before every stage
        if self._callback is not None and stage.step != self._called:
            level = self._sigmas[stage.step]
            self._callback(
                {
                    "x": x,
                    "i": stage.step,
                    "sigma": level,
                    "sigma_hat": sigma[0] if len(sigma) else level,
                    "denoised": denoised,
                }
            )
        self._called = stage.step
        return denoised

    @torch.no_grad()
    def __call__(self, solver: Solver, noise: Callable[[int, Stage], Tensor | None]) -> Tensor:
        plan = solver.plan(EDM(), "sample", self._sigmas.double())
        wide = torch.promote_types(self._x.dtype, torch.float32)
        x = self._x.to(wide)
        loop = Loop(self._denoiser, plan, dtype=wide, device=x.device, model_dtype=self._x.dtype)
        state = loop.begin(x)
        for i in tqdm(range(len(plan.stages)), disable=self._disable):
            self._stage = plan.stages[i]
            z = noise(i, self._stage)
            state = loop.stage(i, state, None if z is None else z.to(wide))
        return state.x.to(self._x.dtype)

    def churned(self, solver: Solver) -> Tensor:
        """With one draw at the start of every step, used or not."""
        drawn = -1

        def noise(i: int, stage: Stage) -> Tensor | None:
            nonlocal drawn
            if stage.step == drawn:
                return None
            drawn, z = stage.step, torch.randn_like(self._x)
            return z if stage.needs_noise else None

        return self(solver, noise)

    def noisy(
        self, solver: Solver, sampler: NoiseSampler | None, *, calls: int = 1, last: bool = False
    ) -> Tensor:
        """With `calls` calls of the noise sampler in every step that does not end in clean data.

        last: also in that one.
        """
        sampler = sampler or (lambda sigma, sigma_next: torch.randn_like(self._x))
        plan = solver.plan(EDM(), "sample", self._sigmas.double())
        steps = [stage.step for stage in plan.stages] + [-1]
        ends = {i for i, (a, b) in enumerate(pairwise(steps)) if a != b}

        def noise(i: int, stage: Stage) -> Tensor | None:
            start, end = self._sigmas[stage.step], self._sigmas[stage.step + 1]
            if (i not in ends and calls == 1) or (end == 0 and not last):
                return None
            if i not in ends:
                end = self._sigmas.new_tensor(plan.stages[i + 1].time)
            z = sampler(start, end)
            return z if stage.needs_noise else None

        return self(solver, noise)


def sample_euler(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Tensor:
    """Euler steps with churn (Karras et al. 2022, algorithm 2 without the correction)."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    return run.churned(Euler(Churn(s_churn, s_tmin, s_tmax, s_noise)))


def sample_heun(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Tensor:
    """Heun steps with churn (Karras et al. 2022, algorithm 2)."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    return run.churned(Heun(Churn(s_churn, s_tmin, s_tmax, s_noise)))


def sample_dpm_2(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Tensor:
    """Midpoint steps in log sigma with churn."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    return run.churned(DPM2(churn=Churn(s_churn, s_tmin, s_tmax, s_noise)))


def sample_euler_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Euler steps to a lower level, and noise up from there."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    return run.noisy(EulerAncestral(eta, s_noise), noise_sampler)


def sample_dpm_2_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Midpoint steps to a lower level, and noise up from there."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    return run.noisy(DPM2(eta, s_noise), noise_sampler)


def sample_lms(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    order: int = 4,
) -> Tensor:
    """Linear multistep with up to `order` slopes, integrated exactly."""
    return _Run(model, x, sigmas, extra_args, callback, disable)(LMS(order), _silent)


def sample_dpmpp_2m(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """DPM-Solver++ (2M)."""
    return _Run(model, x, sigmas, extra_args, callback, disable)(DPMSolverPP2M(), _silent)


def _silent(i: int, stage: Stage) -> None:
    return None


def sample_dpmpp_2s_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """DPM-Solver++ (2S) steps to a lower level, and noise up from there."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    return run.noisy(DPMSolverSinglestep(2, eta=eta, s_noise=s_noise), noise_sampler)


def sample_dpmpp_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    r: float = 1 / 2,
) -> Tensor:
    """DPM-Solver++ for the SDE with a middle call at r of the step."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    solver = DPMSolverSDE(eta, r, s_noise, split="ancestral_legs", correlated=False)
    return run.noisy(solver, noise_sampler or BrownianPath(x), calls=2)


def sample_dpmpp_2m_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Tensor:
    """DPM-Solver++ (2M) for the SDE."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    solver = DPMSolver(2, variant=solver_type, eta=eta, s_noise=s_noise)
    return run.noisy(solver, noise_sampler) if eta else run(solver, _silent)


def sample_dpmpp_3m_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """DPM-Solver++ (3M) for the SDE."""
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    solver = DPMSolver(3, variant="heun", eta=eta, s_noise=s_noise)
    return run.noisy(solver, noise_sampler) if eta else run(solver, _silent)


def sample_dpm_fast(
    model: Model,
    x: Tensor,
    sigma_min: float,
    sigma_max: float,
    n: int,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """DPM-Solver of orders 1 to 3 with n model calls in all, equal steps in log sigma."""
    _check_range("sample_dpm_fast", sigma_min, sigma_max)
    if eta and sigma_min > sigma_max:
        raise ValueError(f"sample_dpm_fast: eta is {eta}, expected 0 from data to noise")
    count, rest = divmod(n, 3)
    orders = (*[3] * (count - 1), 2, 1) if rest == 0 else (*[3] * count, rest)
    ends = math.log(sigma_max), math.log(sigma_min)
    sigmas = torch.linspace(*ends, len(orders) + 1, dtype=torch.float64).exp()
    sigmas = sigmas.to(device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    run = _Run(model, x, sigmas, extra_args, callback, disable)
    solver = DPMSolverSinglestep(
        orders=orders, form="noise", eta=eta, above_end=True, s_noise=s_noise
    )
    return run.noisy(solver, noise_sampler, last=True)


def sample_dpm_adaptive(
    model: Model,
    x: Tensor,
    sigma_min: float,
    sigma_max: float,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
    return_info: bool = False,
) -> Any:
    """DPM-Solver-12 (order 2) or 23 (order 3) with adaptive steps in log sigma."""
    _check_range("sample_dpm_adaptive", sigma_min, sigma_max)
    extra = extra_args or {}
    sampler = noise_sampler or (lambda sigma, sigma_next: torch.randn_like(x))
    control = StepControl(h_init, pcoeff, icoeff, dcoeff, accept_safety)
    with tqdm(disable=disable) as bar, torch.no_grad():

        def denoiser(sample: Tensor, sigma: Tensor) -> Tensor:
            bar.update()
            return model(sample, sigma, **extra)

        def seen(info: dict[str, Any]) -> None:
            if callback is not None:
                sigma = x.new_tensor(info["time"])
                callback({**info, "i": info["steps"] - 1, "sigma": sigma, "sigma_hat": sigma})

        result, info = dpm_adaptive(
            denoiser,
            x,
            EDM(),
            "sample",
            start=sigma_max,
            end=sigma_min,
            order=order,
            rtol=rtol,
            atol=atol,
            control=control,
            eta=eta,
            s_noise=s_noise,
            noise=lambda a, b: sampler(x.new_tensor(a), x.new_tensor(b)),
            callback=seen,
        )
    return (result, info) if return_info else result


def log_likelihood(
    model: Model,
    x: Tensor,
    sigma_min: float,
    sigma_max: float,
    extra_args: dict[str, Any] | None = None,
    atol: float = 1e-4,
    rtol: float = 1e-4,
) -> tuple[Tensor, dict[str, int]]:
    """log p(x) [B] by the probability-flow ODE with one Rademacher probe, and {"fevals": calls}."""
    extra = extra_args or {}
    result = _log_likelihood(
        lambda y, sigma: model(y, sigma, **extra),
        x,
        EDM(),
        "sample",
        start=sigma_min,
        end=sigma_max,
        probes=1,
        rtol=rtol,
        atol=atol,
    )
    return result.log_prob, {"fevals": result.calls}


def _check_range(name: str, sigma_min: float, sigma_max: float) -> None:
    if not (sigma_min > 0 and sigma_max > 0):
        raise ValueError(
            f"{name}: sigma_min, sigma_max are {sigma_min}, {sigma_max}, expected more than 0"
        )
