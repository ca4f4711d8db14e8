"""The causal long convolution of the S4 family, by FFT."""

from __future__ import annotations

import torch
from torch import Tensor


def fft_conv(u: Tensor, k: Tensor, D: Tensor | None = None) -> Tensor:
    """Causal convolution with a kernel as long as the sequence: y_t = sum_{s <= t} k_s u_{t-s} + D u_t.

    Three FFTs of torch of the length of u and k together; O(L) memory, gradients by autograd.

    Args:
        u: [..., L], any floating-point or complex dtype; half precision is computed in float32.
        k: [..., K], of u's precision or float32; leading dimensions broadcast against u's, as
            [H, K] against [B, H, L]. What lies behind L is not used.
        D: the skip connection, real [...] such as [H], broadcast against the leading dimensions; or None.

    Returns:
        y [..., L], in u's dtype (complex if k is).

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: shapes do not broadcast, or a dimension is missing.
    """
    for name, value in (("u", u), ("k", k), ("D", D)):
        if not isinstance(value, Tensor) and (value is not None or name != "D"):
            raise TypeError(f"fft_conv: {name}: expected a tensor, got {type(value).__name__}")
    for name, value in (("u", u), ("k", k)):
        if value.dim() == 0:
            raise RuntimeError(f"fft_conv: {name}: expected shape [..., L], got ()")
    length, dtype = u.shape[-1], u.dtype
    if length == 0:
        return u.clone()
    if dtype in (torch.bfloat16, torch.float16):
        u = u.float()
    wide = torch.promote_types(u.dtype, torch.float32)
    k = k[..., :length].to(torch.promote_types(k.dtype, wide))
    size = length + k.shape[-1]
    if u.is_complex() or k.is_complex():
        y = torch.fft.ifft(torch.fft.fft(u, n=size) * torch.fft.fft(k, n=size), n=size)
    else:
        y = torch.fft.irfft(torch.fft.rfft(u, n=size) * torch.fft.rfft(k, n=size), n=size)
    y = y[..., :length]
    if D is not None:
        y = y + D[..., None] * u
    return y if y.is_complex() else y.to(dtype)
