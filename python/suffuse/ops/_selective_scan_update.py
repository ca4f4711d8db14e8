"""One step of the selective scan on a state that is kept between calls, as generation has it."""

from __future__ import annotations

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch op below)
from suffuse.ops._dispatch import has_kernel
from suffuse.ops._selective_scan_common import fits_cuda
from suffuse.reference import selective_scan as formula

_op = torch.ops.suffuse.selective_state_update.default
_NAMES = ("state", "x", "dt", "A", "B", "C", "D", "z", "dt_bias", "state_batch_indices")
_NEEDED = 6  # of them have no default


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """One step of `selective_scan` (Gu and Dao 2023, "Mamba", algorithm 2); `state` moves on in place.

    With dt' = dt + dt_bias, through softplus if `dt_softplus`::

        state <- exp(dt' A) state + dt' B x
        out = (C state + D x) silu(z)

    With heads, as Mamba-2 has them, D stands for H heads of P places each. Tensors may be expanded:
    an A, dt or D that all places of a head share is read as it is.

    Gradients flow to all but the state, through the plain PyTorch formula, which is slower: call it
    under ``torch.no_grad()`` to generate. The state is data.

    Args:
        state: [B, D, N] or [B, H, P, N], or with state_batch_indices as many slots as one likes in
            place of B; N adjacent in memory. float32, bfloat16 or float16 (float64 for a float64 x).
            Updated in place.
        x: input [B, D] or [B, H, P]; float64, float32, bfloat16 or float16.
        dt: step sizes in x's shape. Where x, dt, B, C and z differ in dtype, all are computed in
            the one that holds them all.
        A: decay rates [D, N] or [H, P, N], usually negative, of any real dtype.
        B, C: [B, N] or [B, G, N], shared by the D / G channels or H / G heads of a group.
        D: weight of the skip connection [D] or [H, P], or None.
        z: gate in x's shape, or None.
        dt_bias: [D] or [H, P], or None.
        dt_softplus: whether dt + dt_bias goes through softplus.
        state_batch_indices: int32 [B], which slot of the state a batch entry has, no slot twice;
            negative: padding, of which out is 0 and that touches no state. None: its own. An index
            beyond the slots is an error on the CPU and undefined on CUDA, where values are not
            looked at.

    Returns:
        out in x's shape and dtype.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a state that needs a gradient.
        RuntimeError: shapes, dtypes, devices, layouts or indices do not fit.
    """
    given = (state, x, dt, A, B, C, D, z, dt_bias, state_batch_indices)
    for i, (name, value) in enumerate(zip(_NAMES, given, strict=True)):
        if not isinstance(value, Tensor) and (value is not None or i < _NEEDED):
            got = type(value).__name__
            raise TypeError(f"selective_state_update: {name}: expected a tensor, got {got}")
    gradient = torch.is_grad_enabled()
    if gradient and state.requires_grad:
        raise ValueError(
            "selective_state_update: state: expected a tensor without gradient, got one that needs it"
        )
    rows = [x, dt, B, C, *([z] if z is not None else [])]
    common = x.dtype
    for row in rows:
        common = common if row.dtype == common else torch.promote_types(common, row.dtype)
    wide = torch.float64 if common == torch.float64 else torch.float32
    operands = (
        state, *(v.to(common) for v in (x, dt)), A.to(wide), *(v.to(common) for v in (B, C)),
        D if D is None else D.to(wide), z if z is None else z.to(common),
        dt_bias if dt_bias is None else dt_bias.to(wide), dt_softplus, state_batch_indices,
    )  # fmt: skip
    needs = gradient and any(isinstance(v, Tensor) and v.requires_grad for v in operands)
    if needs or not has_kernel("selective_state_update", x, fits_cuda(common)):
        return formula.selective_state_update_fwd(*operands).to(x.dtype)  # type: ignore[arg-type]
    return _op(*operands).to(x.dtype)


@torch.library.register_fake("suffuse::selective_state_update")
def _fake(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    z: Tensor | None, dt_bias: Tensor | None, dt_softplus: bool,
    state_batch_indices: Tensor | None,
) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape)
