"""The convolution kernel of S4 and S4D, the products it is made of, and the convolution."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from suffuse.ops import _s4_kernel_common as product
from suffuse.ops._dispatch import refuse_forward_mode
from suffuse.ops._s4_kernel_convolution import fft_conv
from suffuse.ops._s4_kernel_system import check_system, diagonal_terms, low_rank_terms, truncated_C

__all__ = [
    "cauchy_mult", "fft_conv", "log_vandermonde", "log_vandermonde_transpose", "s4_kernel",
]  # fmt: skip


def s4_kernel(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    L: int,
    *,
    P: Tensor | None = None,
    discretization: str | None = None,
    truncation: int | None = None,
) -> Tensor:
    """The first L steps of the impulse response of a diagonal (S4D) or diagonal-plus-low-rank (S4) SSM.

    ::

        x'(t) = (diag(A) - P P*) x(t) + B u(t),   y(t) = 2 Re(C x(t)),   in steps of dt
        K_l = 2 Re(C Abar^l Bbar)

    to be convolved with inputs [B, H, L] by :func:`fft_conv`. A, B, C and P hold one of each pair of
    conjugates, N of a state of size 2 N. Diagonal: one Vandermonde product (Gu et al. 2022, "On the
    Parameterization and Initialization of Diagonal State Space Models", equation 8). With P: Cauchy
    products at the roots of unity, Woodbury's identity and an inverse FFT (Gu, Goel and Re 2022,
    "Efficiently Modeling Long Sequences with Structured State Spaces", algorithm 1). Memory O(H L).
    Bitwise repeatable for any number of threads; differentiable any number of times.

    Args:
        A: eigenvalues, complex64 or complex128 [H, N]; their real parts are negative in a stable
            system.
        B: A's dtype, [H, N] or what expands to it.
        C: A's dtype, [H, N], or [heads, H, N] for several outputs of one state.
        dt: the step, in the unit of time of A; real [H].
        L: number of steps.
        P: the low-rank part, A's dtype, [rank, H, N]; None: the system is diagonal.
        discretization: "zoh" (zero-order hold) or "bilinear"; None: "zoh" without P and "bilinear"
            with it, where there is no other.
        truncation: only with P: C is C (1 - Abar^truncation) already, which S4 learns in its place.
            Then L <= truncation costs no power of a dense matrix; otherwise one of size 2 N per
            channel is raised to a power, in O(H N^3 log L).

    Returns:
        K, real, in the shape of C with L for N: [H, L] or [heads, H, L].

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: another discretization, L below 0, or truncation below 1 or without P.
        RuntimeError: shapes, dtypes or devices do not fit.
        NotImplementedError: "zoh" with P; forward-mode differentiation.
    """
    A, B, C, P, method = check_system(A, B, C, dt, L, P, discretization, truncation)
    if P is None:
        return log_vandermonde(*diagonal_terms(A, B, C, dt, method), L)
    heads = C if C.dim() > A.dim() else C[None]
    size = L if truncation is None or truncation < L else truncation
    if size == 0:
        kernel = dt.new_zeros((*heads.shape[:-1], 0))
    else:
        if truncation != size:
            heads = truncated_C(A, P, heads, dt, truncation, size)
        terms = low_rank_terms(A, B, heads, dt, P, size)
        kernel = terms.kernel(cauchy_mult(terms.v, terms.z, terms.w))[..., :L]
    return kernel if C.dim() > A.dim() else kernel[0]


def log_vandermonde(v: Tensor, x: Tensor, L: int, *, conj: bool = True) -> Tensor:
    """Product with a Vandermonde matrix given by its logarithms: K_l = sum_n v_n exp(x_n l), l < L.

    The kernel of S4D (Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State
    Space Models", section 3.3). Phases x_n l are not rounded, so that the error does not grow with l
    as that of the plain formula does. O(N + L) memory; bitwise repeatable for any number of threads;
    differentiable any number of times.

    Args:
        v: complex64 or complex128 [..., N].
        x: v's dtype, [..., N]; leading dimensions broadcast against v's.
        L: number of results.
        conj: v and x stand for themselves and their conjugates: the sum is 2 Re(K).

    Returns:
        [..., L], real with conj, else complex.

    Raises:
        TypeError: v or x is not a tensor.
        RuntimeError: shapes, dtypes or devices do not fit, or L is negative.
        NotImplementedError: forward-mode differentiation.
    """
    op = "log_vandermonde"
    product.check_tensors(op, v=v, x=x)
    product.check_complex(op, v=v, x=x)
    refuse_forward_mode(op, v, x)
    v, x = torch.broadcast_tensors(v, x)
    if v.dim() == 0:
        raise RuntimeError(f"{op}: v: expected shape [..., N], got ()")
    result = _Vandermonde.apply(_rows(v), _rows(x), L, conj)
    return result.unflatten(0, v.shape[:-1]) if v.dim() > 1 else result[0]


def log_vandermonde_transpose(u: Tensor, v: Tensor, x: Tensor, L: int) -> Tensor:
    """The transpose of :func:`log_vandermonde`: v_n sum_l u_l exp(x_n l), l < L.

    The state that inputs u, the last one first, leave in a diagonal SSM. Everything else as in
    :func:`log_vandermonde`.

    Args:
        u: real or complex [..., L], of the precision of x.
        v: complex64 or complex128 [..., N].
        x: v's dtype, [..., N].
        L: the last dimension of u.

    Returns:
        complex [..., N]; leading dimensions are broadcast.

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: shapes, dtypes or devices do not fit.
        NotImplementedError: forward-mode differentiation.
    """
    op = "log_vandermonde_transpose"
    product.check_tensors(op, u=u, v=v, x=x)
    product.check_complex(op, v=v, x=x)
    refuse_forward_mode(op, u, v, x)
    if u.dim() == 0 or u.shape[-1] != L:
        raise RuntimeError(f"{op}: u: expected shape [..., {L}], got {tuple(u.shape)}")
    lead = torch.broadcast_shapes(u.shape[:-1], v.shape[:-1], x.shape[:-1])
    rows, terms = _rows(u.expand(*lead, L)), x.expand(*lead, x.shape[-1])
    return _Moments.apply(rows, _rows(terms))[0].view(terms.shape) * v


def cauchy_mult(v: Tensor, z: Tensor, w: Tensor, *, conj: bool = True) -> Tensor:
    """Product with a Cauchy matrix: sum_n v_n / (z_l - w_n), as S4 has it at the roots of unity.

    Gu, Goel and Re 2022, "Efficiently Modeling Long Sequences with Structured State Spaces",
    appendix C.3. O(N + L) memory; bitwise repeatable for any number of threads; differentiable any
    number of times (at L outputs and N poles, gradients are Cauchy products of N outputs and L
    poles).

    Args:
        v: complex64 or complex128 [..., N].
        z: v's dtype, [L] or [..., L].
        w: the poles, v's dtype, [N] or [..., N]. In complex64, |z - w| |z - conj(w)| must be within
            1e-18 and 1e18.
        conj: v and w stand for themselves and their conjugates: v* / (z - w*) is added.

    Returns:
        complex [..., L]; leading dimensions are broadcast.

    Raises:
        TypeError: an argument is not a tensor.
        RuntimeError: shapes, dtypes or devices do not fit.
        NotImplementedError: forward-mode differentiation.
    """
    op = "cauchy_mult"
    product.check_tensors(op, v=v, z=z, w=w)
    product.check_complex(op, v=v, z=z, w=w)
    refuse_forward_mode(op, v, z, w)
    for name, value in (("v", v), ("z", z), ("w", w)):
        if value.dim() == 0:
            raise RuntimeError(f"{op}: {name}: expected at least 1 dimension, got shape ()")
    lead = torch.broadcast_shapes(v.shape[:-1], z.shape[:-1], w.shape[:-1])

    def operand(t: Tensor) -> Tensor:  # one row where it is the same in all
        return _rows(t) if t.shape[:-1].numel() == 1 else _rows(t.expand(*lead, t.shape[-1]))

    v = _rows(v.expand(*lead, v.shape[-1]))
    result: Tensor = _Cauchy.apply(v, operand(z), operand(w), 1, conj, False)[0]
    return result.view(*lead, z.shape[-1])


def _rows(t: Tensor) -> Tensor:
    return t.reshape(math.prod(t.shape[:-1]), t.shape[-1]).resolve_conj()


def _conj(t: Tensor) -> Tensor:
    return t.conj().resolve_conj()


class _Vandermonde(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
        return product.vandermonde(v, x, length, real)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.real = inputs[3]
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        v, x = ctx.saved_tensors
        zeroth, first = _Moments.apply(_rows(2 * grad if ctx.real else grad), _conj(x))
        return zeroth, v.conj() * first, None, None


class _Moments(torch.autograd.Function):
    """sum_l u_l exp(x_n l) and sum_l l u_l exp(x_n l): the transposes of the product's gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return product.moments(u, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_zeroth: Tensor, grad_first: Tensor) -> Any:
        u, x = ctx.saved_tensors
        length, real = u.shape[-1], not u.is_complex()
        steps = torch.arange(length, device=u.device).to(u.dtype)
        grad_u = grad_x = None
        if ctx.needs_input_grad[0]:
            zeroth, first = (
                _Vandermonde.apply(_rows(grad), _conj(x), length, real)
                for grad in (grad_zeroth, grad_first)
            )
            grad_u = (zeroth + steps * first) * (0.5 if real else 1)
        if ctx.needs_input_grad[1]:
            first, second = _Moments.apply(steps * u, x)
            grad_x = first.conj() * grad_zeroth + second.conj() * grad_first
        return grad_u, grad_x


class _Cauchy(torch.autograd.Function):
    """The product with the power-th and, where `both`, the next power of the matrix."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        v: Tensor, z: Tensor, w: Tensor, power: int, conj: bool, both: bool
    ) -> tuple[Tensor, Tensor]:
        return product.cauchy(v, z, w, power, conj, both)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.power, ctx.conj, ctx.both = inputs[3:]
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        v, z, w = ctx.saved_tensors
        grad_v, grad_z, grad_w = torch.zeros_like(v), torch.zeros_like(z), torch.zeros_like(w)
        for power, grad in zip(
            (ctx.power, ctx.power + 1), grads[: 2 if ctx.both else 1], strict=False
        ):
            sign = -1 if power % 2 else 1
            if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:  # z and w change their places
                same, above = _Cauchy.apply(_conj(grad), w, z, power, ctx.conj, True)
                grad_v = grad_v + sign * same.conj()
                grad_w = grad_w - _sum_to(w, sign * power * (v * above).conj())
            if ctx.needs_input_grad[1]:
                slope = _Cauchy.apply(v, z, w, power + 1, ctx.conj, False)[0]
                grad_z = grad_z - _sum_to(z, power * slope.conj() * grad)
        return grad_v, grad_z, grad_w, None, None, None


def _sum_to(operand: Tensor, grad: Tensor) -> Tensor:
    """The gradient of an operand that may have one row for all."""
    return grad.sum(0, keepdim=True) if operand.shape[0] == 1 else grad
