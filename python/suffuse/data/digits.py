"""The handwritten digits that scikit-learn ships: 1,797 pictures of 8 x 8 pixels in 10 classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CLASSES = 10


class Pictures(NamedTuple):
    """images: [N, C, H, W] fp32 in [-1, 1]. labels: [N] int64."""

    images: Tensor
    labels: Tensor


def load_digits(*, seed: int = 0, test_size: int = 360) -> tuple[Pictures, Pictures]:
    """The digits as (train, test), split at random by `seed`.

    Images are [N, 1, 8, 8], -1 is paper and 1 is ink; 1,437 are for training by default.
    Raises ImportError without scikit-learn and ValueError for a bad `test_size`.
    """
    try:
        from sklearn.datasets import load_digits as read
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn: pip install 'suffuse[demo]'"
        ) from error
    pixels, labels = read(return_X_y=True)
    if not 1 <= test_size < len(labels):
        raise ValueError(f"load_digits: test_size is {test_size}, expected 1 to {len(labels) - 1}")
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 8.0 - 1.0
    targets = torch.from_numpy(labels).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    test, train = order[:test_size], order[test_size:]
    return Pictures(images[train], targets[train]), Pictures(images[test], targets[test])
