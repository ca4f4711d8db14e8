"""The drop-ins of mamba_ssm's Mamba-2 scan, of its norms and of its two layers."""

from __future__ import annotations

import inspect
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from suffuse import nn, ops
from suffuse.compat.mamba_ssm import Mamba, Mamba2
from suffuse.compat.mamba_ssm.modules.ssd_minimal import ssd_minimal_discrete
from suffuse.compat.mamba_ssm.ops.triton import layer_norm, layernorm_gated
from suffuse.compat.mamba_ssm.ops.triton.ssd_combined import (
    mamba_chunk_scan,
    mamba_chunk_scan_combined,
    mamba_split_conv1d_scan_combined,
)
from suffuse.nn.gated_norm import gated_norm
from suffuse.nn.ssd import scan_with_steps, ssd


def names(function: Any) -> str:
    return ",".join(inspect.signature(function).parameters)


def test_signatures() -> None:
    assert names(mamba_chunk_scan_combined) == (
        "x,dt,A,B,C,chunk_size,D,z,dt_bias,initial_states,seq_idx,cu_seqlens,dt_softplus,dt_limit,"
        "return_final_states,return_varlen_states,state_dtype"
    )
    assert names(mamba_split_conv1d_scan_combined) == (
        "zxbcdt,conv1d_weight,conv1d_bias,dt_bias,A,D,chunk_size,initial_states,seq_idx,dt_limit,"
        "return_final_states,activation,rmsnorm_weight,rmsnorm_eps,outproj_weight,outproj_bias,"
        "headdim,ngroups,norm_before_gate,state_dtype"
    )
    assert names(layernorm_gated.rmsnorm_fn) == "x,weight,bias,z,eps,group_size,norm_before_gate"
    assert names(Mamba) == (
        "d_model,d_state,d_conv,expand,dt_rank,dt_min,dt_max,dt_init,dt_scale,dt_init_floor,"
        "conv_bias,bias,use_fast_path,layer_idx,device,dtype"
    )
    assert names(Mamba2).startswith(
        "d_model,d_state,d_conv,conv_init,expand,headdim,d_ssm,ngroups,"
    )
    assert names(Mamba2.forward) == "self,u,seqlen,seq_idx,cu_seqlens,inference_params"


def scan_arguments(batch: int = 2, steps: int = 9) -> dict[str, Tensor]:
    return {
        "x": torch.randn(batch, steps, 4, 3).double(), "dt": torch.randn(batch, steps, 4).double(),
        "A": -torch.rand(4).double(), "B": torch.randn(batch, steps, 2, 5).double(),
        "C": torch.randn(batch, steps, 2, 5).double(),
    }  # fmt: skip


def test_chunk_scan() -> None:
    a = scan_arguments()
    rest = {"D": torch.randn(4).double(), "z": torch.randn_like(a["x"])}
    rest["dt_bias"] = torch.randn(4).double()
    initial = torch.randn(2, 4, 3, 5).double()
    out, last = mamba_chunk_scan_combined(
        **a, chunk_size=4, **rest, initial_states=initial, dt_softplus=True, dt_limit=(0.1, 1.0),
        return_final_states=True,
    )  # fmt: skip
    expected = scan_with_steps(
        **a, **rest, initial_state=initial, dt_softplus=True, dt_limit=(0.1, 1.0), chunk_size=3
    )
    torch.testing.assert_close((out, last), expected)
    out = mamba_chunk_scan(**a, chunk_size=4, **rest, dt_softplus=True)
    torch.testing.assert_close(out, scan_with_steps(**a, **rest, dt_softplus=True)[0])
    _, last = mamba_chunk_scan_combined(
        **a, chunk_size=4, return_final_states=True, state_dtype=torch.bfloat16
    )
    assert last.dtype == torch.bfloat16


@pytest.mark.parametrize("with_seq_idx", [False, True])
def test_states_of_packed_sequences(with_seq_idx: bool) -> None:
    a = scan_arguments(1, 11)
    cuts, initial = [0, 4, 5, 11], torch.randn(1, 4, 3, 5).double()
    seq_idx = torch.tensor([[0] * 4 + [1] + [2] * 6], dtype=torch.int32) if with_seq_idx else None
    out, last, states = mamba_chunk_scan_combined(
        **a, chunk_size=4, dt_softplus=True, initial_states=initial, seq_idx=seq_idx,
        cu_seqlens=torch.tensor(cuts), return_final_states=True, return_varlen_states=True,
    )  # fmt: skip
    for i, (begin, end) in enumerate(pairwise(cuts)):
        alone = {name: v if name == "A" else v[:, begin:end] for name, v in a.items()}
        expected, final = scan_with_steps(
            **alone, dt_softplus=True, initial_state=initial if i == 0 else None
        )
        torch.testing.assert_close(out[:, begin:end], expected)
        torch.testing.assert_close(states[i], final[0])
    torch.testing.assert_close(last[0], states[-1])
    out, states = mamba_chunk_scan_combined(
        **a, chunk_size=4, cu_seqlens=torch.tensor(cuts), return_varlen_states=True
    )
    assert states.shape == (3, 4, 3, 5)


def test_chunk_scan_refusals() -> None:
    with pytest.raises(ValueError, match="cu_seqlens: expected a tensor, got None"):
        mamba_chunk_scan_combined(**scan_arguments(1), chunk_size=4, return_varlen_states=True)
    with pytest.raises(ValueError, match="cu_seqlens: expected a batch of 1, got 2"):
        mamba_chunk_scan_combined(**scan_arguments(), chunk_size=4, cu_seqlens=torch.tensor([0, 9]))


def test_minimal_scan() -> None:
    x, decay = torch.randn(2, 8, 4, 3), -torch.rand(2, 8, 4)
    B, C, initial = torch.randn(2, 8, 4, 5), torch.randn(2, 8, 4, 5), torch.randn(2, 1, 4, 3, 5)
    expected = ssd(x, decay, B, C, initial_state=initial[:, 0])
    torch.testing.assert_close(ssd_minimal_discrete(x, decay, B, C, 4, initial), expected)
    torch.testing.assert_close(ssd_minimal_discrete(x, decay, B, C, 2), ssd(x, decay, B, C))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("mlp", [0, 3])
def test_split_conv_scan(norm: bool, mlp: int) -> None:
    rows = torch.randn(2, 7, 2 * mlp + 12 + 32 + 4).double()
    weight, bias = torch.randn(32, 3).double(), torch.randn(32).double()
    dt_bias, A, D = torch.randn(4).double(), -torch.rand(4).double(), torch.randn(4, 3).double()
    initial = torch.randn(2, 4, 3, 5).double()
    norm_weight = torch.randn(12).double() if norm else None
    out_weight = torch.randn(6, mlp + 12).double()
    out, last = mamba_split_conv1d_scan_combined(
        rows, weight, bias, dt_bias, A, D, 4, initial, return_final_states=True,
        rmsnorm_weight=norm_weight, outproj_weight=out_weight, ngroups=2, norm_before_gate=False,
    )  # fmt: skip
    gated, z, mixed, dt = rows.split([2 * mlp, 12, 32, 4], -1)
    mixed = ops.causal_conv1d(mixed.mT, weight, bias, activation="silu").mT
    x, B, C = mixed.split([12, 10, 10], -1)
    y, final = scan_with_steps(
        x.unflatten(-1, (4, 3)), dt, A, B.unflatten(-1, (2, 5)), C.unflatten(-1, (2, 5)), D=D,
        dt_bias=dt_bias, dt_softplus=True, initial_state=initial,
    )  # fmt: skip
    y = y.flatten(2) * F.silu(z)
    if norm:
        y = F.rms_norm(y.unflatten(-1, (2, 6)), (6,), eps=1e-6).flatten(2) * norm_weight
    y = torch.cat([F.silu(gated[..., :mlp]) * gated[..., mlp:], y], -1)
    torch.testing.assert_close(out, y @ out_weight.mT)
    torch.testing.assert_close(last, final)


def test_split_conv_scan_options() -> None:
    rows, weight = torch.randn(2, 7, 12 + 22 + 4), torch.randn(22, 3)
    arguments = (rows, weight, None, torch.randn(4), -torch.rand(4))
    D, norm = torch.randn(4), torch.ones(12)
    before = mamba_split_conv1d_scan_combined(
        *arguments, D, 4, rmsnorm_weight=norm, rmsnorm_eps=0.1, headdim=3, activation=None
    )
    gate = {"activation": None, "headdim": 3}
    plain = mamba_split_conv1d_scan_combined(*arguments, D, 4, **gate)
    ungated = plain / F.silu(rows[..., :12])
    expected = gated_norm(ungated, norm, gate=rows[..., :12], eps=0.1)
    torch.testing.assert_close(before, expected, rtol=1e-3, atol=1e-4)
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 1, 1]], dtype=torch.int32).repeat(2, 1)
    packed = mamba_split_conv1d_scan_combined(*arguments, D, 4, seq_idx=seq_idx, **gate)
    alone = mamba_split_conv1d_scan_combined(rows[:, 3:], *arguments[1:], D, 4, **gate)
    torch.testing.assert_close(packed[:, 3:], alone)
    with pytest.raises(ValueError, match="headdim: expected a number"):
        mamba_split_conv1d_scan_combined(*arguments, D, 4)
    with pytest.raises(ValueError, match="outproj_weight: expected a tensor"):
        mamba_split_conv1d_scan_combined(*arguments, D, 4, headdim=3, outproj_bias=D)


def test_gated_norms() -> None:
    x, z, weight, bias = torch.randn(3, 8), torch.randn(3, 8), torch.randn(8), torch.randn(8)
    options = {"eps": 0.1, "group_size": 4, "norm_before_gate": False}
    expected = gated_norm(x, weight, bias, z, **options)  # type: ignore[arg-type]
    for function in (layernorm_gated.rmsnorm_fn, layernorm_gated.rms_norm_ref):
        assert torch.equal(function(x, weight, bias, z, 0.1, 4, False), expected)
    expected = gated_norm(x, weight, bias, z, centred=True, **options)  # type: ignore[arg-type]
    assert torch.equal(layernorm_gated.layernorm_fn(x, weight, bias, z, 0.1, 4, False), expected)
    norm = layernorm_gated.LayerNorm(8, eps=0.1, group_size=4, norm_before_gate=False)
    norm.load_state_dict({"weight": weight, "bias": bias})
    assert torch.equal(norm(x, z), expected)
    rms = layernorm_gated.RMSNorm(8, eps=0.1)
    torch.testing.assert_close(rms(x), F.rms_norm(x, (8,), eps=0.1))
    assert list(rms.state_dict()) == ["weight"]
    with pytest.raises(NotImplementedError, match="upcast: expected True, got False"):
        layernorm_gated.rms_norm_ref(x, weight, None, upcast=False)


def test_norms_behind_a_residual() -> None:
    x, residual = torch.randn(3, 8).bfloat16(), torch.randn(3, 8)
    weight, bias = torch.randn(8), torch.randn(8)
    out, total = layer_norm.layer_norm_fn(x, weight, bias, residual, eps=0.1, prenorm=True)
    assert out.dtype == torch.bfloat16 and torch.equal(total, x.float() + residual)
    torch.testing.assert_close(out, F.layer_norm(total, (8,), weight, bias, 0.1).bfloat16())
    out, total = layer_norm.rms_norm_fn(x, weight, None, prenorm=True, residual_in_fp32=True)
    assert total.dtype == torch.float32 and torch.equal(total, x.float())
    torch.testing.assert_close(out, F.rms_norm(total, (8,), weight, 1e-6).bfloat16())
    _, total = layer_norm.rms_norm_fn(x, weight, None, prenorm=True)
    assert total is x
    norm = layer_norm.RMSNorm(8, eps=0.1)
    torch.testing.assert_close(norm(residual), F.rms_norm(residual, (8,), eps=0.1))
    for name, value in {
        "x1": x,
        "dropout_p": 0.1,
        "rowscale": x,
        "return_dropout_mask": True,
    }.items():
        with pytest.raises(NotImplementedError, match=name):
            layer_norm.layer_norm_fn(x, weight, bias, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="dropout_p"):
        layer_norm.RMSNorm(8, dropout_p=0.1)


def layers(kind: str, **options: Any) -> tuple[Any, Any]:
    """mamba_ssm's layer and suffuse's with the same weights."""
    if kind == "mamba":
        peer: Any = Mamba(8, d_state=4, layer_idx=3, **options)
        ours: Any = nn.Mamba(8, d_state=4)
    else:
        peer = Mamba2(8, d_state=4, headdim=4, layer_idx=3, **options)
        ours = nn.Mamba2(8, d_state=4, headdim=4)
    ours.load_state_dict(peer.state_dict())
    return peer, ours


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_layers(kind: str) -> None:
    peer, ours = layers(kind)
    x = torch.randn(2, 7, 8)
    expected = ours(x)
    torch.testing.assert_close(peer(x), expected)
    if kind == "mamba":
        peer.use_fast_path = False
        torch.testing.assert_close(peer(x), expected)
    else:
        torch.testing.assert_close(peer(x.flatten(0, 1), seqlen=7), expected.flatten(0, 1))
        seq_idx = torch.tensor([[0, 0, 0, 1, 1, 1, 1]], dtype=torch.int32).repeat(2, 1)
        torch.testing.assert_close(peer(x, seq_idx=seq_idx), ours(x, seq_idx=seq_idx))


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_layers_in_generation(kind: str) -> None:
    peer, ours = layers(kind)
    x = torch.randn(2, 7, 8)
    expected = ours(x)
    for start in (1, 5):  # shorter and longer than the convolution; the cache is used twice
        params = SimpleNamespace(seqlen_offset=0, key_value_memory_dict={})
        for _ in range(2):
            params.seqlen_offset = 0
            with torch.no_grad():
                rows = [peer(x[:, :start], inference_params=params)]
                for t in range(start, 7):
                    params.seqlen_offset = t
                    rows.append(peer(x[:, t : t + 1], inference_params=params))
            torch.testing.assert_close(torch.cat(rows, 1), expected)
        conv, state = params.key_value_memory_dict[3]
        assert conv.shape[::2] == (2, 4) and state.shape[0] == 2
    conv, state = peer.allocate_inference_cache(2, 100, dtype=torch.bfloat16)
    assert conv.dtype == state.dtype == torch.bfloat16 and not conv.any() and not state.any()
    with pytest.raises(ValueError, match="hidden_states: expected one step, got 2"):
        peer.step(x[:, :2], conv, state)
    with pytest.raises(ValueError, match="layer_idx: expected a number"):
        type(peer)(8, **({"headdim": 4} if kind == "mamba2" else {}))(x, inference_params=params)


def test_layers_of_a_dtype() -> None:
    mamba = Mamba(8, dtype=torch.bfloat16, device="cpu")
    assert mamba.A_log.dtype == mamba.D.dtype == torch.float32
    assert mamba.in_proj.weight.dtype == mamba.dt_proj.bias.dtype == torch.bfloat16
    mamba2 = Mamba2(8, headdim=4, dtype=torch.bfloat16)
    assert mamba2.D.dtype == torch.float32
    assert mamba2.A_log.dtype == mamba2.norm.weight.dtype == torch.bfloat16
    for layer in (mamba, mamba2):
        out = layer(torch.randn(1, 5, 8).bfloat16())
        assert out.dtype == torch.bfloat16 and out.isfinite().all()


def test_layers_refuse() -> None:
    with pytest.raises(NotImplementedError, match="process_group"):
        Mamba2(8, headdim=4, process_group=object())
    layer = Mamba2(8, headdim=4)
    with pytest.raises(NotImplementedError, match="cu_seqlens is not supported, seq_idx is"):
        layer(torch.randn(1, 4, 8), cu_seqlens=torch.tensor([0, 4]))
