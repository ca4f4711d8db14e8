"""flash-attn 2 on suffuse's kernels, on CPU too: ``from suffuse.compat.flash_attn import flash_attn_func``.

Functions, `bert_padding` and `layers.rotary` have the signatures and semantics of the original (flash-attn 2.8);
``suffuse.compat.install(["flash_attn"])`` puts this package under the original's name.
"""

from suffuse.compat.flash_attn.flash_attn_interface import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
    flash_attn_with_kvcache,
)

__version__ = "2.8.3"  # of the interface

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]
