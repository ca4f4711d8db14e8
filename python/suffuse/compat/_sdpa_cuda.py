"""suffuse as a provider of PyTorch's flash attention on CUDA, through `torch.nn.attention`'s own registry.

``enable("sdpa")`` registers it under the name "suffuse" where PyTorch has that registry; the user activates it:
``torch.nn.attention.activate_flash_attention_impl("suffuse")``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the torch ops below)

NAME = "suffuse"


class Flash(NamedTuple):
    """The results of aten::_scaled_dot_product_flash_attention."""

    output: Tensor
    logsumexp: Tensor
    cum_seq_q: Tensor | None
    cum_seq_k: Tensor | None
    max_q: int
    max_k: int
    rng_state: Tensor
    unused: Tensor
    debug_attn_mask: Tensor


class Handle:
    """Keeps the overrides alive; `remove` takes them back."""

    def __init__(self) -> None:
        self.library: Any = torch.library.Library("aten", "IMPL", "CUDA")
        self.library.impl("_scaled_dot_product_flash_attention", forward, "CUDA")
        self.library.impl("_scaled_dot_product_flash_attention_backward", backward, "CUDA")

    def remove(self) -> None:
        if self.library is not None:
            self.library._destroy()
        self.library = None


def register() -> bool:
    """Makes the name known to PyTorch; False where this version has no registry."""
    add = getattr(torch.nn.attention, "register_flash_attention_impl", None)
    if add is None:
        return False
    add(NAME, register_fn=Handle)
    return True


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> Flash:
    """aten::_scaled_dot_product_flash_attention: tensors [B, H, T, D], a causal mask from the top left."""
    if return_debug_mask:
        raise NotImplementedError(
            "suffuse attention: return_debug_mask: expected False, got True; "
            "the probabilities are never held in memory"
        )
    state = torch.zeros(2, dtype=torch.int64, device=query.device)
    if dropout_p > 0:
        state[:1] = torch.randint(2**63 - 1, (1,), device=query.device)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    out, lse = torch.ops.suffuse.attention_general_fwd(
        q, k, v, *_options(query, dropout_p, is_causal, state, scale)
    )
    like_query = torch.empty_like(query).copy_(out.transpose(1, 2))
    none = torch.empty(0, dtype=query.dtype, device=query.device)
    lengths = (query.shape[2], key.shape[2])
    state, unused = state.view(torch.uint64), torch.zeros_like(state[0]).view(torch.uint64)
    return Flash(like_query, lse, None, None, *lengths, state, unused, none)


def backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    philox_seed: Tensor,
    philox_offset: Tensor,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """aten::_scaled_dot_product_flash_attention_backward."""
    rows = [x.transpose(1, 2) for x in (grad_out, query, key, value, out)]
    state = philox_seed.view(torch.int64)
    grads = torch.ops.suffuse.attention_general_bwd(
        rows[0], None, *rows[1:], logsumexp,
        *_options(query, dropout_p, is_causal, state, scale), False,
    )  # fmt: skip
    return grads[0].transpose(1, 2), grads[1].transpose(1, 2), grads[2].transpose(1, 2)


def _options(
    query: Tensor, dropout_p: float, is_causal: bool, state: Tensor, scale: float | None
) -> tuple[Any, ...]:
    """The arguments of attention_general_fwd from scale on."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    seed = state[:1] if dropout_p > 0 else None
    right = 0 if is_causal else -1
    return (scale, -1, right, True, 0.0, None, None, None, dropout_p, seed, *(None,) * 6)
