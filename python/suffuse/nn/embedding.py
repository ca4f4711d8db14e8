"""Embeddings of times, classes and picture patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse.nn.linear import normal_linear


def time_features(t: Tensor, channels: int, *, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal features of times [B] -> [B, channels], fp32: cosines, then sines.

    Frequencies fall geometrically from 1 to 1/max_period, both ends included. `channels` is even
    and at least 4.
    """
    half = channels // 2
    step = -math.log(max_period) / (half - 1)
    frequency = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * step)
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def position_table(width: int, rows: int, columns: int, base: int) -> Tensor:
    """Two-dimensional sin-cos table [rows * columns, width], fp32. `width` is a multiple of 4.

    Coordinates run over 0..base whatever the grid, so that a larger picture is a finer one. The
    first half of the channels encodes the column, the second the row; each is [sin, cos] of width/4
    frequencies.
    """
    frequency = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row = torch.arange(rows, dtype=torch.float64) * (base / rows)
    column = torch.arange(columns, dtype=torch.float64) * (base / columns)
    row_angle = (row[:, None] * frequency)[:, None].expand(rows, columns, -1)
    column_angle = (column[:, None] * frequency)[None].expand(rows, columns, -1)
    parts = [column_angle.sin(), column_angle.cos(), row_angle.sin(), row_angle.cos()]
    return torch.cat(parts, dim=-1).reshape(rows * columns, width).float()


class PatchEmbedding(nn.Module):
    """Pictures [B, channels, H, W] to tokens [B, H/patch * W/patch, width], position added.

    base: rows and columns of the grid that the position table is for; other grids get a stretched
    table.
    """

    pos_embed: Tensor

    def __init__(self, channels: int, width: int, *, patch: int, base: int) -> None:
        super().__init__()
        self.patch, self.base = patch, base
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]
        self.register_buffer("pos_embed", position_table(width, base, base, base), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows, columns, p = height // self.patch, width // self.patch, self.patch
        # A matrix product over unfolded patches: the sums of the strided convolution in less time.
        patches = x.reshape(batch, channels, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(batch, rows * columns, channels * p * p)
        tokens = F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)
        position = self.pos_embed
        if (rows, columns) != (self.base, self.base):
            position = position_table(position.shape[1], rows, columns, self.base).to(position)
        return tokens + position


class TimestepEmbedding(nn.Module):
    """Two-layer perceptron over the features of the time: [B, channels] -> [B, width]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear_1 = normal_linear(channels, width)
        self.linear_2 = normal_linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(features)))


class LabelEmbedding(nn.Module):
    """Table of class vectors, [B] int64 -> [B, width]; row `classes` is the null class."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)
