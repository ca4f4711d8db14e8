"""attention with everything that is rarer than a causal mask: autograd, fakes and vmap of the general torch ops.

The plain op keeps its own short schema: each argument of a torch op costs time at every call.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops._dispatch import needs_gradient
from suffuse.reference import attention as reference

_fwd = torch.ops.suffuse.attention_general_fwd.default
_bwd = torch.ops.suffuse.attention_general_bwd.default


class Call(NamedTuple):
    """The arguments of attention_general_fwd, in the order of its schema."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    left: int = -1
    right: int = -1
    top_left: bool = False
    softcap: float = 0.0
    bias: Tensor | None = None
    alibi_slopes: Tensor | None = None
    sinks: Tensor | None = None
    dropout: float = 0.0
    seed: Tensor | None = None
    cu_seqlens_q: Tensor | None = None
    cu_seqlens_k: Tensor | None = None
    seqused_q: Tensor | None = None
    seqused_k: Tensor | None = None
    max_seqlen_q: int | None = None
    max_seqlen_k: int | None = None
    tf32: bool = False


_TENSORS = (0, 1, 2, 8, 9, 10, 12, 13, 14, 15, 16)  # places of the tensors in a Call
_VARIABLES = (0, 1, 2, 8, 10)  # and of those that may have a gradient: q, k, v, bias, sinks


def run(call: Call) -> tuple[Tensor, Tensor]:
    """out and lse, with gradients where they are needed."""
    if needs_gradient(call.q, call.k, call.v, call.bias, call.sinks):
        function = _General if torch._C._are_functorch_transforms_active() else _EagerGeneral
        return function.apply(*call)
    return _fwd(*call)


def run_reference(call: Call) -> tuple[Tensor, Tensor]:
    return reference.attention_general_fwd(*call[:-1])


def _save(ctx: Any, tensors: tuple[Any, ...], call: tuple[Any, ...]) -> None:
    ctx.rest = [None if i in _TENSORS else x for i, x in enumerate(call)]
    ctx.save_for_backward(*tensors, *(call[i] for i in _TENSORS))


def _saved(ctx: Any) -> tuple[list[Any], Call]:
    """The tensors before those of the call, and the call."""
    saved = list(ctx.saved_tensors)
    values, first = list(ctx.rest), len(saved) - len(_TENSORS)
    for i, x in zip(_TENSORS, saved[first:], strict=True):
        values[i] = x
    return saved[:first], Call(*values)


class _General(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> tuple[Tensor, Tensor]:
        return _fwd(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _save(ctx, output, inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        (out, lse), call = _saved(ctx)
        grads: list[Any] = [None] * len(call)
        if grad_out is None and grad_lse is None:
            return tuple(grads)
        if grad_out is None:
            grad_out = torch.zeros_like(out)
        wanted = tuple(ctx.needs_input_grad[i] for i in _VARIABLES)
        given = (grad_out, grad_lse, out, lse, wanted[3], wanted[4], *call)
        twice = torch.is_grad_enabled() and any(
            isinstance(x, Tensor) and x.requires_grad for x in given
        )
        results = _GeneralBackward.apply(*given) if twice else _gradients(*given)
        for i, grad, need in zip(_VARIABLES, results, wanted, strict=True):
            grads[i] = grad if need else None
        return tuple(grads)


class _EagerGeneral(torch.autograd.Function):
    """The same outside of torch.func, where the split form would inspect its signature at every call."""

    @staticmethod
    def forward(ctx: Any, *call: Any) -> tuple[Tensor, Tensor]:
        output = _fwd(*call)
        _General.setup_context(ctx, call, output)
        return output

    backward = _General.backward


def _gradients(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    out: Tensor,
    lse: Tensor,
    bias_grad: bool,
    sinks_grad: bool,
    *call: Any,
) -> tuple[Tensor, ...]:
    """Of q, k, v, bias and sinks; the last two have no elements where they are not asked for."""
    grads = _bwd(
        grad_out, grad_lse, call[0], call[1], call[2], out, lse, *call[3:-1], bias_grad, call[-1]
    )
    return *grads, _sink_gradient(grad_out, grad_lse, out, lse, call[10], sinks_grad)


def _sink_gradient(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    out: Tensor,
    lse: Tensor,
    sinks: Tensor | None,
    wanted: bool,
) -> Tensor:
    """A sink's weight is exp(sink - lse) and its value 0, so that dP = 0 for it: dS = weight (dlse - rowsum(dO O))."""
    if sinks is None or not wanted:
        return lse.new_empty(0)
    inner = (grad_out.to(lse.dtype) * out.to(lse.dtype)).sum(-1).transpose(1, 2)
    if grad_lse is not None:
        inner = inner - grad_lse
    weight = (sinks.reshape(1, -1, 1) - lse).exp().masked_fill(lse == -torch.inf, 0)
    return -(weight * inner).sum((0, 2))


class _GeneralBackward(torch.autograd.Function):
    """The gradients. Their own backward pass differentiates the reference formula."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, ...]:
        return _gradients(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        grad_out, grad_lse, _, _, ctx.bias_grad, ctx.sinks_grad, *call = inputs
        _save(ctx, (grad_out, grad_lse), tuple(call))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        # out and lse are functions of the other inputs here, so that all of the derivative arrives at those.
        (grad_out, grad_lse), call = _saved(ctx)
        places = [0, 1, 2, *([8] if ctx.bias_grad else []), *([10] if ctx.sinks_grad else [])]
        primals = [grad_out, *([] if grad_lse is None else [grad_lse]), *(call[i] for i in places)]

        def gradients(*values: Any) -> tuple[Tensor, ...]:
            rest = values[1:] if grad_lse is None else values[2:]
            full: list[Any] = list(call)
            for i, x in zip(places, rest, strict=True):
                full[i] = x
            options = Call(*full)._asdict()
            del options["tf32"]  # the formula is torch's, which looks at the switch by itself
            return reference.attention_general_bwd(
                values[0],
                None if grad_lse is None else values[1],
                **options,
                differentiate_bias=ctx.bias_grad,
                differentiate_sinks=ctx.sinks_grad,
            )

        _, pull = torch.func.vjp(gradients, *primals)  # type: ignore[misc]
        wanted = {0: 0, 1: 1, 2: 2, 8: 3, 10: 4}
        results = list(pull(tuple(cotangents[wanted[i]] for i in places)))
        first = results.pop(0)
        second = None if grad_lse is None else results.pop(0)
        grads: list[Any] = [None] * len(call)
        for i, x in zip(places, results, strict=True):
            grads[i] = x
        return first, second, None, None, None, None, *grads


@torch.library.register_fake("suffuse::attention_general_fwd")
def _fwd_fake(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
    call = Call(*args, **named)
    B, T, H, _ = call.q.shape
    wide = torch.float64 if call.q.dtype == torch.float64 else torch.float32
    out = call.q.new_empty(B, T, H, call.v.shape[3])
    return out, call.q.new_empty(B, H, T, dtype=wide)


@torch.library.register_fake("suffuse::attention_general_bwd")
def _bwd_fake(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *rest: Any,
    **named: Any,
) -> tuple[Tensor, ...]:
    names = (*Call._fields[3:-1], "bias_grad", "tf32")
    given = {**dict(zip(names, rest, strict=False)), **named}
    bias_grad, bias = given["bias_grad"], given["bias"]
    grads = tuple(x.new_empty(x.shape) for x in (q, k, v))
    return *grads, bias.new_empty(bias.shape) if bias_grad and bias is not None else q.new_empty(0)


def _vmap(op: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """One call for each index of the mapped dimension: packed lengths, biases and sinks do not fold into the batch."""
    calls = [
        [x if dim is None else x.select(dim, i) for x, dim in zip(args, in_dims, strict=True)]
        for i in range(info.batch_size)
    ]
    results = tuple(
        torch.stack(parts) for parts in zip(*(op(*call) for call in calls), strict=True)
    )
    return results, (0,) * len(results)


@torch.library.register_vmap("suffuse::attention_general_fwd")
def _fwd_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    return _vmap(_fwd, info, in_dims, *args)


@torch.library.register_vmap("suffuse::attention_general_bwd")
def _bwd_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    return _vmap(_bwd, info, in_dims, *args)
