"""enable("diffusers"): the attention dispatcher's native backend and the one called "suffuse"."""

from __future__ import annotations

import pytest
import torch

from suffuse import compat

diffusers = pytest.importorskip("diffusers")
from diffusers.models import attention_dispatch  # noqa: E402
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn  # noqa: E402

registry = attention_dispatch._AttentionBackendRegistry


def make():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 17, 4, 8, generator=generator, requires_grad=True) for _ in range(3)]


GIVEN = {
    "plain": {},
    "causal": {"is_causal": True},
    "key mask": {"attn_mask": torch.rand(2, 17, generator=torch.Generator().manual_seed(1)) > 0.3},
    "mask": {
        "attn_mask": torch.rand(2, 1, 17, 17, generator=torch.Generator().manual_seed(1)) > 0.3
    },
    "floats": {"attn_mask": torch.randn(4, 17, 17, generator=torch.Generator().manual_seed(1))},
    "scale": {"scale": 0.2},
}


@pytest.mark.parametrize("backend", [None, "suffuse"])
@pytest.mark.parametrize("name", GIVEN)
def test_same_results(name, backend):
    tensors = make()

    def run():
        out = dispatch_attention_fn(*tensors, **GIVEN[name])
        return [out, *torch.autograd.grad(out.square().sum(), tensors)]

    expected = run()
    with compat.enable("diffusers"):
        if backend is None:
            ours = run()
        else:
            with attention_dispatch.attention_backend(backend):
                ours = run()
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_undone_completely():
    tables = ("_backends", "_constraints", "_supported_arg_names", "_supports_context_parallel")
    before = [type(getattr(registry, t))(getattr(registry, t)) for t in tables]
    names = list(AttentionBackendName)
    with compat.enable("diffusers"):
        assert registry._backends[AttentionBackendName.NATIVE] is not before[0]["native"]
        assert AttentionBackendName("suffuse").value == "suffuse"
    assert [getattr(registry, t) for t in tables] == before
    assert list(AttentionBackendName) == names
    with pytest.raises(ValueError, match="suffuse"):
        AttentionBackendName("suffuse")


def test_a_transformer_and_a_unet():
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
    ).eval()
    given = (torch.randn(1, 4, 8, 8), 10, torch.randn(1, 5, 16))
    with torch.no_grad():
        expected = unet(*given).sample
        with compat.enable("sdpa"):
            torch.testing.assert_close(unet(*given).sample, expected, rtol=1e-4, atol=1e-5)
