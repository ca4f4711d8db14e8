"""Noise tables and step spacings in the arithmetic of diffusers.

`suffuse.diffusion.discrete` and `.schedules` have the same schedules in float64. Here every table
is rounded where diffusers rounds it, so that timesteps, sigmas and trajectories come out equal:
`dtype` is float32 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def betas(name: str, config: Any, dtype: torch.dtype, wide: bool = False) -> Tensor:
    """Noise variances [num_train_timesteps] of `config.beta_schedule` or `config.trained_betas`.

    linear and cosine: Ho et al. 2020; Nichol & Dhariwal 2021. wide: scaled_linear in float64, as
    the CogVideoX schedulers have it.
    """
    n, kind = config.num_train_timesteps, config.beta_schedule
    if config.get("trained_betas") is not None:
        return torch.as_tensor(np.asarray(config.trained_betas), dtype=dtype)
    if kind in _ALPHA_BAR:
        return _from_alpha_bar(_ALPHA_BAR[kind], n, dtype)
    start, end = config.beta_start, config.beta_end
    if kind == "linear":
        return torch.linspace(start, end, n, dtype=dtype)
    if kind == "scaled_linear":
        table = torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64 if wide else dtype)
        return table**2
    if kind == "sigmoid":
        return torch.sigmoid(torch.linspace(-6, 6, n, dtype=dtype)) * (end - start) + start
    known = ", ".join(["linear", "scaled_linear", "sigmoid", *_ALPHA_BAR])
    raise NotImplementedError(f"{name}: beta_schedule is {kind!r}, expected one of {known}")


def _cosine(t: float) -> float:
    return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(t: float) -> float:
    lam = -0.5 * math.copysign(1, 0.5 - t) * math.log(1 - 2 * math.fabs(0.5 - t) + 1e-6)
    return math.sqrt(math.exp(lam) / (1 + math.exp(lam)))


def _exponential(t: float) -> float:
    return math.exp(t * -12.0)


_ALPHA_BAR = {"squaredcos_cap_v2": _cosine, "laplace": _laplace, "exp": _exponential}


def _from_alpha_bar(alpha_bar: Callable[[float], float], n: int, dtype: torch.dtype) -> Tensor:
    table = [min(1 - alpha_bar((i + 1) / n) / alpha_bar(i / n), 0.999) for i in range(n)]
    return torch.tensor(table, dtype=dtype)


def zero_terminal_alphas(alphas_cumprod: Tensor) -> Tensor:
    """alphas_cumprod with 0 as its last entry (Lin et al. 2024, algorithm 1)."""
    root = alphas_cumprod.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * (first / (first - last))) ** 2


def zero_terminal_betas(table: Tensor) -> Tensor:
    """The betas of `zero_terminal_alphas`."""
    alpha_bar = zero_terminal_alphas(torch.cumprod(1.0 - table, dim=0))
    return 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


# step spacings


def _refuse_spacing(name: str, spacing: str) -> ValueError:
    return ValueError(
        f"{name}: timestep_spacing is {spacing!r}, expected 'linspace', 'leading' or 'trailing'"
    )


def spaced(name: str, config: Any, steps: int, dtype: Any = np.int64) -> Array:
    """Timesteps [steps], falling, with both ends of the range in them for "linspace".

    Lin et al. 2024, table 2. dtype: of the result; integers are rounded.
    """
    n, kind = config.num_train_timesteps, config.timestep_spacing
    integer = np.issubdtype(dtype, np.integer)
    if kind == "linspace":
        if not integer:
            return np.linspace(0, n - 1, steps, dtype=dtype)[::-1].copy()
        return np.linspace(0, n - 1, steps).round()[::-1].astype(dtype)
    if kind == "leading":
        return (np.arange(steps) * (n // steps))[::-1].astype(dtype) + dtype(config.steps_offset)
    if kind == "trailing":
        return np.arange(n, 0, -n / steps).round().astype(dtype) - dtype(1)
    raise _refuse_spacing(name, kind)


def spaced_multistep(name: str, config: Any, steps: int, last: int | None = None) -> Array:
    """Timesteps [steps] of the multistep solvers, which lay out one more and leave out the last.

    last: timesteps end before this one, if the noisiest are clipped off.
    """
    n, kind = config.num_train_timesteps, config.timestep_spacing
    last = n if last is None else last
    if kind == "linspace":
        return np.linspace(0, last - 1, steps + 1).round()[::-1][:-1].astype(np.int64)
    if kind == "leading":
        grid = (np.arange(steps + 1) * (last // (steps + 1)))[::-1][:-1].astype(np.int64)
        return grid + config.steps_offset
    if kind == "trailing":
        return np.arange(last, 0, -n / steps).round().astype(np.int64) - 1
    raise _refuse_spacing(name, kind)


def unclipped(config: Any, lambda_t: Tensor) -> int:
    """How many timesteps have lambda above `config.lambda_min_clipped`."""
    clipped = torch.searchsorted(lambda_t.flip(0), config.lambda_min_clipped)
    return config.num_train_timesteps - int(clipped)


# noise levels


def sigma_table(alphas_cumprod: Tensor) -> Array:
    """sigma / alpha of every training timestep, rising."""
    return np.array(((1 - alphas_cumprod) / alphas_cumprod) ** 0.5)


def _bounds(config: Any, sigmas: Array) -> tuple[float, float]:
    low, high = config.get("sigma_min"), config.get("sigma_max")
    return (
        sigmas[-1].item() if low is None else low,
        sigmas[0].item() if high is None else high,
    )


def karras(config: Any, sigmas: Array, steps: int, rho: float = 7.0) -> Array:
    """Karras et al. 2022, eq. 5, between the ends of falling `sigmas` or the config's bounds."""
    low, high = _bounds(config, sigmas)
    return ramped(np.linspace(0, 1, steps), low, high, rho)


def ramped(ramp: Any, low: float, high: float, rho: float) -> Any:
    """Equal steps in sigma^(1 / rho) from high at ramp 0 to low at ramp 1."""
    start, end = high ** (1 / rho), low ** (1 / rho)
    return (start + ramp * (end - start)) ** rho


def exponential(config: Any, sigmas: Array, steps: int) -> Array:
    """Equal steps in log sigma."""
    low, high = _bounds(config, sigmas)
    return np.exp(np.linspace(math.log(high), math.log(low), steps))


def beta_quantiles(config: Any, sigmas: Array, steps: int) -> Array:
    """Quantiles of the beta(0.6, 0.6) distribution (Lee et al. 2024, "Beta Sampling")."""
    try:
        from scipy.stats import beta
    except ImportError:
        raise ImportError("use_beta_sigmas needs scipy: pip install scipy") from None
    low, high = _bounds(config, sigmas)
    quantiles = np.array([beta.ppf(t, 0.6, 0.6) for t in 1 - np.linspace(0, 1, steps)])
    return low + quantiles * (high - low)


def respaced(name: str, config: Any, sigmas: Array, steps: int) -> Array | None:
    """The levels of the `use_*_sigmas` option that is set, or None.

    sigmas: falling; their ends bound the new ones.
    """
    options = {
        "use_karras_sigmas": karras,
        "use_exponential_sigmas": exponential,
        "use_beta_sigmas": beta_quantiles,
    }
    chosen = [option for option in options if config.get(option)]
    if len(chosen) > 1:
        raise ValueError(f"{name}: {' and '.join(chosen)} are set, expected at most one")
    return options[chosen[0]](config, sigmas, steps) if chosen else None


def times_of(sigmas: Array, log_table: Array) -> Array:
    """Fractional training timesteps of noise levels, by linear interpolation in log sigma."""
    levels = np.log(np.maximum(np.asarray(sigmas), 1e-10))
    low = (np.searchsorted(log_table, levels, side="right") - 1).clip(0, len(log_table) - 2)
    below, above = log_table[low], log_table[low + 1]
    share = np.clip((below - levels) / (below - above), 0, 1)
    return (1 - share) * low + share * (low + 1)


def flow_shifted(sigmas: Any, shift: float) -> Any:
    """Esser et al. 2024, eq. 23."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def dynamic_shifted(kind: str, mu: float, sigmas: Any) -> Any:
    """Shift by image size: exponential e^mu / (e^mu + 1 / t - 1), or linear in mu (FLUX)."""
    scale = math.exp(mu) if kind == "exponential" else mu
    return scale / (scale + (1 / sigmas - 1) ** 1.0)


def stretched_to(sigmas: Any, terminal: float) -> Any:
    """Moves the last level to `terminal`, keeping 1 (LTX-Video)."""
    rest = 1 - sigmas
    return 1 - rest / (rest[-1] / (1 - terminal))
