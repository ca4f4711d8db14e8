"""attention in torch's machinery: gradients of gradients, transforms, compilation, fakes, autocast, repeatability."""

from __future__ import annotations

import warnings

import pytest
import torch
from attention_inputs import CAUSAL, DTYPES, Shape, make
from torch.autograd import forward_ad

from suffuse import ops
from suffuse.ops import _dispatch, attention
from suffuse.reference.attention import attention as reference
from suffuse.testing import cpu_isas, use_isa, use_threads

TINY = [Shape(1, 3, 4, 2, 1, 2, 3), Shape(2, 5, 3, 2, 2, 3, 2)]


def leaves(shape, dtype=torch.float64):
    return [x.requires_grad_() for x in make(shape, dtype)]


def both(q, k, v, **options):
    return attention(q, k, v, return_lse=True, **options)


def finite_lse(causal):
    """out and lse, the lse of empty rows (-inf, which numerical differences cannot take) as 0."""

    def run(q, k, v):
        out, lse = both(q, k, v, causal=causal)
        return out, lse.masked_fill(lse == -torch.inf, 0)

    return run


@pytest.mark.parametrize("causal", CAUSAL)
@pytest.mark.parametrize("shape", TINY, ids=str)
def test_gradcheck(shape, causal):
    assert torch.autograd.gradcheck(finite_lse(causal), leaves(shape))


@pytest.mark.parametrize("causal", CAUSAL)
@pytest.mark.parametrize("shape", TINY, ids=str)
def test_gradgradcheck(shape, causal):
    assert torch.autograd.gradgradcheck(finite_lse(causal), leaves(shape))
    assert torch.autograd.gradgradcheck(lambda *x: attention(*x, causal=causal), leaves(shape))


@pytest.mark.parametrize("pick", [0, 1])
def test_gradient_of_one_result_alone(pick):
    inputs = leaves(Shape(2, 6, 9, 4, 2, 5, 3))
    ours = torch.autograd.grad(both(*inputs)[pick].square().sum(), inputs, allow_unused=True)
    exact = torch.autograd.grad(
        reference(*inputs, return_lse=True)[pick].square().sum(), inputs, allow_unused=True
    )
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b)


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_gradient_of_one_input_alone(needed):
    tensors = make(Shape(2, 6, 9, 4, 2, 5, 3), torch.float64)
    tensors[needed].requires_grad_()
    (ours,) = torch.autograd.grad(attention(*tensors).square().sum(), tensors[needed])
    (exact,) = torch.autograd.grad(reference(*tensors).square().sum(), tensors[needed])
    torch.testing.assert_close(ours, exact)


def test_no_graph_without_need():
    tensors = make(TINY[0], torch.float32)
    assert attention(*tensors).grad_fn is None
    tensors[0].requires_grad_()
    assert attention(*tensors).grad_fn is not None
    with torch.no_grad():
        assert attention(*tensors).grad_fn is None


SAMPLES = [(Shape(2, 5, 7, 4, 2, 8, 6), dtype, code) for dtype in DTYPES for code in (0, 1, 2)] + [
    (Shape(1, 0, 3, 2, 1, 4, 4), torch.float32, 0),
    (Shape(1, 3, 0, 2, 1, 4, 4), torch.float32, 2),
]


@pytest.mark.filterwarnings("ignore:.*no autograd.*")
@pytest.mark.parametrize(("shape", "dtype", "code"), SAMPLES, ids=str)
def test_opcheck(shape, dtype, code):
    q, k, v = make(shape, dtype)
    strided = q.transpose(1, 2).contiguous().transpose(1, 2)
    for x in (q, strided):
        torch.library.opcheck(torch.ops.suffuse.attention_fwd, (x, k, v, 0.5, code))
        out, lse = torch.ops.suffuse.attention_fwd(x, k, v, 0.5, code)
        for grad_lse in (None, torch.randn_like(lse)):
            arguments = (torch.randn_like(out), grad_lse, x, k, v, out, lse, 0.5, code)
            torch.library.opcheck(torch.ops.suffuse.attention_bwd, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_fullgraph_with_backward(dynamic):
    def step(q, k, v):
        out, lse = attention(q * 2, k, v, causal="bottom_right", return_lse=True)
        return out.square().sum() + lse.sum()

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for T, S in ((9, 17), (11, 23)) if dynamic else ((9, 17),):
        inputs = leaves(Shape(2, T, S, 4, 2, 8, 6), torch.float32)
        ours, eager = compiled(*inputs), step(*inputs)
        torch.testing.assert_close(ours, eager)
        for a, b in zip(
            torch.autograd.grad(ours, inputs), torch.autograd.grad(eager, inputs), strict=True
        ):
            torch.testing.assert_close(a, b)


def test_inductor():
    torch._dynamo.reset()
    q, k, v = leaves(Shape(1, 9, 9, 2, 2, 8, 8), torch.float32)
    compiled = torch.compile(
        lambda q, k, v: attention(q + 1, k, v, causal=True).sin(), fullgraph=True
    )
    out, eager = compiled(q, k, v), attention(q + 1, k, v, causal=True).sin()
    torch.testing.assert_close(out, eager)
    torch.testing.assert_close(
        torch.autograd.grad(out.sum(), q), torch.autograd.grad(eager.sum(), q)
    )


def test_vmap_of_forward_and_gradient():
    q = torch.randn(3, 2, 5, 4, 8, dtype=torch.float64)
    k, v = (
        torch.randn(2, 7, 2, 3, 8, dtype=torch.float64),
        torch.randn(2, 7, 2, 6, dtype=torch.float64),
    )

    def loss(q, k, v):
        out, lse = both(q, k, v)
        return out.square().sum() + lse.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a slow fallback would warn
        out = torch.vmap(attention, in_dims=(0, 3, None))(q, k, v)
        grads = torch.vmap(torch.func.grad(loss, (0, 1, 2)), in_dims=(0, 3, None))(q, k, v)
    for i in range(3):
        one = [q[i], k[:, :, :, i], v]
        torch.testing.assert_close(out[i], attention(*one))
        for a, b in zip(grads, torch.func.grad(loss, (0, 1, 2))(*one), strict=True):
            torch.testing.assert_close(a[i], b)


def test_func_grad_and_hessian_vector_product():
    inputs = make(Shape(1, 4, 5, 2, 1, 3, 2), torch.float64)
    direction = torch.randn_like(inputs[0])

    def gradient(function):
        return lambda q: torch.func.grad(lambda x: function(x, *inputs[1:]).pow(3).sum())(q)

    torch.testing.assert_close(gradient(attention)(inputs[0]), gradient(reference)(inputs[0]))
    products = [
        torch.func.vjp(gradient(f), inputs[0])[1](direction)[0] for f in (attention, reference)
    ]
    torch.testing.assert_close(*products)


def test_forward_mode_says_that_it_does_not_work():
    q, k, v = make(TINY[0], torch.float64)
    for needs_grad in (False, True):
        with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"(?i)forward"):
            dual = forward_ad.make_dual(q.detach().requires_grad_(needs_grad), torch.ones_like(q))
            attention(dual, k, v)
    with forward_ad.dual_level():
        assert torch.equal(attention(q, k, v), attention(q, k, v))


def test_autocast_casts_like_torch():
    q, k, v = leaves(Shape(1, 6, 6, 2, 2, 8, 8), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q, k, v.bfloat16())
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, attention(q.bfloat16(), k.bfloat16(), v.bfloat16()))
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(out.sum(), (q, k, v)))
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(q.double(), k.double(), v.double()).dtype == torch.float64


@pytest.mark.parametrize("isa", cpu_isas())
@pytest.mark.parametrize("causal", CAUSAL)
@pytest.mark.parametrize(
    "shape",
    [Shape(1, 700, 500, 2, 1, 16, 16), Shape(3, 70, 90, 4, 2, 24, 8), Shape(1, 1, 300, 3, 1, 8, 8)],
    ids=str,
)
def test_same_bits_for_any_number_of_threads(shape, causal, isa):
    def run(threads):
        with use_threads(threads):
            inputs = leaves(shape, torch.float32)
            out, lse = both(*inputs, causal=causal)
            grads = torch.autograd.grad(out.pow(2).sum() + lse.exp().sum(), inputs)
        return [out, lse, *grads]

    with use_isa(isa):
        first = run(1)
        for threads in (1, 2, 3):
            assert all(torch.equal(a, b) for a, b in zip(run(threads), first, strict=True))


def test_device_without_a_kernel_takes_the_reference(monkeypatch):
    monkeypatch.setattr(_dispatch, "_library", type("None", (), {"LOADED": []}))
    monkeypatch.setattr(_dispatch, "_warned", set())
    inputs = leaves(Shape(1, 5, 6, 2, 1, 4, 3), torch.float32)

    class Elsewhere(torch.Tensor):
        is_cpu = False

    q = inputs[0].as_subclass(Elsewhere)
    with pytest.warns(UserWarning, match="attention: no kernel for device 'cpu'"):
        out = attention(q, *inputs[1:], causal="bottom_right")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the warning comes once
        again, lse = both(q, *inputs[1:], causal="bottom_right")
    out, again = (x.as_subclass(torch.Tensor) for x in (out, again))
    assert torch.equal(out, again) and lse.shape == (1, 2, 5)
    torch.testing.assert_close(out, reference(*inputs, causal="bottom_right"))
    assert all(g is not None for g in torch.autograd.grad(out.sum(), inputs))


def test_meta_tensors():
    q, k, v = (x.to("meta") for x in make(Shape(2, 5, 7, 4, 2, 8, 6), torch.bfloat16))
    out, lse = ops.attention(q, k, v, return_lse=True)
    assert out.shape == (2, 5, 4, 6) and out.dtype == torch.bfloat16
    assert lse.shape == (2, 4, 5) and lse.dtype == torch.float32
