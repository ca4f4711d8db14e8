"""Guidance: which model outputs one sampler stage combines, and with which weights.

Classifier-free guidance and its relatives (rescale, APG, CFG-Zero*, TCFG, CFG++), autoguidance,
several prompts, perpendicular negative prompts and classifiers. Everything that lies in the span of
the outputs is weights per sample, from one reduction, and costs no further pass over memory.
"""

from suffuse.diffusion.guidance.base import Denoiser, Guidance, Guided, Unguided
from suffuse.diffusion.guidance.classifier import ClassifierGuided
from suffuse.diffusion.guidance.combine import (
    Combine,
    MagnitudeAware,
    Projected,
    Tangential,
    ZeroStar,
)
from suffuse.diffusion.guidance.composed import (
    Composed,
    PerpendicularNegative,
    nested_weights,
    parallel_weights,
)
from suffuse.diffusion.guidance.contrast import AutoGuidance, ClassifierFree

__all__ = [
    "AutoGuidance",
    "ClassifierFree",
    "ClassifierGuided",
    "Combine",
    "Composed",
    "Denoiser",
    "Guidance",
    "Guided",
    "MagnitudeAware",
    "PerpendicularNegative",
    "Projected",
    "Tangential",
    "Unguided",
    "ZeroStar",
    "nested_weights",
    "parallel_weights",
]
