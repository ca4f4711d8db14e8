"""enable("transformers"): models of several kinds with random weights, the same outputs as without us."""

from __future__ import annotations

import pytest
import torch

from suffuse import compat
from suffuse.compat import _transformers

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}
CONFIGS = {
    "bert": ("BertModel", "BertConfig", {**SMALL, "intermediate_size": 48}),
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**SMALL, "num_key_value_heads": 2, "intermediate_size": 48},
    ),
    "mistral": (
        "MistralForCausalLM",
        "MistralConfig",
        {**SMALL, "num_key_value_heads": 2, "intermediate_size": 48, "sliding_window": 4},
    ),
    "gemma2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {
            **SMALL,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 48,
            "sliding_window": 4,
            "attn_logit_softcapping": 2.0,
            "query_pre_attn_scalar": 8,
        },
    ),
    "vit": (
        "ViTModel",
        "ViTConfig",
        {**SMALL, "intermediate_size": 48, "image_size": 16, "patch_size": 4},
    ),
}


def make(name, implementation):
    model_name, config_name, options = CONFIGS[name]
    torch.manual_seed(0)
    options = {k: v for k, v in options.items() if name != "vit" or k != "vocab_size"}
    config = getattr(transformers, config_name)(**options)
    config._attn_implementation = implementation
    return getattr(transformers, model_name)(config).eval()


def inputs(name):
    generator = torch.Generator().manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    mask = torch.ones(2, 11, dtype=torch.int64)
    mask[0, :3] = 0
    return {
        "input_ids": torch.randint(60, (2, 11), generator=generator),
        "attention_mask": mask,
    }


def outputs(model, given):
    """The first output, and the gradients of all parameters for its square."""
    model.zero_grad()
    out = model(**given)[0]
    valid = given.get("attention_mask")
    out = out if valid is None else out[valid.bool()]
    out.square().sum().backward()
    return [out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def close(ours, expected):
    """Gradients that cancel to nothing (a key's bias) are held to the size of the others."""
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-4, atol=1e-5)
    largest = max(float(x.abs().max()) for x in expected[1:])
    for x, y in zip(ours[1:], expected[1:], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-6 * largest)


@pytest.fixture
def called(monkeypatch):
    """How often our attention function ran."""
    count = []
    original = _transformers.attention

    def attention(*args, **options):
        count.append(options)
        return original(*args, **options)

    monkeypatch.setattr(_transformers, "attention", attention)
    return count


@pytest.mark.parametrize("name", CONFIGS)
def test_model_in_place(name, called):
    expected = outputs(make(name, "eager"), inputs(name))
    model = make(name, "eager")
    with compat.enable("transformers", model):
        close(outputs(model, inputs(name)), expected)
    assert len(called) == 2
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_every_sdpa_model(name, called):
    expected = outputs(make(name, "eager"), inputs(name))
    with compat.enable("transformers"):
        close(outputs(make(name, "sdpa"), inputs(name)), expected)
    assert len(called) == 2
    outputs(make(name, "sdpa"), inputs(name))
    assert len(called) == 2, "disable must bring transformers' own function back"


def test_generation_with_a_cache(called):
    given = inputs("llama")
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = make("llama", "eager").generate(**given, **options)
    with compat.enable("transformers"):
        ours = make("llama", "suffuse").generate(**given, **options)
    assert torch.equal(ours, expected)
    assert len(called) == 12


def test_static_cache_prefill_sees_only_what_is_there():
    model = make("llama", "eager")
    ids = inputs("llama")["input_ids"]
    expected = model(ids).logits
    with compat.enable("transformers", model), torch.no_grad():
        cache = transformers.StaticCache(config=model.config, max_cache_len=32)
        out = model(ids, past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_position_bias_has_a_gradient():
    module = torch.nn.Module()
    module.is_causal = False
    q, k, v = torch.randn(3, 2, 4, 7, 8, dtype=torch.float64).unbind(0)
    bias = torch.randn(1, 4, 7, 7, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 1, 7, 7) > 0.2

    def ours(bias):
        return _transformers.attention_forward(module, q, k, v, mask, position_bias=bias)[0]

    def formula(bias):
        scores = q @ k.transpose(-1, -2) * 8**-0.5 + bias
        return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v).transpose(1, 2)

    torch.testing.assert_close(ours(bias), formula(bias))
    grads = [torch.autograd.grad(f(bias).square().sum(), bias)[0] for f in (ours, formula)]
    torch.testing.assert_close(*grads)


def test_sinks():
    module = torch.nn.Module()
    module.is_causal = True
    q, k, v = torch.randn(3, 2, 4, 7, 8, dtype=torch.float64).unbind(0)
    sinks = torch.randn(4, dtype=torch.float64)
    out, _ = _transformers.attention_forward(module, q, k, v, None, s_aux=sinks)
    scores = (q @ k.transpose(-1, -2) * 8**-0.5).masked_fill(
        torch.ones(7, 7, dtype=torch.bool).triu(1), -torch.inf
    )
    all_scores = torch.cat((scores, sinks.reshape(1, 4, 1, 1).expand(2, 4, 7, 1)), dim=-1)
    expected = (all_scores.softmax(-1)[..., :-1] @ v).transpose(1, 2)
    torch.testing.assert_close(out, expected)


def test_weights_cannot_be_returned():
    model = make("bert", "eager")
    with compat.enable("transformers", model), pytest.warns(UserWarning, match="no weights"):
        q = torch.randn(1, 4, 3, 8)
        _transformers.attention_forward(model, q, q, q, None, output_attentions=True)


def test_target_must_be_a_model():
    with pytest.raises(TypeError, match="expected a PreTrainedModel, got Linear"):
        compat.enable("transformers", torch.nn.Linear(1, 1))
    assert not compat.status()["transformers"]["enabled"]
