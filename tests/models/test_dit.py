"""DiT against the diffusers model whose checkpoints it loads."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from suffuse.models.dit import DiT, DiTConfig
from suffuse.models.folder import CONFIG_FILE, WEIGHTS_FILE

diffusers = pytest.importorskip("diffusers")

TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "in_channels": 4,
    "out_channels": 8,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 10,
}


def reference_model(**changes):
    """A diffusers model with all weights random, so that no zero-initialised layer hides a difference."""
    torch.manual_seed(0)
    model = diffusers.DiTTransformer2DModel(**{**TINY, **changes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def our_model(reference, **changes):
    model = DiT(DiTConfig(**{**TINY, **changes}))
    model.load_state_dict(reference.state_dict(), strict=True)
    return model.eval()


def inputs(height=8, width=8, channels=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, channels, height, width, generator=generator)
    return x, torch.tensor([0, 417, 999]), torch.tensor([3, 10, 0])


VARIANTS = [
    {},
    {"norm_elementwise_affine": True, "norm_eps": 1e-3},
    {"attention_bias": False, "activation_fn": "gelu"},
    {"patch_size": 4, "num_layers": 3, "in_channels": 1, "out_channels": 1},
    {"sample_size": 12, "attention_head_dim": 10},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_matches_diffusers_with_gradients(changes):
    reference = reference_model(**changes)
    ours = our_model(reference, **changes)
    size = changes.get("sample_size", 8)
    x, t, labels = inputs(size, size, changes.get("in_channels", 4))
    expected = reference(x, timestep=t, class_labels=labels).sample
    actual = ours(x, t, labels)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)

    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (expected * weight).sum().backward()
    (actual * weight).sum().backward()
    grads = dict(ours.named_parameters())
    for name, parameter in reference.named_parameters():
        scale = parameter.grad.abs().max()
        assert scale > 0, name
        assert (grads[name].grad - parameter.grad).abs().max() <= 1e-3 * scale, name


def test_other_resolution_matches_diffusers():
    reference = reference_model()
    x, t, labels = inputs(12, 12)
    expected = reference(x, timestep=t, class_labels=labels).sample
    torch.testing.assert_close(our_model(reference)(x, t, labels), expected, rtol=0, atol=1e-4)


def test_rectangular_picture_is_equivariant_to_transposition():
    # Swapping the two halves of the position table and transposing the patches must transpose the answer.
    ours = our_model(reference_model())
    x, t, labels = inputs(4, 8)
    expected = ours(x, t, labels)
    weight = ours.pos_embed.proj.weight.data
    weight.copy_(weight.transpose(2, 3).clone())
    out = ours.proj_out_2
    shape = (2, 2, 8)
    out.weight.data = out.weight.data.view(*shape, -1).transpose(0, 1).reshape(out.weight.shape)
    out.bias.data = out.bias.data.view(shape).transpose(0, 1).reshape(out.bias.shape)
    ours.pos_embed.pos_embed.zero_()
    import suffuse.nn.embedding as embedding

    table = embedding.position_table(32, 4, 2, 4).roll(16, dims=1)
    actual = _with_table(ours, table)(x.transpose(2, 3).contiguous(), t, labels).transpose(2, 3)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
