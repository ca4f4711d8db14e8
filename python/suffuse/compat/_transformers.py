"""transformers' attention on suffuse's kernels: the implementation "suffuse", and "sdpa" in its place.

An attention function of transformers takes queries, keys and values [B, H, T, D] and returns [B, T, H, D].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suffuse.ops import attention

Change = tuple[str, Callable[[], None]]
NAME = "suffuse"


def apply(*models: Any) -> list[Change]:
    """Registers "suffuse" and gives it to the models, or, without any, to everything that asks for "sdpa"."""
    from transformers import PreTrainedModel

    for model in models:
        if not isinstance(model, PreTrainedModel):
            kind = type(model).__name__
            raise TypeError(f"enable: transformers: expected a PreTrainedModel, got {kind}")
    changes = _register(NAME, with_mask=True)
    if not models:
        return changes + _register("sdpa", with_mask=False)
    return changes + [_switch(model) for model in models]


def _register(name: str, with_mask: bool) -> list[Change]:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    changes = [_put(AttentionInterface, name, attention_forward, "attention function")]
    if with_mask:
        mask = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
        changes.append(_put(AttentionMaskInterface, name, mask, "mask function"))
    return changes


def _put(interface: Any, name: str, function: Any, what: str) -> Change:
    before = interface._global_mapping.get(name)
    interface.register(name, function)

    def undo() -> None:
        if interface._global_mapping.get(name) is not function:
            return  # somebody else's since
        if before is None:
            del interface._global_mapping[name]
        else:
            interface.register(name, before)

    return f"transformers {what} {name!r}", undo


def _switch(model: Any) -> Change:
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)

    def undo() -> None:
        if model.config._attn_implementation == NAME:
            model.set_attn_implementation(before)

    return f"{type(model).__name__}: attention {NAME!r}", undo


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    cache: Any = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of one layer, as transformers calls it.

    Args:
        attention_mask: what the mask function "sdpa" makes: None, bool (True is kept) or floats that are added.
        position_bias: floats that are added (T5), with gradient.
        cache: a paged cache, which hands out the keys and values so far.
        softcap: as in Gemma 2; s_aux: the sinks [H] of gpt-oss.
        kwargs: what other implementations need: positions, lengths, the window (which is in the mask).

    Returns:
        out [B, T, H, D], and None for the weights, which are never in memory.
    """
    if kwargs.get("output_attentions", False):
        warnings.warn("suffuse attention has no weights to return; use 'eager'", stacklevel=2)
    if cache is not None and hasattr(cache, "update"):
        layer: Any = module
        key, value = cache.update(
            key_states=key, value_states=value, layer_idx=layer.layer_idx, kwargs=kwargs
        )
    T, S = query.shape[2], key.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and T > 1 and attention_mask is None
    if causal and S > T:  # a static cache that is being filled: its other places are empty
        key, value = key[:, :, :T], value[:, :, :T]
        position_bias = None if position_bias is None else position_bias[..., :T]
    out = attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        causal="top_left" if causal else False,
        scale=scaling,
        bias=_bias(attention_mask, position_bias, query.dtype),
        softcap=softcap or 0.0,
        sinks=s_aux,
        dropout=dropout,
    )
    return out, None


def _bias(mask: Tensor | None, position_bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if position_bias is None:
        return mask
    position_bias = position_bias.to(dtype)
    if mask is None:
        return position_bias
    if mask.dtype == torch.bool:
        return position_bias.masked_fill(~mask, -torch.inf)
    return position_bias + mask
