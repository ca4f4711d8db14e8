"""diffusers' attention dispatcher on suffuse's kernels: the backend "suffuse", and "native" in its place.

Models that call `F.scaled_dot_product_attention` themselves (UNets) are caught by ``enable("sdpa")`` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suffuse.ops import attention

Change = tuple[str, Callable[[], None]]
NAME = "suffuse"


def replace_native() -> list[Change]:
    """Registers the backend "suffuse", and the same function as "native", which models use unless told otherwise."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    return [_add_backend(AttentionBackendName), _put(AttentionBackendName.NATIVE)]


def _add_backend(names: Any) -> Change:
    """An Enum takes no new members, so this one is made by hand as `Enum` would."""
    member = str.__new__(names, NAME)
    member._name_, member._value_ = NAME.upper(), NAME
    names._member_map_[member._name_] = member
    names._value2member_map_[NAME] = member
    names._member_names_.append(member._name_)
    _, restore = _put(member)

    def undo() -> None:
        restore()
        names._member_names_.remove(member._name_)
        del names._member_map_[member._name_], names._value2member_map_[NAME]

    return f"diffusers attention backend {NAME!r}", undo


def _put(backend: Any) -> Change:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as registry

    tables = (registry._backends, registry._constraints, registry._supported_arg_names)
    before = [table.get(backend) for table in tables]
    parallel = backend.value in registry._supports_context_parallel
    function = _with_fallback(before[0]) if before[0] is not None else attention_backend
    registry.register(backend)(function)

    def undo() -> None:
        if registry._backends.get(backend) is not function:
            return  # somebody else's since
        for table, value in zip(tables, before, strict=True):
            if value is None:
                del table[backend]
            else:
                table[backend] = value
        if parallel:
            registry._supports_context_parallel.add(backend.value)

    return f"diffusers attention backend {backend.value!r}", undo


def _with_fallback(native: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Context parallelism stays diffusers' own."""

    def suffuse_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        return_lse: bool = False,
        _parallel_config: Any = None,
    ) -> Any:
        given = (
            query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, return_lse,
        )  # fmt: skip
        if _parallel_config is not None:
            return native(*given, _parallel_config)
        return attention_backend(*given)

    return suffuse_attention


def attention_backend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
) -> Any:
    """Attention of [B, T, H, D] tensors as diffusers' dispatcher calls it.

    Args:
        attn_mask: [B, S], or broadcastable to [B, H, T, S]; bool (True is kept) or floats that are added.
        is_causal: from the top left.
        enable_gqa: fewer key than query heads are accepted in either case.
        return_lse: also return the log-sum-exp [B, T, H].
    """
    if attn_mask is not None and attn_mask.dim() == 2 and attn_mask.shape == key.shape[:2]:
        attn_mask = attn_mask[:, None, None, :]
    while attn_mask is not None and attn_mask.dim() < 4:
        attn_mask = attn_mask.unsqueeze(0)
    result = attention(
        query,
        key,
        value,
        causal="top_left" if is_causal else False,
        scale=scale,
        bias=attn_mask,
        dropout=dropout_p,
        return_lse=return_lse,
    )
    if isinstance(result, torch.Tensor):
        return result
    out, lse = result
    return out, lse.transpose(1, 2)
