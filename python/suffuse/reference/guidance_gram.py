"""Products of all pairs of model outputs, per sample, and their means: what guidance methods need.

G_ij = sum_k a_ik a_jk of the flattened samples a_i; centred, G_ij = sum_k (a_ik - m_i)(a_jk - m_j)
= sum_k a_ik a_jk - N m_i m_j with the means m. In float64, where the difference of two nearly equal
outputs, |a - b|^2 = G_aa - 2 G_ab + G_bb, keeps its digits; in float32 on devices without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def guidance_gram(tensors: Sequence[Tensor], *, center: bool = False) -> tuple[Tensor, Tensor]:
    """The slow, obvious form of `suffuse.ops.guidance_gram`, with the same arguments and results."""
    shape = tensors[0].shape
    size = math.prod(shape[1:])
    rows = torch.stack([t.to(accumulator(t)).reshape(shape[0], size) for t in tensors], dim=1)
    means = rows.sum(2) / size if size else rows.new_full(rows.shape[:2], math.nan)
    gram = torch.einsum("bik,bjk->bij", rows, rows)
    if center and size:
        gram = gram - size * means[:, :, None] * means[:, None, :]
    return gram, means


def accumulator(t: Tensor) -> torch.dtype:
    """The dtype of the sums on a tensor's device."""
    return torch.float32 if t.device.type == "mps" else torch.float64
