"""The calls whose results by k-diffusion 0.1.1.post1 are recorded in `k_diffusion.json`.

Everything random is replaced by `numbers`, so that the recording holds whatever torch's generator does.
`RANGED` was recorded with float64 as torch's default, as k-diffusion makes its levels in that.
"""

import math

import torch

SIGMAS = {"n": 6, "sigma_min": 0.03, "sigma_max": 14.6}
CASES = [
    ("euler", {}),
    ("euler", {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01}),
    ("heun", {}),
    ("heun", {"s_churn": 3.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01}),
    ("dpm_2", {}),
    ("dpm_2", {"s_churn": 2.0}),
    ("euler_ancestral", {}),
    ("euler_ancestral", {"eta": 0.5, "s_noise": 0.9}),
    ("dpm_2_ancestral", {}),
    ("dpm_2_ancestral", {"eta": 0.4}),
    ("lms", {}),
    ("lms", {"order": 2}),
    ("dpmpp_2m", {}),
    ("dpmpp_2s_ancestral", {}),
    ("dpmpp_2s_ancestral", {"eta": 0.3, "s_noise": 0.9}),
    ("dpmpp_sde", {}),
    ("dpmpp_sde", {"eta": 0.5, "r": 0.4}),
    ("dpmpp_2m_sde", {}),
    ("dpmpp_2m_sde", {"eta": 0.7, "solver_type": "heun"}),
    ("dpmpp_2m_sde", {"eta": 0.0}),
    ("dpmpp_3m_sde", {}),
    ("dpmpp_3m_sde", {"eta": 0.5}),
]
RANGED = [
    ("dpm_fast", {"n": 6}),
    ("dpm_fast", {"n": 7, "eta": 0.6}),
    ("dpm_fast", {"n": 8}),
    ("dpm_fast", {"n": 20, "eta": 0.6}),
    ("dpm_adaptive", {"order": 2}),
    ("dpm_adaptive", {"order": 2, "eta": 0.6}),
    ("dpm_adaptive", {"order": 3, "pcoeff": 0.1, "dcoeff": 0.05}),
    ("dpm_adaptive", {"order": 3, "eta": 0.6}),
]
SAMPLED = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")  # their default needs torchsde


def start():
    return SIGMAS["sigma_max"] * numbers((2, 3), 0)


def numbers(shape, k):
    """Fixed numbers of about unit variance, the k-th tensor of a sequence."""
    i = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
    return math.sqrt(2) * torch.cos(1.7 * i + 2.3 * k + 0.4)


def model(x, sigma, shift):
    level = sigma.reshape(-1, *[1] * (x.dim() - 1))
    return shift + 0.6 * torch.tanh(x / (1 + level)) + 0.3 * torch.cos(x.roll(1, -1) / (1 + level))


def outcome(samplers, name, options, monkeypatch):
    """Result, callback values and noise calls of one case, as plain numbers."""
    drawn, calls, seen = [], [], []

    def draw(like):
        drawn.append(0)
        return numbers(like.shape, len(drawn)).to(like)

    def sampler(sigma, sigma_next):
        calls.append([float(sigma), float(sigma_next)])
        return draw(start())

    def callback(info):
        level = [float(info[key]) for key in ("i", "sigma", "sigma_hat")]
        seen.append([*level, float(info["x"].sum()), float(info["denoised"].sum())])

    monkeypatch.setattr(torch, "randn_like", draw)
    options = {**options, "extra_args": {"shift": 0.1}, "disable": True, "callback": callback}
    if name in SAMPLED:
        options["noise_sampler"] = sampler
    function = getattr(samplers, f"sample_{name}")
    if name.startswith(("dpm_fast", "dpm_adaptive")):
        low, high = SIGMAS["sigma_min"], SIGMAS["sigma_max"]
        result = function(model, start(), low, high, **options)
    else:
        sigmas = samplers.get_sigmas_karras(**SIGMAS).double()
        result = function(model, start(), sigmas, **options)
    return {
        "result": result.flatten().tolist(),
        "callback": seen,
        "noise": calls,
        "drawn": len(drawn),
    }
