"""What a denoiser predicts, and how to go from one prediction to another.

Whatever a network F predicts, the data estimate D = E[x0 | x_t] and the noise estimate
eps = (x_t - alpha D) / sigma are linear in x_t and F, with coefficients that depend on alpha and
sigma only:

    name       F                     source
    eps        eps                   Ho et al. 2020
    sample     x0                    Ho et al. 2020, section 3.2 ("sample" as in diffusers)
    v          alpha eps - sigma x0  Salimans & Ho 2022, section 4
    flow       eps - x0              Lipman et al. 2023; Liu et al. 2023
    score      -eps / sigma          Song et al. 2021: gradient of log p(x_t)

"v" and "flow" hold for every process (for flow, x0 = (x - sigma F) / (alpha + sigma)). They are
finite everywhere, also where alpha is 0 (zero terminal SNR), as is the data estimate of "sample";
"eps" and "score" have no data estimate there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from suffuse.diffusion.process import Process, per_sample

Pair = tuple[Tensor, Tensor]
Coefficients = Callable[[Tensor, Tensor], Pair]


@dataclass(frozen=True)
class Prediction:
    """A kind of model output as data: functions of (alpha, sigma), elementwise on tensors.

    Attributes:
        name: for messages.
        data: weights of (x_t, F) in the data estimate.
        noise: weights of (x_t, F) in the noise estimate.
        target: weights of (x0, eps) in F, the training target.
        input_scale: factor on x_t before it enters the network; None is 1.
        model_time: what the network gets as its time; None is the process's own time.
    """

    name: str
    data: Coefficients
    noise: Coefficients
    target: Coefficients
    input_scale: Callable[[Tensor, Tensor], Tensor] | None = None
    model_time: Callable[[Tensor, Tensor], Tensor] | None = None


def _zero(a: Tensor) -> Tensor:
    return torch.zeros_like(a)


def _one(a: Tensor) -> Tensor:
    return torch.ones_like(a)


EPS = Prediction(
    "eps",
    data=lambda a, s: (1 / a, -s / a),
    noise=lambda a, s: (_zero(a), _one(a)),
    target=lambda a, s: (_zero(a), _one(a)),
)
SAMPLE = Prediction(
    "sample",
    data=lambda a, s: (_zero(a), _one(a)),
    noise=lambda a, s: (1 / s, -a / s),
    target=lambda a, s: (_one(a), _zero(a)),
)
V = Prediction(
    "v",
    data=lambda a, s: (a / (a * a + s * s), -s / (a * a + s * s)),
    noise=lambda a, s: (s / (a * a + s * s), a / (a * a + s * s)),
    target=lambda a, s: (-s, a),
)
FLOW = Prediction(
    "flow",
    data=lambda a, s: (1 / (a + s), -s / (a + s)),
    noise=lambda a, s: (1 / (a + s), a / (a + s)),
    target=lambda a, s: (-_one(a), _one(a)),
)
SCORE = Prediction(
    "score",
    data=lambda a, s: (1 / a, s * s / a),
    noise=lambda a, s: (_zero(a), -s),
    target=lambda a, s: (_zero(a), -1 / s),
)
PREDICTIONS = {p.name: p for p in (EPS, SAMPLE, V, FLOW, SCORE)}


def edm_preconditioned(sigma_data: float = 0.5) -> Prediction:
    """The raw network inside Karras et al. 2022, eq. 7: D = c_skip x + c_out F(c_in x, c_noise).

    Their coefficients (table 1) are for x / alpha and sigma / alpha; with q^2 = sigma^2 + (alpha
    sigma_data)^2 they read for any process, and stay finite at alpha = 0 and sigma = 0:
    D = (alpha sigma_data^2 x + sigma sigma_data q F) / q^2, network input x / q, and network time
    ln(sigma / alpha) / 4. Input and target of the network have unit variance for data of standard
    deviation `sigma_data`; an unweighted loss on F is the paper's weighting 1 / c_out^2.
    """
    if not sigma_data > 0:
        raise ValueError(f"edm_preconditioned: sigma_data is {sigma_data}, expected more than 0")
    d = sigma_data

    def q(a: Tensor, s: Tensor) -> Tensor:
        return torch.sqrt(s * s + (a * d) ** 2)

    return Prediction(
        "edm",
        data=lambda a, s: (a * d * d / q(a, s) ** 2, s * d / q(a, s)),
        noise=lambda a, s: (s / q(a, s) ** 2, -a * d / q(a, s)),
        target=lambda a, s: (s / (d * q(a, s)), -a * d / q(a, s)),
        input_scale=lambda a, s: 1 / q(a, s),
        model_time=lambda a, s: 0.25 * torch.log(s / a),
    )


def as_prediction(prediction: Prediction | str) -> Prediction:
    """The prediction of that name (one of `PREDICTIONS`), or the given one.

    Raises:
        ValueError: unknown name.
    """
    if isinstance(prediction, Prediction):
        return prediction
    if prediction not in PREDICTIONS:
        names = ", ".join(PREDICTIONS)
        raise ValueError(f"prediction is {prediction!r}, expected one of {names} or a Prediction")
    return PREDICTIONS[prediction]


def _combine(weights: Coefficients, process: Process, t: Tensor, u: Tensor, w: Tensor) -> Tensor:
    first, second = weights(process.alpha(t), process.sigma(t))
    dtype = torch.promote_types(u.dtype, torch.float32)
    first, second = per_sample(first.to(dtype), u), per_sample(second.to(dtype), u)
    return first * u + second * w


def predicted_data(
    prediction: Prediction | str, process: Process, x: Tensor, output: Tensor, t: Tensor
) -> Tensor:
    """The data estimate D [B, ...] of a model output at x_t [B, ...], t [B] or []."""
    return _combine(as_prediction(prediction).data, process, t, x, output)


def predicted_noise(
    prediction: Prediction | str, process: Process, x: Tensor, output: Tensor, t: Tensor
) -> Tensor:
    """The noise estimate (x_t - alpha D) / sigma [B, ...] of a model output, t [B] or []."""
    return _combine(as_prediction(prediction).noise, process, t, x, output)


def prediction_target(
    prediction: Prediction | str, process: Process, x0: Tensor, noise: Tensor, t: Tensor
) -> Tensor:
    """What the model should return for x0 and noise [B, ...] at t [B] or []."""
    return _combine(as_prediction(prediction).target, process, t, x0, noise)


def converted_prediction(
    source: Prediction | str,
    target: Prediction | str,
    process: Process,
    x: Tensor,
    output: Tensor,
    t: Tensor,
) -> Tensor:
    """What a model of kind `target` would have returned at x_t [B, ...], t [B] or [].

    output: of a model of kind `source`, like x. The result has infinite or NaN entries where one
    of the two kinds is undefined (such as "eps" where alpha is 0).
    """
    start, end = as_prediction(source), as_prediction(target)

    def weights(alpha: Tensor, sigma: Tensor) -> Pair:
        on_data, on_noise = end.target(alpha, sigma)
        data, noise = start.data(alpha, sigma), start.noise(alpha, sigma)
        return (
            on_data * data[0] + on_noise * noise[0],
            on_data * data[1] + on_noise * noise[1],
        )

    return _combine(weights, process, t, x, output)
