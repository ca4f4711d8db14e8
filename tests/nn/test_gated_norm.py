"""Norms with a gate against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from suffuse.nn.gated_norm import GatedRMSNorm, gated_norm


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_against_torch(centred: bool, before: bool) -> None:
    x, z, weight, bias = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.randn(8), torch.randn(8)
    inputs = x if before else x * F.silu(z)
    if centred:
        expected = F.layer_norm(inputs, (8,), weight, bias, 1e-3)
    else:
        expected = F.rms_norm(inputs, (8,), weight, 1e-3) + bias
    if before:
        expected = expected * F.silu(z)
    out = gated_norm(x, weight, bias, z, eps=1e-3, norm_before_gate=before, centred=centred)
    torch.testing.assert_close(out, expected)


def test_groups_and_dtypes() -> None:
    x, weight = torch.randn(3, 8), torch.randn(8)
    out = gated_norm(x, weight, group_size=4)
    for part in (slice(4), slice(4, 8)):
        torch.testing.assert_close(out[:, part], F.rms_norm(x[:, part], (4,), weight[part], 1e-6))
    half = gated_norm(x.bfloat16(), weight)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, gated_norm(x.bfloat16().float(), weight).bfloat16())
    with pytest.raises(ValueError, match="group_size: expected a divisor of 8, got 3"):
        gated_norm(x, weight, group_size=3)


def test_module() -> None:
    norm = GatedRMSNorm(8, eps=0.1, group_size=2, norm_before_gate=False)
    assert list(norm.state_dict()) == ["weight"]
    x, z = torch.randn(3, 8), torch.randn(3, 8)
    expected = gated_norm(x, torch.ones(8), gate=z, eps=0.1, group_size=2, norm_before_gate=False)
    assert torch.equal(norm(x, z), expected)
