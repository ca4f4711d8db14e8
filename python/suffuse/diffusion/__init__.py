"""Diffusion: processes, predictions, losses, guidance, time grids, solvers and the sampling loop.

A model is any callable `denoiser(x_t, t, **condition)`. Training needs a loss, sampling a plan:

    loss = flow_matching_loss(denoiser, x0, y=labels)

    process = Flow()
    plan = Heun().plan(process, "flow", uniform(process, 25))
    x = sample(denoiser, torch.randn(16, 3, 32, 32), plan)

A solver is data: a plan holds the float64 coefficients of every step, and one loop with one fused
update serves all of them.
"""

from suffuse.diffusion.continuous import EDM, VE, VP, Flow
from suffuse.diffusion.discrete import (
    DiscreteVP,
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    zero_terminal_snr,
)
from suffuse.diffusion.guidance import ClassifierFree, Guidance, Unguided
from suffuse.diffusion.losses import (
    denoising_loss,
    flow_matching_loss,
    logit_normal_times,
    min_snr_weight,
)
from suffuse.diffusion.prediction import (
    PREDICTIONS,
    Prediction,
    edm_preconditioned,
    predicted_data,
    predicted_noise,
    prediction_target,
)
from suffuse.diffusion.process import Process, starting_noise
from suffuse.diffusion.sample import sample
from suffuse.diffusion.schedules import (
    karras,
    leading,
    linspace,
    shifted,
    trailing,
    uniform,
    uniform_lambda,
)
from suffuse.diffusion.solvers import (
    DDIM,
    SOLVERS,
    DPMSolverPP2M,
    Euler,
    Heun,
    Plan,
    Solver,
    Stage,
)

__all__ = [
    "DDIM",
    "EDM",
    "PREDICTIONS",
    "SOLVERS",
    "VE",
    "VP",
    "ClassifierFree",
    "DPMSolverPP2M",
    "DiscreteVP",
    "Euler",
    "Flow",
    "Guidance",
    "Heun",
    "Plan",
    "Prediction",
    "Process",
    "Solver",
    "Stage",
    "Unguided",
    "cosine_betas",
    "denoising_loss",
    "edm_preconditioned",
    "flow_matching_loss",
    "karras",
    "leading",
    "linear_betas",
    "linspace",
    "logit_normal_times",
    "min_snr_weight",
    "predicted_data",
    "predicted_noise",
    "prediction_target",
    "sample",
    "scaled_linear_betas",
    "shifted",
    "starting_noise",
    "trailing",
    "uniform",
    "uniform_lambda",
    "zero_terminal_snr",
]
