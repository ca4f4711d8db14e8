"""The layers of Mamba and Mamba-2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from recurrent import assert_compiles, assert_gradients, assert_restarts, assert_steps_agree
from torch import Tensor, nn

from suffuse.nn import Mamba, Mamba2

MAMBA2_FORMS = [
    {},
    {"ngroups": 2, "D_has_hdim": True, "norm_before_gate": True, "bias": True, "conv_bias": False},
    {"rmsnorm": False, "d_ssm": 8, "dt_limit": (0.05, 0.2), "conv_init": 0.1},
]


def mamba(**options: object) -> Mamba:
    return Mamba(8, d_state=4, **options)  # type: ignore[arg-type]


def mamba2(**options: object) -> Mamba2:
    return Mamba2(8, d_state=4, headdim=4, chunk_size=4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"d_conv": 1, "conv_bias": False, "bias": True}])
def test_mamba_steps(options: dict[str, object]) -> None:
    assert_steps_agree(mamba(**options), torch.randn(2, 9, 8))


@pytest.mark.parametrize("options", MAMBA2_FORMS)
def test_mamba2_steps(options: dict[str, object]) -> None:
    assert_steps_agree(mamba2(**options), torch.randn(2, 9, 8))


def test_packed_sequences() -> None:
    for layer in (mamba(), mamba2(), mamba2(d_conv=2)):
        assert_restarts(layer, torch.randn(2, 11, 8), [4, 6])


def test_gradients() -> None:
    assert_gradients(Mamba(2, d_state=2, d_conv=2), torch.randn(1, 3, 2))
    layer = Mamba2(2, d_state=2, d_conv=2, headdim=2, chunk_size=2)
    assert_gradients(layer, torch.randn(1, 3, 2))


@pytest.mark.parametrize("kind", [mamba, mamba2])
def test_compiles(kind: Callable[..., nn.Module]) -> None:
    assert_compiles(kind(), torch.randn(2, 9, 8))


def test_mamba_is_its_formula() -> None:
    """Written out with torch's convolution and a loop (algorithm 2 in the block of figure 3)."""
    layer, x = mamba(), torch.randn(2, 7, 8)
    u, z = layer.in_proj(x).chunk(2, -1)
    u = F.silu(layer.conv1d(u.mT)[..., :7].mT)
    delta, B, C = layer.x_proj(u).split([layer.dt_rank, 4, 4], -1)
    delta = F.softplus(layer.dt_proj(delta))
    h, rows = torch.zeros(2, 16, 4), []
    for t in range(7):
        h = torch.exp(-delta[:, t, :, None] * layer.A_log.exp()) * h
        h = h + (delta * u)[:, t, :, None] * B[:, t, None]
        rows.append((h * C[:, t, None]).sum(-1) + layer.D * u[:, t])
    expected = layer.out_proj(torch.stack(rows, 1) * F.silu(z))
    torch.testing.assert_close(layer(x), expected)


def test_mamba2_is_its_formula() -> None:
    layer, x = mamba2(ngroups=2, d_ssm=8), torch.randn(2, 7, 8)
    gate, value, z, mixed, dt = layer.in_proj(x).split([8, 8, 8, 24, 2], -1)
    mixed = F.silu(layer.conv1d(mixed.mT)[..., :7].mT)
    u, B, C = mixed.split([8, 8, 8], -1)
    u, B, C = u.unflatten(-1, (2, 4)), B.unflatten(-1, (2, 4)), C.unflatten(-1, (2, 4))
    dt = F.softplus(dt + layer.dt_bias)
    h, rows = torch.zeros(2, 2, 4, 4), []
    for t in range(7):
        h = torch.exp(-dt[:, t] * layer.A_log.exp())[:, :, None, None] * h
        h = h + (dt[:, t, :, None] * u[:, t])[..., None] * B[:, t, :, None]
        rows.append((h * C[:, t, :, None]).sum(-1) + layer.D[:, None] * u[:, t])
    y = (torch.stack(rows, 1).flatten(2) * F.silu(z)).unflatten(-1, (2, 4))
    y = F.rms_norm(y, (4,), eps=1e-5).flatten(2) * layer.norm.weight
    expected = layer.out_proj(torch.cat([F.silu(gate) * value, y], -1))
    torch.testing.assert_close(layer(x), expected)


def test_names_of_parameters() -> None:
    common = ["in_proj.weight", "conv1d.weight", "conv1d.bias", "out_proj.weight", "A_log", "D"]
    names = {"x_proj.weight", "dt_proj.weight", "dt_proj.bias", *common}
    assert set(mamba().state_dict()) == names
    assert set(mamba2().state_dict()) == {"dt_bias", "norm.weight", *common}
    shapes = {name: tuple(p.shape) for name, p in Mamba(64).named_parameters()}
    assert shapes["in_proj.weight"] == (256, 64) and shapes["conv1d.weight"] == (128, 1, 4)
    assert shapes["x_proj.weight"] == (36, 128) and shapes["dt_proj.weight"] == (128, 4)
    shapes = {name: tuple(p.shape) for name, p in Mamba2(64, d_state=16).named_parameters()}
    assert shapes["in_proj.weight"] == (2 * 128 + 2 * 16 + 2, 64)
    assert shapes["conv1d.weight"] == (160, 1, 4) and shapes["D"] == shapes["dt_bias"] == (2,)


def test_start_values() -> None:
    def inside(steps: Tensor, smallest: float, largest: float) -> bool:
        return bool(
            (steps >= smallest * (1 - 1e-4)).all() and (steps <= largest * (1 + 1e-4)).all()
        )

    layer = Mamba(64, dt_min=0.01, dt_max=0.05)
    assert inside(F.softplus(layer.dt_proj.bias), 0.01, 0.05)
    torch.testing.assert_close(layer.A_log.exp(), torch.arange(1.0, 17).expand(128, 16))
    assert float(layer.dt_proj.weight.detach().abs().max()) <= 4**-0.5
    constant = Mamba(64, dt_init="constant", dt_scale=2.0, dt_rank=16)
    assert torch.equal(constant.dt_proj.weight, torch.full((128, 16), 0.5))
    layer = Mamba2(64, dt_min=0.01, dt_max=0.05, A_init_range=(2, 3))
    assert inside(F.softplus(layer.dt_bias), 0.01, 0.05) and inside(layer.A_log.exp(), 2, 3)
    assert inside(F.softplus(Mamba(64, dt_min=1e-9, dt_max=2e-9).dt_proj.bias), 1e-4, 1e-4)


@pytest.mark.parametrize("kind", [mamba, mamba2])
def test_half_precision(kind: Callable[..., Any]) -> None:
    layer, x = kind().bfloat16(), torch.randn(2, 9, 8).bfloat16()
    with torch.no_grad():
        out = layer(x)
        exact = layer.double()(x.double())
    assert out.dtype == torch.bfloat16
    assert float((out.double() - exact).norm() / exact.norm()) <= 3e-2
    cache = layer.allocate_cache(2, dtype=torch.bfloat16)
    assert cache.conv.dtype == torch.bfloat16 and cache.state.dtype == torch.float32


def test_refusals() -> None:
    with pytest.raises(ValueError, match="dt_init: expected 'random' or 'constant', got 'zero'"):
        mamba(dt_init="zero")
    with pytest.raises(ValueError, match="headdim: expected a divisor of 16"):
        Mamba2(8, headdim=5)
    with pytest.raises(ValueError, match="headdim: expected a divisor of 32 channels of the scan"):
        Mamba2(8, headdim=4, d_ssm=32)
    with pytest.raises(ValueError, match="ngroups: expected a divisor of 4 heads, got 3"):
        Mamba2(8, headdim=4, ngroups=3)
