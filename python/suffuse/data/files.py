"""Pictures from a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from suffuse.data.digits import Pictures


def load_pictures(path: str | Path) -> Pictures:
    """Read a safetensors file with `images` and `labels`.

    images: [N, C, H, W], uint8 in 0..255, or floating-point in [-1, 1]. labels: [N] int64 from 0.
    Raises FileNotFoundError, or ValueError where the file does not hold that.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    missing = [name for name in ("images", "labels") if name not in tensors]
    if missing:
        raise ValueError(f"{path} has no tensor {' and no '.join(missing)}")
    images, labels = tensors["images"], tensors["labels"]
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"{path}: images has shape {tuple(images.shape)}, expected (N, C, H, W)")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or labels.min() < 0:
        raise ValueError(f"{path}: labels must be int64 of shape ({len(images)},), none negative")
    images = images.float() / 127.5 - 1.0 if images.dtype == torch.uint8 else images.float()
    if not images.abs().max() <= 1.0:
        raise ValueError(f"{path}: images are outside [-1, 1]")
    return Pictures(images, labels)
