"""PyTorch's scaled_dot_product_attention on suffuse's CPU kernels, for code that is not to be changed.

`F.scaled_dot_product_attention` picks an implementation and calls that as a torch op. Here the op of the CPU's fused
implementation, and that of its gradients, get other kernels. So everything that ends there is caught, with and without
torch.compile: nn.MultiheadAttention, timm, diffusers, transformers' "sdpa". What PyTorch sends elsewhere stays its own:
dropout, Dv != D, a mask that needs a gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)
from suffuse.compat import _sdpa_cuda

Change = tuple[str, Callable[[], None]]

_FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
_BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"


def apply(*targets: Any) -> list[Change]:
    """Replaces the two ops; nn.MultiheadAttention's fast path, which has an attention of its own, is switched off.

    On CUDA it only makes the name "suffuse" known to `torch.nn.attention`, where the user activates it.
    """
    if targets:
        raise TypeError(f"enable: sdpa: expected no targets, got {len(targets)}")
    _sdpa_cuda.register()
    return [_override(), _leave_fast_path()]


def _override() -> Change:
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is overridden is the purpose
        library.impl(_FORWARD, forward, "CPU", allow_override=True)
        library.impl(_BACKWARD, backward, "CPU", allow_override=True)
    return "scaled_dot_product_attention on CPU: forward and backward", library._destroy


def _leave_fast_path() -> Change:
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)

    def undo() -> None:
        torch.backends.mha.set_fastpath_enabled(was)

    return "nn.MultiheadAttention's fast path: off", undo


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """aten::_scaled_dot_product_flash_attention_for_cpu: tensors [B, H, T, D], a causal mask from the top left.

    Runs below autograd, hence the torch ops and not the public function. The results have the memory layout of
    PyTorch's own: compiled code and callers' views rely on it.
    """
    out, lse = _attend(_arguments(query, key, value, is_causal, attn_mask, scale))
    like_query = torch.empty_like(query)
    out = out.transpose(1, 2)
    if out.stride() != like_query.stride():
        out = like_query.copy_(out)
    return out, lse.transpose(1, 2).contiguous().transpose(1, 2)


def backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """aten::_scaled_dot_product_flash_attention_for_cpu_backward."""
    rows = (grad_out.transpose(1, 2), None)
    results = (out.transpose(1, 2), logsumexp)
    q, k, v, scale, causal, mask = _arguments(query, key, value, is_causal, attn_mask, scale)
    if mask is None:
        grads = torch.ops.suffuse.attention_bwd(*rows, q, k, v, *results, scale, causal)
    else:
        rest = _general(scale, causal, mask)
        grads = torch.ops.suffuse.attention_general_bwd(*rows, q, k, v, *results, *rest, False)
    return tuple(x.transpose(1, 2) for x in grads[:3])  # type: ignore[return-value]


Arguments = tuple[Tensor, Tensor, Tensor, float, int, "Tensor | None"]


def _arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
) -> Arguments:
    if attn_mask is not None and attn_mask.dim() == 2:
        attn_mask = attn_mask[None, None]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return q, k, v, scale, 1 if is_causal else 0, attn_mask


def _general(scale: float, causal: int, mask: Tensor) -> tuple[Any, ...]:
    """The arguments of attention_general_fwd from scale on."""
    right = 0 if causal else -1
    return (scale, -1, right, True, 0.0, mask, None, None, 0.0, None, *(None,) * 6)


def _attend(arguments: Arguments) -> tuple[Tensor, Tensor]:
    q, k, v, scale, causal, mask = arguments
    if mask is None:
        return torch.ops.suffuse.attention_fwd(q, k, v, scale, causal)
    return torch.ops.suffuse.attention_general_fwd(q, k, v, *_general(scale, causal, mask))
