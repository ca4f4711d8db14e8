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
    """A diffusers model with all weights random: a layer that starts at zero would hide differences."""
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
    expected_gradients = {name: p.grad for name, p in reference.named_parameters()}
    for name, parameter in ours.named_parameters():
        # Softmax ignores a shift that all keys share: the key bias has a gradient of rounding alone.
        largest = expected_gradients[name.replace("to_k.bias", "to_k.weight")].abs().max()
        assert largest > 0, name
        difference = (parameter.grad - expected_gradients[name]).abs().max()
        assert difference <= 1e-3 * largest, name


def test_other_resolution_matches_diffusers():
    reference = reference_model()
    x, t, labels = inputs(12, 12)
    expected = reference(x, timestep=t, class_labels=labels).sample
    torch.testing.assert_close(our_model(reference)(x, t, labels), expected, rtol=0, atol=1e-4)


def test_rectangular_picture(monkeypatch):
    # diffusers refuses rectangles. Without positions, attention averages over two equal halves as
    # over one of them: a doubled picture must give the doubled answer, rows and columns in place.
    ours = our_model(reference_model())
    monkeypatch.setattr("suffuse.nn.embedding.position_table", lambda *size: torch.zeros(()))
    ours.pos_embed.pos_embed.zero_()
    x, t, labels = inputs(8, 4)
    expected = ours(x, t, labels)
    for dim in (2, 3):
        actual = ours(torch.cat([x, x], dim), t, labels)
        torch.testing.assert_close(actual, torch.cat([expected, expected], dim))


def test_no_labels_means_the_null_class():
    ours = our_model(reference_model())
    x, t, _ = inputs()
    null = torch.full((3,), 10)
    assert torch.equal(ours(x, t), ours(x, t, null))
    assert not torch.equal(ours(x, t), ours(x, t, null - 1))


def test_time_scale_multiplies_the_time():
    reference = reference_model()
    scaled = our_model(reference, time_scale=1000.0)
    x, _, labels = inputs()
    t = torch.tensor([0.25, 0.5, 1.0])
    torch.testing.assert_close(scaled(x, t, labels), our_model(reference)(x, t * 1000, labels))


def test_attention_function_is_the_one_given():
    calls = []

    def attention(q, k, v):
        calls.append((q.shape, k.shape, v.shape))
        return v

    DiT(DiTConfig(**TINY), attention=attention)(*inputs())
    assert calls == [((3, 16, 2, 16),) * 3] * 2


def test_new_model_predicts_zero_and_learns_everywhere():
    torch.manual_seed(0)
    model = DiT(DiTConfig(**TINY, shared_embedding=True))
    x, t, labels = inputs()
    assert model(x, t, labels).abs().max() == 0
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(4):  # zero layers open one after the other
        optimizer.zero_grad()
        (model(x, t, labels) - torch.cat([x, x], 1)).square().mean().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_dropout_acts_in_training_alone():
    reference = reference_model()
    model = our_model(reference, dropout=0.5)
    torch.testing.assert_close(model(*inputs()), our_model(reference)(*inputs()))
    model.train()
    assert not torch.equal(model(*inputs()), model(*inputs()))


def test_compiles_without_a_graph_break():
    model = our_model(reference_model())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs()), model(*inputs()))


def test_shared_embedding_is_stored_once():
    names = DiT(DiTConfig(**TINY, shared_embedding=True)).state_dict().keys()
    assert {name.split(".")[1] for name in names if ".emb." in name} == {"0"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loads_a_folder_that_diffusers_wrote(tmp_path, dtype):
    reference = reference_model().to(dtype)
    reference.save_pretrained(tmp_path)
    ours = DiT.from_pretrained(tmp_path)
    assert not ours.training
    x, t, labels = inputs()
    expected = reference(x.to(dtype), timestep=t, class_labels=labels).sample
    actual = ours(x.to(dtype), t, labels)
    assert actual.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 0.02 * float(expected.detach().abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def test_diffusers_loads_a_folder_that_we_wrote(tmp_path):
    ours = our_model(reference_model())
    ours.save_pretrained(tmp_path)
    loaded = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path)
    x, t, labels = inputs()
    expected = loaded(x, timestep=t, class_labels=labels).sample
    torch.testing.assert_close(ours(x, t, labels), expected, rtol=0, atol=1e-4)


def test_own_options_survive_the_folder(tmp_path):
    config = DiTConfig(**TINY, shared_embedding=True, time_scale=1000.0)
    DiT(config).save_pretrained(tmp_path)
    assert DiT.from_pretrained(tmp_path).config == config


def test_weights_must_match_exactly(tmp_path):
    reference_model().save_pretrained(tmp_path)
    good = dict(DiT.from_pretrained(tmp_path).state_dict())
    bias = "transformer_blocks.1.attn1.to_q.bias"
    for change, message in [
        ({"stray.weight": torch.zeros(1)}, "Unexpected.*stray.weight"),
        ({bias: torch.zeros(31)}, f"size mismatch for {bias}"),
        ({bias: None}, f"Missing.*{bias}"),
    ]:
        weights = {
            name: tensor for name, tensor in {**good, **change}.items() if tensor is not None
        }
        save_file(weights, tmp_path / WEIGHTS_FILE)
        with pytest.raises(RuntimeError, match=f"(?s){message}"):
            DiT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"norm_type": "ada_norm"}, NotImplementedError, "norm_type is 'ada_norm'"),
        ({"activation_fn": "geglu"}, NotImplementedError, "activation_fn is 'geglu'"),
        ({"window": 3}, NotImplementedError, "unknown key 'window' with value 3"),
        ({"patch_size": 3}, ValueError, "sample_size is 8, expected a multiple of patch_size 3"),
        ({"num_layers": 0}, ValueError, "num_layers is 0, expected at least 1"),
        ({"num_layers": "2"}, ValueError, "num_layers is '2', expected int"),
        ({"num_layers": True}, ValueError, "num_layers is True, expected int"),
        ({"attention_head_dim": 3}, ValueError, "is 6, expected a multiple of 4"),
        ({"dropout": 1.0}, ValueError, "dropout is 1.0, expected 0 <= dropout < 1"),
        ({"num_layers": None}, ValueError, "num_layers is None, expected int"),
    ],
)
def test_bad_config(tmp_path, change, error, message):
    reference_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**config, **change}))
    with pytest.raises(error, match=message):
        DiT.from_pretrained(tmp_path)


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no model folder: it has no config"):
        DiT.from_pretrained(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        DiT.from_pretrained(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("[1]")
    with pytest.raises(ValueError, match="holds a JSON list"):
        DiT.from_pretrained(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("{}")
    with pytest.raises(ValueError, match="missing num_attention_heads, attention_head_dim"):
        DiT.from_pretrained(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(json.dumps(TINY))
    with pytest.raises(FileNotFoundError, match=f"has no {WEIGHTS_FILE}"):
        DiT.from_pretrained(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        DiT.from_pretrained(tmp_path)
    (tmp_path / (WEIGHTS_FILE + ".index.json")).write_text("{}")
    with pytest.raises(NotImplementedError, match="split into several files"):
        DiT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("x", "t", "labels", "message"),
    [
        ((3, 5, 8, 8), (3,), (3,), r"x has shape \(3, 5, 8, 8\), expected \(B, 4, H, W\)"),
        ((3, 4, 8, 7), (3,), (3,), "multiples of 2"),
        ((4, 8, 8), (3,), (3,), r"x has shape \(4, 8, 8\)"),
        ((3, 4, 8, 8), (), (3,), r"t has shape \(\), expected \(3,\) like x"),
        ((3, 4, 8, 8), (3,), (3, 1), r"class_labels has shape \(3, 1\), expected \(3,\) like x"),
    ],
)
def test_bad_inputs(x, t, labels, message):
    with pytest.raises(ValueError, match=message):
        DiT(DiTConfig(**TINY))(
            torch.zeros(x), torch.zeros(t), torch.zeros(labels, dtype=torch.long)
        )
