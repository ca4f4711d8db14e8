"""The embeddings against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from suffuse.nn.embedding import LabelEmbedding, PatchEmbedding, position_table, time_features
from suffuse.nn.feed_forward import FeedForward
from suffuse.nn.linear import normal_linear, xavier_linear, zero_linear


def test_time_features():
    t = torch.tensor([0.0, 0.5, 999.0])
    out = time_features(t, 8)
    assert out.dtype == torch.float32
    for row, time in enumerate(t.tolist()):
        angles = [time * 10000 ** (-i / 3) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert out[row].tolist() == pytest.approx(expected, abs=1e-4)


def test_time_features_are_fp32_for_any_number_type():
    t = torch.tensor([3, 999])
    for dtype in (torch.int64, torch.float64, torch.bfloat16):
        assert time_features(t.to(dtype), 16).dtype == torch.float32
    assert torch.equal(time_features(t, 16), time_features(t.double(), 16))


def test_position_table():
    table = position_table(8, rows=2, columns=3, base=6).view(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = []
            for place in (column * 6 / 3, row * 6 / 2):
                expected += [math.sin(place), math.sin(place / 100)]
                expected += [math.cos(place), math.cos(place / 100)]
            assert table[row, column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [(6, 6), (4, 10)])
def test_patches_are_those_of_the_convolution(size):
    embedding = PatchEmbedding(3, 8, patch=2, base=3)
    torch.nn.init.normal_(embedding.proj.bias)
    x = torch.randn(2, *size, 3).permute(0, 3, 1, 2)  # channels-last memory
    tokens = F.conv2d(x, embedding.proj.weight, embedding.proj.bias, stride=2)
    table = position_table(8, size[0] // 2, size[1] // 2, 3)
    torch.testing.assert_close(embedding(x), tokens.flatten(2).transpose(1, 2) + table)


def test_label_embedding_has_a_row_for_no_label():
    embedding = LabelEmbedding(5, 4)
    assert torch.equal(embedding(torch.tensor([5])), embedding.embedding_table.weight[5:])


def test_start_values():
    limit = math.sqrt(6 / (300 + 200))
    weight = xavier_linear(300, 200).weight
    assert weight.abs().max() <= limit
    assert float(weight.detach().std()) == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert float(normal_linear(300, 200).weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    for layer in (xavier_linear(3, 4), normal_linear(3, 4), zero_linear(3, 4)):
        assert torch.equal(layer.bias, torch.zeros(4))
    assert zero_linear(3, 4).weight.abs().max() == 0
    assert xavier_linear(3, 4, bias=False).bias is None


@pytest.mark.parametrize(
    ("activation", "approximate"), [("gelu", "none"), ("gelu-approximate", "tanh")]
)
def test_feed_forward(activation, approximate):
    layer = FeedForward(4, activation=activation)
    x = torch.randn(2, 3, 4)
    inner = F.gelu(layer.net[0].proj(x), approximate=approximate)
    assert inner.shape == (2, 3, 16)
    torch.testing.assert_close(layer(x), layer.net[2](inner))
    dropping = FeedForward(4, activation=activation, dropout=0.5)
    assert not torch.equal(dropping(x), dropping(x))
    assert torch.equal(dropping.eval()(x), dropping(x))
