"""Rotary position embedding: pairs of columns are rotated by angles that grow with the position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.ops._dispatch import has_kernel, needs_gradient, refuse_forward_mode
from suffuse.reference import rotary as formula

_op = torch.ops.suffuse.rotary.default
_op_in_place = torch.ops.suffuse.rotary_.default


def rotary(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    offsets: int | Tensor | None = None,
    inverse: bool = False,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Rotary position embedding (Su et al. 2021, "RoFormer", equation 34).

    ::

        (x_i, x_j) <- (x_i cos - x_j sin, x_j cos + x_i sin)

    for the pairs of the first R columns of each head; the others are copied. Computed in float32
    (float64 for a float64 x) and rounded once. Bitwise the same for any number of threads;
    differentiable any number of times, in x, cos and sin (those of the tables take plain PyTorch).

    Args:
        x: [B, T, H, D], or [1, total, H, D] with cu_seqlens; float64, float32, bfloat16 or float16,
            any strides with adjacent columns (others are copied).
        cos, sin: tables [S, R/2] that all share, or [B, S, R/2]; the row is the token's position. x's
            dtype or float32. R <= D is the number of columns that are rotated.
        interleaved: False: column i goes with i + R/2 (GPT-NeoX, Llama); True: column 2 i with
            2 i + 1 (GPT-J, RoFormer).
        offsets: position of the first token, an int or int32 [B] ([N] with cu_seqlens); None is 0.
        inverse: rotate by the negative angles, which is also the gradient.
        cu_seqlens: int32 [N + 1], where the N packed sequences begin, and the total: positions start
            again with each. None: no packing.

    Returns:
        out [B, T, H, D] in x's dtype, contiguous.

    Raises:
        TypeError: an argument is not a tensor; offsets is neither int nor tensor.
        RuntimeError: shapes, dtypes or devices do not fit; a position beyond the tables. On CUDA the
            values of offsets and cu_seqlens are not looked at: what a token without a row in the
            tables gets there is NaN.
        NotImplementedError: forward-mode differentiation.
    """
    operands = _operands("rotary", x, cos, sin, offsets, cu_seqlens)
    if not has_kernel("rotary", x):
        return formula.rotary_fwd(*operands, interleaved, inverse)
    if needs_gradient(x, cos, sin):
        return _Rotary.apply(*operands, interleaved, inverse)
    refuse_forward_mode("rotary", x, cos, sin)
    return _op(*operands, interleaved, inverse)


def rotary_(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    offsets: int | Tensor | None = None,
    inverse: bool = False,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """`rotary` that writes x, as caches of keys want it; without gradients.

    Args:
        x: [B, T, H, D] or [1, total, H, D] as in `rotary`; the columns are adjacent in memory and no
            two elements share a place.
        cos, sin, interleaved, offsets, inverse, cu_seqlens: as in `rotary`.

    Returns:
        x.

    Raises:
        TypeError: an argument is not a tensor; offsets is neither int nor tensor.
        ValueError: x, cos or sin needs a gradient.
        RuntimeError: shapes, dtypes, devices, layouts or positions do not fit.
    """
    operands = _operands("rotary_", x, cos, sin, offsets, cu_seqlens)
    for name, tensor in (("x", x), ("cos", cos), ("sin", sin)):
        if needs_gradient(tensor):
            raise ValueError(
                f"rotary_: {name}: expected a tensor without gradient, got one that needs it; "
                "rotary has gradients"
            )
    refuse_forward_mode("rotary", x, cos, sin)
    if has_kernel("rotary_", x):
        _op_in_place(*operands, interleaved, inverse)
        return x
    return x.copy_(formula.rotary_fwd(*operands, interleaved, inverse))


Operands = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, int]


def _operands(
    op: str, x: Tensor, cos: Tensor, sin: Tensor, offsets: int | Tensor | None,
    cu_seqlens: Tensor | None,
) -> Operands:  # fmt: skip
    """As the torch ops take them: x, cos, sin, offsets, cu_seqlens, offset."""
    named = {"x": x, "cos": cos, "sin": sin, "cu_seqlens": cu_seqlens}
    for name, value in named.items():
        if not isinstance(value, Tensor) and (value is not None or name != "cu_seqlens"):
            got = type(value).__name__
            raise TypeError(f"{op}: {name}: expected a tensor, got {got}")
    if x.dtype == torch.float64:  # the only dtype whose float32 tables have no kernel of their own
        cos, sin = (t.double() if t.dtype == torch.float32 else t for t in (cos, sin))
    if offsets is None or isinstance(offsets, Tensor):
        return x, cos, sin, offsets, cu_seqlens, 0
    if isinstance(offsets, (int, torch.SymInt)) and not isinstance(offsets, bool):
        return x, cos, sin, None, cu_seqlens, offsets
    raise TypeError(f"{op}: offsets: expected an int or a tensor, got {type(offsets).__name__}")


class _Rotary(torch.autograd.Function):
    """The rotation. Its transpose is the rotation by the negative angles."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, cos: Tensor, sin: Tensor, offsets: Tensor | None, cu_seqlens: Tensor | None,
        offset: int, interleaved: bool, inverse: bool,
    ) -> Tensor:  # fmt: skip
        return _op(x, cos, sin, offsets, cu_seqlens, offset, interleaved, inverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, cos, sin, offsets, cu_seqlens, *ctx.options = inputs
        wanted = ctx.needs_input_grad
        ctx.save_for_backward(x if wanted[1] or wanted[2] else None, cos, sin, offsets, cu_seqlens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, cos, sin, offsets, cu_seqlens = ctx.saved_tensors
        offset, interleaved, inverse = ctx.options
        grad_x = grad_cos = grad_sin = None
        if ctx.needs_input_grad[0]:
            grad_x = _Rotary.apply(
                grad, cos, sin, offsets, cu_seqlens, offset, interleaved, not inverse
            )
        if x is not None:
            grad_cos, grad_sin = formula.table_gradients(
                grad, x, cos, offsets, cu_seqlens, offset, interleaved, inverse
            )
        wanted = ctx.needs_input_grad
        return (
            *(grad_x, grad_cos if wanted[1] else None, grad_sin if wanted[2] else None),
            *(None,) * 5,
        )


@torch.library.register_fake("suffuse::rotary")
def _fake(
    x: Tensor, cos: Tensor, sin: Tensor, offsets: Tensor | None, cu_seqlens: Tensor | None,
    offset: int, interleaved: bool, inverse: bool,
) -> Tensor:  # fmt: skip
    _check_devices("rotary", x, cos=cos, sin=sin, offsets=offsets, cu_seqlens=cu_seqlens)
    return x.new_empty(x.shape)


@torch.library.register_fake("suffuse::rotary_")
def _in_place_fake(
    x: Tensor, cos: Tensor, sin: Tensor, offsets: Tensor | None, cu_seqlens: Tensor | None,
    offset: int, interleaved: bool, inverse: bool,
) -> None:  # fmt: skip
    _check_devices("rotary_", x, cos=cos, sin=sin, offsets=offsets, cu_seqlens=cu_seqlens)


def _check_devices(op: str, x: Tensor, **others: Tensor | None) -> None:
    for name, t in others.items():
        if t is not None and t.device != x.device:
            raise RuntimeError(f"{op}: {name}: expected device {x.device} like x, got {t.device}")
