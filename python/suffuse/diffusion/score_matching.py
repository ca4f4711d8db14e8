"""Score matching: four losses with one minimiser, the score s(x) = grad log p(x).

A score model is any callable `score(x)` that returns a tensor like x [B, ...]. All losses are
scalars: the mean over the batch of a sum over dimensions, in the dtype of the score. They differ by
a constant that does not depend on the model (the explicit and implicit ones: Hyvärinen 2005; the
denoising one: Vincent 2011, for the density of the noised data).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from suffuse.diffusion.process import per_sample

Score = Callable[[Tensor], Tensor]


def _half_square(v: Tensor) -> Tensor:
    """|v|^2 / 2 per sample [B]."""
    return 0.5 * (v**2).flatten(1).sum(1)


def _evaluated(name: str, score: Score, x: Tensor) -> Tensor:
    value = score(x)
    if value.shape != x.shape:
        got, expected = tuple(value.shape), tuple(x.shape)
        raise ValueError(f"{name}: the score has shape {got}, expected {expected} like x")
    return value


def explicit_score_matching_loss(score: Score, x: Tensor, target: Tensor) -> Tensor:
    """E |score(x) - target|^2 / 2 for samples x [B, ...] whose true score `target` is known.

    Hyvärinen 2005, eq. 2.
    """
    value = _evaluated("explicit_score_matching_loss", score, x)
    if target.shape != x.shape:
        got, expected = tuple(target.shape), tuple(x.shape)
        raise ValueError(
            f"explicit_score_matching_loss: target has shape {got}, expected {expected} like x"
        )
    return _half_square(value - target).mean()


def implicit_score_matching_loss(score: Score, x: Tensor) -> Tensor:
    """E [trace of the Jacobian of score(x) + |score(x)|^2 / 2]: no true score is needed.

    Hyvärinen 2005, eq. 4. Exact: one backward pass for each dimension, so for small ones only.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = _evaluated("implicit_score_matching_loss", score, x)
        flat, trace = value.flatten(1), torch.zeros_like(value.flatten(1)[:, 0])
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), x, create_graph=True)
            trace = trace + row.flatten(1)[:, i]
        return (trace + _half_square(value)).mean()


def sliced_score_matching_loss(
    score: Score,
    x: Tensor,
    *,
    directions: int = 1,
    exact_norm: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The implicit loss with the trace estimated along random directions v, v ~ N(0, I).

    E [v^T grad(v^T score(x)) + |score(x)|^2 / 2] (Song et al. 2019, "Sliced Score Matching", the
    form of reduced variance); exact_norm=False takes (v^T score(x))^2 / 2 instead.

    Args:
        x: data [B, ...].
        directions: of v for each sample, one backward pass each.
        generator: draws v on its device, [directions, B, ...] at once.
    """
    if directions < 1:
        raise ValueError(
            f"sliced_score_matching_loss: directions is {directions}, expected at least 1"
        )
    source = x.device if generator is None else generator.device
    shape = (directions, *x.shape)
    vs = torch.randn(shape, generator=generator, device=source, dtype=x.dtype).to(x.device)
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = _evaluated("sliced_score_matching_loss", score, x)
        terms = []
        for v in vs:
            along = (v * value).flatten(1).sum(1)
            (slope,) = torch.autograd.grad(along.sum(), x, create_graph=True)
            norm = _half_square(value) if exact_norm else 0.5 * along**2
            terms.append((v * slope).flatten(1).sum(1) + norm)
        return torch.stack(terms).mean()


def denoising_score_matching_loss(
    score: Score,
    x: Tensor,
    sigma: float | Tensor,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    weighted: bool = False,
) -> Tensor:
    """E |score(x + sigma z) + z / sigma|^2 / 2: the score of the data with noise of level sigma.

    Vincent 2011. For one network over many levels use `denoising_loss` with "score".

    Args:
        x: data [B, ...].
        sigma: a number or [B], > 0.
        noise: z like x; default: standard normal, drawn on the generator's device.
        weighted: times sigma^2, so that all levels count alike (Song & Ermon 2019, eq. 6).
    """
    level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if level.dim() > 1 or (level.dim() == 1 and len(level) != len(x)):
        got = tuple(level.shape)
        raise ValueError(
            f"denoising_score_matching_loss: sigma has shape {got}, expected () or ({len(x)},)"
        )
    if not isinstance(sigma, Tensor) and not sigma > 0:
        raise ValueError(f"denoising_score_matching_loss: sigma is {sigma}, expected more than 0")
    if noise is None:
        source = x.device if generator is None else generator.device
        noise = torch.randn(x.shape, generator=generator, device=source, dtype=x.dtype)
        noise = noise.to(x.device)
    wide = per_sample(level, x)
    value = _evaluated("denoising_score_matching_loss", score, x + wide * noise)
    error = _half_square(value + noise / wide)
    return (error * level**2 if weighted else error).mean()
