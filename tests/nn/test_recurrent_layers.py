"""LRU, S5, S4D and RG-LRU."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from recurrent import assert_compiles, assert_gradients, assert_restarts, assert_steps_agree
from torch import nn

from suffuse.nn import LRU, RGLRU, S4D, S5

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "lru": lambda: LRU(6, d_state=5),
    "s5": lambda: S5(6, d_state=8, blocks=2),
    "s5_bilinear": lambda: S5(6, d_state=4, discretization="bilinear"),
    "s4d_lin": lambda: S4D(6, d_state=8),
    "s4d_inv": lambda: S4D(6, d_state=8, initialisation="inv", mix=False),
    "s4d_legs": lambda: S4D(6, d_state=8, initialisation="legs"),
    "s4d_real": lambda: S4D(6, d_state=8, initialisation="real"),
    "rglru": lambda: RGLRU(6, num_heads=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_steps(name: str) -> None:
    layer = LAYERS[name]().double()
    assert_steps_agree(layer, torch.randn(2, 9, 6).double())
    assert layer(torch.randn(2, 0, 6).double()).shape == (2, 0, 6)


@pytest.mark.parametrize("name", LAYERS)
def test_precision_and_half_inputs(name: str) -> None:
    layer, x = LAYERS[name](), torch.randn(2, 200, 6)
    with torch.no_grad():
        out = layer(x)
        exact = layer.double()(x.double())
        assert float((out - exact).norm() / exact.norm()) <= 2e-5
        half = layer.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16 and half.isfinite().all()


@pytest.mark.parametrize("name", ["lru", "s5", "s5_bilinear", "s4d_lin", "rglru"])
def test_gradients(name: str) -> None:
    small: dict[str, Callable[[], nn.Module]] = {
        "lru": lambda: LRU(2, d_state=2, r_min=0.5, max_phase=1.0),
        "s5": lambda: S5(2, d_state=4),
        "s5_bilinear": lambda: S5(2, d_state=4, discretization="bilinear"),
        "s4d_lin": lambda: S4D(2, d_state=4),
        "rglru": lambda: RGLRU(2, num_heads=1, min_decay=0.3, max_decay=0.6),
    }
    assert_gradients(small[name](), torch.randn(1, 4, 2))


@pytest.mark.parametrize("name", ["lru", "s5", "s4d_lin", "rglru"])
def test_compiles(name: str) -> None:
    assert_compiles(LAYERS[name](), torch.randn(2, 9, 6))


def test_lru_is_its_formula() -> None:
    layer, u = LRU(3, d_state=4), torch.randn(1, 6, 3)
    lam = torch.exp(torch.complex(-layer.nu_log.exp(), layer.theta_log.exp()))
    B = torch.complex(layer.B_re, layer.B_im) * layer.gamma_log.exp()[:, None]
    C = torch.complex(layer.C_re, layer.C_im)
    x, rows = torch.zeros(4, dtype=torch.complex64), []
    for t in range(6):
        x = lam * x + B @ u[0, t].to(B.dtype)
        rows.append((C @ x).real + layer.D * u[0, t])
    torch.testing.assert_close(layer(u)[0], torch.stack(rows))


def test_lru_start_values() -> None:
    layer = LRU(8, d_state=2000, r_min=0.4, r_max=0.8, max_phase=math.pi / 10)
    layer.requires_grad_(False)
    radius = torch.exp(-layer.nu_log.exp())
    assert 0.4 - 1e-5 <= float(radius.min()) <= 0.42 and 0.79 <= float(radius.max()) <= 0.8 + 1e-5
    mean = (0.4**2 + 0.8**2) / 2  # uniform in area (lemma 3.2)
    assert abs(float(radius.square().mean()) - mean) <= 0.02
    assert 0.3 <= float(layer.theta_log.exp().max()) <= math.pi / 10
    torch.testing.assert_close(layer.gamma_log.exp(), (1 - radius**2).sqrt(), rtol=1e-4, atol=0)
    assert abs(float(layer.B_re.std()) * 4 - 1) <= 0.03
    with pytest.raises(ValueError, match=r"expected 0 <= r_min < r_max < 1, got 0\.9, 0\.5"):
        LRU(8, r_min=0.9, r_max=0.5)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_s5_is_its_formula(discretization: str) -> None:
    """In the real basis, where all states are there: the matrix exponential, or Tustin's rule."""
    layer, u = (
        S5(3, d_state=4, discretization=discretization).double(),
        torch.randn(1, 6, 3).double(),
    )
    layer.requires_grad_(False)
    half = torch.complex(layer.Lambda_re, layer.Lambda_im)
    rates = torch.cat([half, half.conj()])
    steps = layer.log_step[:, 0].exp().repeat(2)
    B, C = torch.view_as_complex(layer.B), torch.view_as_complex(layer.C)
    B, C = torch.cat([B, B.conj()]), torch.cat([C, C.conj()], 1)
    if discretization == "zoh":
        decay, gain = torch.exp(rates * steps), (torch.exp(rates * steps) - 1) / rates
    else:
        decay = (1 + rates * steps / 2) / (1 - rates * steps / 2)
        gain = steps / (1 - rates * steps / 2)
    x, rows = torch.zeros_like(rates), []
    for t in range(6):
        x = decay * x + gain * (B @ u[0, t].to(B.dtype))
        y = C @ x
        assert float(y.imag.abs().max()) <= 1e-12
        rows.append(y.real + layer.D * u[0, t])
    torch.testing.assert_close(layer(u)[0], torch.stack(rows))


def test_s5_start_values() -> None:
    layer = S5(4, d_state=16, blocks=2, dt_min=0.01, dt_max=0.02)
    torch.testing.assert_close(layer.Lambda_re, torch.full((8,), -0.5))
    assert torch.equal(layer.Lambda_im[:4], layer.Lambda_im[4:])
    assert set(layer.state_dict()) == {"Lambda_re", "Lambda_im", "B", "C", "D", "log_step"}
    assert layer.B.shape == (8, 4, 2) and layer.C.shape == (4, 8, 2)
    steps = layer.log_step.detach().exp()
    assert steps.shape == (8, 1) and float(steps.min()) >= 0.0099 and float(steps.max()) <= 0.0201
    with pytest.raises(ValueError, match="discretization: expected 'zoh' or 'bilinear'"):
        S5(4, discretization="euler")
    with pytest.raises(ValueError, match="blocks: expected half a divisor of 6 states, got 2"):
        S5(4, d_state=6, blocks=2)


def test_s4d_is_its_formula() -> None:
    layer, u = S4D(3, d_state=8, mix=False).double(), torch.randn(2, 7, 3).double()
    A = torch.complex(-layer.kernel.log_A_real.exp(), layer.kernel.A_imag)
    dt, C = layer.kernel.log_dt.exp()[:, None], torch.view_as_complex(layer.kernel.C)
    decay, gain = torch.exp(dt * A), (torch.exp(dt * A) - 1) / A
    x, rows = torch.zeros(2, 3, 4, dtype=torch.complex128), []
    for t in range(7):
        x = decay * x + gain * u[:, t, :, None]
        rows.append(2 * (C * x).sum(-1).real + layer.D * u[:, t])
    torch.testing.assert_close(layer(u), torch.stack(rows, 1))
    mixing = S4D(3, d_state=8).double()
    mixing.load_state_dict(layer.state_dict(), strict=False)
    assert mixing.output_linear is not None
    expected = F.glu(mixing.output_linear[0](F.gelu(layer(u).mT)), 1).mT
    torch.testing.assert_close(mixing(u), expected)


def test_s4d_start_values() -> None:
    """Equations 9 and 8 of the paper: S4D-Lin and S4D-Inv."""
    n = torch.arange(4)
    lin, inv = S4D(3, d_state=8).kernel, S4D(3, d_state=8, initialisation="inv").kernel
    torch.testing.assert_close(lin.A_imag, (math.pi * n).expand(3, 4))
    torch.testing.assert_close(inv.A_imag, (8 / math.pi * (8 / (2 * n + 1) - 1)).expand(3, 4))
    for kernel in (lin, inv):
        torch.testing.assert_close(kernel.log_A_real.exp(), torch.full((3, 4), 0.5))
    assert set(S4D(3).state_dict()) == {
        "D", "kernel.C", "kernel.log_dt", "kernel.log_A_real", "kernel.A_imag",
        "output_linear.0.weight", "output_linear.0.bias",
    }  # fmt: skip
    with pytest.raises(ValueError, match="expected even, got 7"):
        S4D(3, d_state=7)


def test_rglru_is_that_of_recurrent_gemma() -> None:
    recurrent_gemma = pytest.importorskip("transformers.models.recurrent_gemma")
    config = recurrent_gemma.RecurrentGemmaConfig(
        hidden_size=8, lru_width=8, num_attention_heads=2, num_hidden_layers=1
    )
    peer = recurrent_gemma.modeling_recurrent_gemma.RecurrentGemmaRglru(config)
    layer, x = RGLRU(8, num_heads=2), torch.randn(2, 9, 8)
    with torch.no_grad():
        for bias in (layer.input_gate_bias, layer.recurrent_gate_bias):
            bias.normal_()
        peer.load_state_dict(layer.state_dict())
        expected = peer(x, torch.arange(9).expand(2, 9))
        torch.testing.assert_close(layer(x), expected)
        places = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2]]).expand(2, 9)
        peer.recurrent_states = None
        seq_idx = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2]], dtype=torch.int32).repeat(2, 1)
        torch.testing.assert_close(layer(x, seq_idx=seq_idx), peer(x, places))
    assert_restarts(layer, x, [4, 6])


def test_rglru_start_values() -> None:
    layer = RGLRU(4000, num_heads=1000)
    decay = torch.exp(-8 * F.softplus(layer.recurrent_param.detach()))
    assert 0.9 - 1e-4 <= float(decay.min()) <= 0.902 and 0.998 <= float(decay.max()) <= 0.9991
    assert abs(float(decay.mean()) - 0.9495) <= 0.003
    with pytest.raises(ValueError, match="num_heads: expected a divisor of 8, got 3"):
        RGLRU(8, num_heads=3)


def test_rglru_gradient_where_the_gate_is_shut() -> None:
    layer = RGLRU(4)
    with torch.no_grad():
        layer.recurrent_gate_bias.fill_(-200.0)  # a = 1, sqrt(1 - a^2) = 0
    x = torch.randn(1, 5, 4, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
