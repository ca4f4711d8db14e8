"""enable("sdpa"): who calls scaled_dot_product_attention gets suffuse's kernels, with the same results."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import profile

from suffuse import compat
from suffuse.compat import _sdpa_cuda


def calls(function) -> list[str]:
    """The suffuse ops that a call runs."""
    with profile() as record:
        function()
    return sorted({e.key for e in record.key_averages() if e.key.startswith("suffuse::")})


def make(dtype=torch.float32, G=4, layout="rows", D=8):
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 4, 17, D), (2, G, 17, D), (2, G, 17, D))
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in sizes]
    if layout == "heads inside":
        tensors = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors]
    return [x.requires_grad_() for x in tensors]


def run(tensors, **options):
    out = F.scaled_dot_product_attention(*tensors, **options)
    return [out, *torch.autograd.grad(out.square().sum(), tensors)]


MASKS = {
    "none": None,
    "bool": torch.rand(2, 1, 17, 17, generator=torch.Generator().manual_seed(1)) > 0.3,
    "rows": torch.rand(17, 17, generator=torch.Generator().manual_seed(1)) > 0.3,
    "floats": torch.randn(2, 4, 17, 17, generator=torch.Generator().manual_seed(1)),
    "keys": torch.rand(2, 1, 1, 17, generator=torch.Generator().manual_seed(1)) > 0.3,
}


@pytest.mark.parametrize("layout", ["rows", "heads inside"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mask", MASKS)
def test_same_results_and_layouts(mask, dtype, layout):
    tensors, attn_mask = make(dtype, layout=layout), MASKS[mask]
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.to(dtype)
    torchs = run(tensors, attn_mask=attn_mask)
    with compat.enable("sdpa"):
        ours = run(tensors, attn_mask=attn_mask)
        names = calls(lambda: run(tensors, attn_mask=attn_mask))
    kind = "attention" if attn_mask is None else "attention_general"
    assert names == [f"suffuse::{kind}_bwd", f"suffuse::{kind}_fwd"]
    again = run(tensors, attn_mask=attn_mask)
    for a, b, c in zip(ours, torchs, again, strict=True):
        eps = 30 * torch.finfo(dtype).eps
        torch.testing.assert_close(a, b, rtol=eps, atol=eps)
        assert a.stride() == b.stride()
        assert torch.equal(b, c), "disable must bring PyTorch's own kernel back"


@pytest.mark.parametrize("options", [{"is_causal": True}, {"scale": 0.3}], ids=str)
def test_options(options):
    tensors = make(torch.float64)
    expected = run(tensors, **options)
    with compat.enable("sdpa"):
        ours = run(tensors, **options)
    torch.testing.assert_close(ours, expected)


def test_grouped_heads():
    tensors = make(torch.float64, G=2)
    expected = run(tensors, enable_gqa=True)
    with compat.enable("sdpa"):
        torch.testing.assert_close(run(tensors, enable_gqa=True), expected)


def test_what_is_not_ours_still_works():
    q, k, v = make()
    mask = torch.randn(17, 17, requires_grad=True)
    with compat.enable("sdpa"):
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward()
        assert F.scaled_dot_product_attention(q, k, v, dropout_p=0.5).shape == q.shape
        assert F.scaled_dot_product_attention(q, k, v[..., :3]).shape == (2, 4, 17, 3)
    assert mask.grad is not None


def test_compiled():
    tensors = make(layout="heads inside")
    expected = run(tensors, is_causal=True)
    with compat.enable("sdpa"):
        compiled = torch.compile(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), fullgraph=True
        )
        out = compiled(*tensors)
        grads = torch.autograd.grad(out.square().sum(), tensors)
    torch.testing.assert_close([out, *grads], expected)


@pytest.mark.parametrize("training", [False, True])
def test_multihead_attention(training):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    layer.train(training)
    x = torch.randn(2, 9, 32)
    with torch.set_grad_enabled(training):
        expected = layer(x)
        with compat.enable("sdpa"):
            assert "suffuse::attention_fwd" in calls(lambda: layer(x))
            torch.testing.assert_close(layer(x), expected)
    assert torch.backends.mha.get_fastpath_enabled()


def test_enable_takes_no_target():
    with pytest.raises(TypeError, match=r"sdpa.*no targets"):
        compat.enable("sdpa", torch.nn.Linear(1, 1))
    assert not compat.status()["sdpa"]["enabled"]


def test_provider_for_cuda_is_registered_and_computes_the_same():
    q, k, v = make(torch.float64)
    with compat.enable("sdpa"):
        assert "suffuse" in torch.nn.attention.list_flash_attention_impls()
    with torch.no_grad():
        out, lse, *_, state, _, _ = _sdpa_cuda.forward(q, k, v, is_causal=True)
        grads = _sdpa_cuda.backward(
            2 * out, q, k, v, out, lse, None, None, 17, 17, 0.0, True, state, state
        )
    torch.testing.assert_close([out, *grads], [x.detach() for x in run([q, k, v], is_causal=True)])


def test_provider_for_cuda_drops_alike_in_both_passes():
    q, k, v = make(torch.float64)
    with torch.no_grad():
        out, lse, *_, state, _, _ = _sdpa_cuda.forward(q, k, v, 0.5)
        # The sum of out is linear in v, so its gradient gives it back, if the same weights are zeroed.
        ones = torch.ones_like(out)
        grads = _sdpa_cuda.backward(
            ones, q, k, v, out, lse, None, None, 17, 17, 0.5, False, state, state
        )
    torch.testing.assert_close((grads[2] * v).sum(), out.sum())


AUTOLOAD = """
import torch, sys
assert ("suffuse" in sys.modules) == {expected}, "suffuse in sys.modules"
if {expected}:
    from suffuse import compat
    assert compat.status()["sdpa"]["enabled"]
    assert compat.status()["flash_attn"]["enabled"]
    import flash_attn
    assert flash_attn.__version__
"""


@pytest.mark.parametrize("names", ["", "sdpa, flash_attn"])
def test_autoload(names):
    environment = {**os.environ, "SUFFUSE_AUTOLOAD": names}
    code = AUTOLOAD.format(expected=bool(names))
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_autoload_of_an_unknown_name_is_a_warning():
    environment = {**os.environ, "SUFFUSE_AUTOLOAD": "sdqa"}
    command = [sys.executable, "-c", "import torch"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0
    assert "SUFFUSE_AUTOLOAD: sdqa: expected one of sdpa" in result.stderr
