"""The drop-in of mamba_ssm's scan of Mamba-1: the original's arguments, against loops and compositions."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse import ops
from suffuse.compat.mamba_ssm import mamba_inner_fn, selective_scan_fn
from suffuse.compat.mamba_ssm.ops import selective_scan_interface as interface
from suffuse.compat.mamba_ssm.ops.selective_scan_interface import (
    mamba_inner_ref,
    selective_scan_ref,
)
from suffuse.compat.mamba_ssm.ops.triton.selective_state_update import (
    selective_state_update,
    selective_state_update_ref,
)


def names(function: Any) -> str:
    return ",".join(inspect.signature(function).parameters)


def test_signatures() -> None:
    scan = "u,delta,A,B,C,D,z,delta_bias,delta_softplus,return_last_state"
    assert names(selective_scan_fn) == names(selective_scan_ref) == scan
    inner = (
        "xz,conv1d_weight,conv1d_bias,x_proj_weight,delta_proj_weight,out_proj_weight,out_proj_bias,"
        "A,B,C,D,delta_bias,B_proj_bias,C_proj_bias,delta_softplus"
    )
    norms = "b_rms_weight,c_rms_weight,dt_rms_weight,b_c_dt_rms_eps"
    assert names(mamba_inner_ref) == inner
    assert names(mamba_inner_fn) == f"{inner},checkpoint_lvl,{norms}"
    update = "state,x,dt,A,B,C,D,z,dt_bias,dt_softplus"
    assert names(selective_state_update_ref) == update
    assert names(selective_state_update) == f"{update},state_batch_indices"


def scan_arguments(kind: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Batch 2, 4 channels, 5 steps, 3 states, B and C of one of the allowed forms."""

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype)

    complex_a = kind.startswith("complex")
    A = -torch.rand(4, 3, dtype=dtype) - 0.1
    if complex_a:
        A = torch.complex(A, torch.randn_like(A))
    length = 10 if complex_a else 5
    if kind.endswith("constant"):
        B, C = (torch.randn(4, 3, dtype=A.dtype) for _ in range(2))
    elif kind.endswith("groups"):
        B, C = rows(2, 2, 3, length), rows(2, 2, 3, length)
    else:
        B, C = rows(2, 3, length), rows(2, 3, length)
    return {
        "u": rows(2, 4, 5), "delta": rows(2, 4, 5), "A": A, "B": B, "C": C, "D": rows(4),
        "z": rows(2, 4, 5), "delta_bias": rows(4),
    }  # fmt: skip


KINDS = ["real", "real_groups", "real_constant", "complex", "complex_groups", "complex_constant"]


def plain_scan(a: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loop of the paper, one number at a time for B and C."""
    A, delta = a["A"], F.softplus(a["delta"] + a["delta_bias"][:, None])

    def at(matrix: Tensor, b: int, d: int, t: int) -> Tensor:
        if matrix.dim() == 2:
            return matrix[d]
        row = matrix[b] if matrix.dim() == 3 else matrix[b, d // (4 // matrix.shape[1])]
        if A.is_complex():
            return torch.complex(row[:, 2 * t], row[:, 2 * t + 1])
        return row[:, t]

    out, last = torch.zeros_like(a["u"]), A.new_zeros(2, 4, 3)
    for b in range(2):
        for d in range(4):
            h = A.new_zeros(3)
            for t in range(5):
                step = delta[b, d, t]
                h = torch.exp(step * A[d]) * h + step * at(a["B"], b, d, t) * a["u"][b, d, t]
                y = (at(a["C"], b, d, t) * h).sum()
                y = 2 * y.real if A.is_complex() else y
                y = y + a["D"][d] * a["u"][b, d, t]
                out[b, d, t] = y * F.silu(a["z"][b, d, t])
            last[b, d] = h
    return out, last


@pytest.mark.parametrize("kind", KINDS)
def test_scan(kind: str) -> None:
    a = scan_arguments(kind)
    expected = plain_scan(a)
    for function in (selective_scan_fn, selective_scan_ref):
        result = function(**a, delta_softplus=True, return_last_state=True)
        torch.testing.assert_close(result, expected)
    assert isinstance(selective_scan_fn(**a), Tensor)


@pytest.mark.parametrize("kind", KINDS)
def test_scan_gradients(kind: str) -> None:
    a = {name: value.requires_grad_() for name, value in scan_arguments(kind).items()}
    grads = []
    for function in (selective_scan_fn, selective_scan_ref):
        out, last = function(**a, delta_softplus=True, return_last_state=True)
        loss = out.square().sum() + (last.abs() ** 2).sum()
        grads.append(torch.autograd.grad(loss, list(a.values())))
    torch.testing.assert_close(*grads)


def inner_arguments(kind: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Batch 2, 6 channels, 5 steps, 3 states, rank 2, 4 outputs."""

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype)

    A = -torch.rand(6, 3, dtype=dtype) - 0.1
    if kind == "complex":
        A = torch.complex(A, torch.randn_like(A))
    states = 6 if kind == "complex" else 3
    arguments = {
        "xz": some(2, 5, 12).mT, "conv1d_weight": some(6, 1, 4), "conv1d_bias": some(6),
        "x_proj_weight": some(2 + 2 * states, 6), "delta_proj_weight": some(6, 2),
        "out_proj_weight": some(4, 6), "out_proj_bias": some(4), "A": A, "D": some(6),
        "delta_bias": some(6),
    }  # fmt: skip
    if kind == "given":
        arguments |= {"B": some(2, 3, 5), "C": some(6, 3)}
    else:
        arguments |= {"B_proj_bias": some(states), "C_proj_bias": some(states)}
    return arguments


@pytest.mark.parametrize("checkpoint_lvl", [0, 1])
@pytest.mark.parametrize("kind", ["real", "complex", "given"])
def test_inner(kind: str, checkpoint_lvl: int) -> None:
    a = {name: value.requires_grad_() for name, value in inner_arguments(kind).items()}
    ours = mamba_inner_fn(**a, checkpoint_lvl=checkpoint_lvl)
    plain = mamba_inner_ref(**a)
    torch.testing.assert_close(ours, plain)
    used = [value for name, value in a.items() if kind != "given" or name != "x_proj_weight"]
    grads = [torch.autograd.grad(out.square().sum(), used) for out in (ours, plain)]
    torch.testing.assert_close(*grads)


def test_inner_options() -> None:
    a = inner_arguments("real")
    for missing in ("conv1d_bias", "out_proj_bias"):
        a[missing] = None  # type: ignore[assignment]
    for missing in ("D", "delta_bias", "B_proj_bias", "C_proj_bias"):
        del a[missing]
    for softplus in (False, True):
        ours = mamba_inner_fn(**a, delta_softplus=softplus)
        torch.testing.assert_close(ours, mamba_inner_ref(**a, delta_softplus=softplus))


def test_inner_norms(monkeypatch: Any) -> None:
    """Over B and C behind their bias, over delta behind its projection and before its bias."""
    a = inner_arguments("real")
    b, c, dt = torch.randn(3).double(), torch.randn(3).double(), torch.randn(6).double()
    u = ops.causal_conv1d(
        a["xz"][:, :6], a["conv1d_weight"][:, 0], a["conv1d_bias"], activation="silu"
    )
    rows = u.mT @ a["x_proj_weight"].mT

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt() * weight

    delta = norm(rows[..., :2] @ a["delta_proj_weight"].mT, dt)
    B, C = norm(rows[..., 2:5] + a["B_proj_bias"], b), norm(rows[..., 5:] + a["C_proj_bias"], c)
    y = selective_scan_fn(
        u, delta.mT, a["A"], B.mT, C.mT, a["D"], a["xz"][:, 6:], a["delta_bias"], True
    )
    expected = y.mT @ a["out_proj_weight"].mT + a["out_proj_bias"]
    interface._warn_of_late_norm.cache_clear()
    with pytest.warns(UserWarning, match="behind its projection"):
        ours = mamba_inner_fn(
            **a, b_rms_weight=b, c_rms_weight=c, dt_rms_weight=dt, b_c_dt_rms_eps=0.1
        )
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("checkpoint_lvl", [0, 1])
def test_inner_second_gradients(checkpoint_lvl: int) -> None:
    a = {name: value.requires_grad_() for name, value in inner_arguments("real").items()}

    def function(*values: Tensor) -> Tensor:
        return mamba_inner_fn(**dict(zip(a, values, strict=True)), checkpoint_lvl=checkpoint_lvl)

    assert torch.autograd.gradcheck(function, list(a.values()))
    assert torch.autograd.gradgradcheck(function, list(a.values()))


def test_inner_makes_again_what_it_did_not_keep(monkeypatch: Any) -> None:
    calls = []
    convolution = ops.causal_conv1d

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(torch.is_grad_enabled())
        return convolution(*args, **kwargs)

    monkeypatch.setattr(ops, "causal_conv1d", counting)
    a = {name: value.requires_grad_() for name, value in inner_arguments("real").items()}
    kept = mamba_inner_fn(**a, checkpoint_lvl=0)
    remade = mamba_inner_fn(**a)
    assert calls == [True, True]
    grads = []
    for out in (kept, remade):
        grads.append(torch.autograd.grad(out.sum(), list(a.values())))
    assert calls == [True, True, False]
    assert all(torch.equal(x, y) for x, y in zip(*grads, strict=True))
    with pytest.raises(ValueError, match="checkpoint_lvl: expected 0 or 1, got 2"):
        mamba_inner_fn(**a, checkpoint_lvl=2)


def test_inner_under_autocast_and_compile() -> None:
    a = {
        name: value.requires_grad_()
        for name, value in inner_arguments("real", torch.float32).items()
    }
    expected = mamba_inner_fn(**a)
    with torch.autocast("cpu", torch.bfloat16):
        half = mamba_inner_fn(**a)
    assert half.dtype == torch.bfloat16
    half.float().sum().backward()
    error = (half - expected).detach()
    assert float(error.norm() / expected.detach().norm()) <= 2e-2
    compiled = torch.compile(mamba_inner_fn, backend="aot_eager", fullgraph=True)(**a)
    torch.testing.assert_close(compiled, expected)


@pytest.mark.parametrize("heads", [False, True])
def test_state_update(heads: bool) -> None:
    shape = (3, 4, 2) if heads else (3, 4)
    x, dt, z = (torch.randn(shape) for _ in range(3))
    A = -torch.rand(*shape[1:], 5)
    B, C = (torch.randn(3, 2, 5) if heads else torch.randn(3, 5) for _ in range(2))
    D, bias = torch.randn(shape[1:]), torch.randn(shape[1:])
    state = torch.randn(*shape, 5)
    step = F.softplus(dt + bias)[..., None]
    per = (B.repeat_interleave(2, 1)[:, :, None], C.repeat_interleave(2, 1)[:, :, None])
    b, c = per if heads else (B[:, None], C[:, None])
    after = torch.exp(step * A) * state + step * b * x[..., None]
    expected = ((after * c).sum(-1) + D * x) * F.silu(z)
    for function in (selective_state_update, selective_state_update_ref):
        moved = state.clone().requires_grad_()  # the state is data
        out = function(moved, x, dt, A, B, C, D, z, bias, True)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(moved.detach(), after)
    slots = torch.cat([state, state])
    indices = torch.tensor([4, -1, 0], dtype=torch.int32)
    out = selective_state_update(slots, x, dt, A, B, C, state_batch_indices=indices)
    assert not out[1].any() and not torch.equal(slots[4], state[1])
    assert torch.equal(slots[[1, 2, 3, 5]], torch.cat([state, state])[[1, 2, 3, 5]])
