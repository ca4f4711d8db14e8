"""What the tests of attention's features share: a case of any features, and the error rule on every result of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from attention_inputs import FLOOR
from hypothesis import strategies as st
from torch import Tensor

from suffuse import ops
from suffuse.reference.attention import attention as reference
from suffuse.testing import assert_close_to_reference


@dataclass(repr=False)
class FeatureCase:
    """q, k, v and the options of a call; `variables` names the options that need a gradient."""

    q: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    variables: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return ("out", "lse", "grad_q", "grad_k", "grad_v", *(f"grad_{n}" for n in self.variables))

    def __repr__(self) -> str:
        shapes = [tuple(x.shape) for x in (self.q, self.k, self.v)]
        options = {
            name: (tuple(x.shape), x.dtype) if isinstance(x, Tensor) and x.dim() > 1 else x
            for name, x in self.options.items()
        }
        return f"FeatureCase({self.q.dtype}, {shapes}, {options}, {self.variables})"

    def in_double(self) -> FeatureCase:
        q, k, v = self.q.double(), self.k.double(), self.v.double()
        options = {name: _double(x) for name, x in self.options.items()}
        return FeatureCase(q, k, v, options, self.variables)


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def run(function: Any, case: FeatureCase, seed: int = 1) -> list[Tensor]:
    """out, lse and all gradients, for cotangents of both that depend on the seed and shapes alone."""
    leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
    options = dict(case.options)
    for name in case.variables:
        options[name] = options[name].detach().requires_grad_()
        leaves.append(options[name])
    out, lse = function(*leaves[:3], **options, return_lse=True)
    generator = torch.Generator().manual_seed(seed)
    grads = [
        torch.randn(x.shape, generator=generator, dtype=torch.float64).to(case.q.dtype).to(x.dtype)
        for x in (out, lse)
    ]
    gradients = torch.autograd.grad((out, lse), leaves, grads, allow_unused=True)
    gradients = [
        torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True)
    ]
    return [out.detach(), lse.detach(), *gradients]


def check(case: FeatureCase) -> None:
    """The error rule; the plain version is the formula in the inputs' dtype."""
    ours, plain = run(ops.attention, case), run(reference, case)
    exact = run(reference, case.in_double())
    for name, a, b, c in zip(case.names, ours, plain, exact, strict=True):
        floor = 4 * FLOOR[case.q.dtype]
        size = float(c[c.isfinite()].norm())
        if size > 0:
            floor *= max(1.0, _terms(case, name) / size / 16)
        assert_close_to_reference(a, b.to(a.dtype), c, floor, name)


def _terms(case: FeatureCase, name: str) -> float:
    """About the size of the terms dP and delta whose difference is the gradient of a score.

    The rows are those of q; a row that sees one key has a difference of 0, and both in full.
    """
    q, k, v = (x.double().norm(dim=-1) for x in (case.q, case.k, case.v))
    scale = case.q.shape[-1] ** -0.5
    factors = {
        "grad_q": scale * float(k.max()),
        "grad_k": scale * float(q.max()),
        "grad_bias": 1.0,
        "grad_sinks": 1.0,
    }
    rows = q.numel() ** 0.5
    return factors.get(name, 0.0) * rows * (2 * case.v.shape[-1] ** 0.5 * float(v.max()) + 1)


def lengths_to_offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


FEATURES = (
    "window",
    "causal",
    "softcap",
    "alibi",
    "bias",
    "mask",
    "sinks",
    "dropout",
    "packed",
    "used",
)


def make(
    features: tuple[str, ...], dtype: torch.dtype, *, B: int = 2, T: int = 70, S: int = 110, H: int = 4, G: int = 2,
    D: int = 20, Dv: int = 12, seed: int = 0,
) -> FeatureCase:  # fmt: skip
    """A case with these of FEATURES."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64).to(dtype)

    def length(most: int) -> int:
        return int(torch.randint(0, most + 1, (), generator=generator))

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    options: dict[str, Any] = {}
    variables: list[str] = []
    q_shape, k_shape = (B, T, H), (B, S, G)
    lengths_q, lengths_k = [T] * B, [S] * B
    if "packed" in features:
        lengths_q, lengths_k = [length(T) for _ in range(B)], [length(S) for _ in range(B)]
        options |= {
            "cu_seqlens_q": lengths_to_offsets(lengths_q),
            "cu_seqlens_k": lengths_to_offsets(lengths_k),
        }
        q_shape, k_shape = (1, sum(lengths_q) + 3, H), (1, sum(lengths_k) + 2, G)
    if "used" in features:
        options["seqused_q"] = torch.tensor([length(n) for n in lengths_q], dtype=torch.int32)
        options["seqused_k"] = torch.tensor([length(n) for n in lengths_k], dtype=torch.int32)
    if "window" in features:
        options["window"] = (29, 11)
    if "causal" in features:
        options["causal"] = "bottom_right"
    if "softcap" in features:
        options["softcap"] = 1.5
    if "alibi" in features:
        options["alibi_slopes"] = normal(B, H, dtype=wide).abs() / 8
    if "mask" in features:
        options["bias"] = normal(B, 1, T, S) > -1
    elif "bias" in features and "packed" not in features:
        options["bias"] = normal(1, H, T, S)
        variables.append("bias")
    if "sinks" in features:
        options["sinks"] = normal(H, dtype=wide)
        variables.append("sinks")
    if "dropout" in features:
        options |= {"dropout": 0.2, "seed": 2**40 + 17}
    if "packed" in features:
        options.pop("bias", None)
    q, k, v = normal(*q_shape, D), normal(*k_shape, D), normal(*k_shape, Dv)
    return FeatureCase(q, k, v, options, tuple(variables))


@st.composite
def any_case(draw: Any, dtypes: tuple[torch.dtype, ...], most: int = 150) -> FeatureCase:
    """Any features together, of any shape, broadcast and layout."""
    G = draw(st.integers(1, 2))
    H = G * draw(st.integers(1, 3))
    B, T, S = draw(st.integers(1, 3)), draw(st.integers(1, most)), draw(st.integers(1, most))
    dtype = draw(st.sampled_from(dtypes))
    features = tuple(f for f in FEATURES if f not in ("bias", "mask") and draw(st.booleans()))
    case = make(
        features, dtype, B=B, T=T, S=S, H=H, G=G, D=draw(st.integers(1, 40)), Dv=draw(st.integers(1, 40)),
        seed=draw(st.integers(0, 99)),
    )  # fmt: skip
    side = st.sampled_from([None, 0, 3, 40])
    if "window" in features:
        case.options["window"] = (draw(side), draw(side))
    if "causal" in features:
        case.options["causal"] = draw(st.sampled_from(["top_left", "bottom_right"]))
    if "softcap" in features:
        case.options["softcap"] = draw(st.sampled_from([0.5, 4.0, 30.0]))
    kind = draw(st.sampled_from(["none", "mask", "same", "wide"]))
    if kind != "none" and "packed" not in features:
        _draw_bias(draw, case, kind, (B, H, T, S))
    return case


def _draw_bias(draw: Any, case: FeatureCase, kind: str, full: tuple[int, ...]) -> None:
    shape = [n if draw(st.booleans()) else 1 for n in full]
    wide = torch.float64 if case.q.dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(7)
    bias = torch.randn(shape, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):  # queries adjacent in memory, not keys
        bias = bias.mT.contiguous().mT
    if kind == "mask":
        case.options["bias"] = bias > -0.8
        return
    if draw(st.booleans()):
        bias = bias.masked_fill(bias < -1, -torch.inf)
    case.options["bias"] = bias.to(wide if kind == "wide" else case.q.dtype)
    case.variables = (*case.variables, "bias")
