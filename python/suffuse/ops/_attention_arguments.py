"""What attention's arguments may be, and the form in which the torch ops take them."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

from suffuse.reference import attention as reference

CUDA_COLUMNS = 256  # the widest head that the CUDA kernels take


def fits_cuda(q: Tensor, v: Tensor) -> bool:
    """Whether the CUDA kernels take the dtype and the head dims; the formula takes all."""
    if q.dim() != 4 or v.dim() != 4:
        return True  # the kernels' checks say what is wrong
    return q.dtype != torch.float64 and q.shape[3] <= CUDA_COLUMNS and v.shape[3] <= CUDA_COLUMNS


def on_cuda(q: Tensor, v: Tensor) -> tuple[bool, bool]:
    """Whether it is a call that the CUDA kernels take, and one with products rounded to tf32; False elsewhere."""
    if not q.is_cuda:
        return False, False
    return fits_cuda(q, v), q.dtype == torch.float32 and allows_tf32()


def allows_tf32() -> bool:
    """PyTorch's own switch for products of float32 matrices; compiled graphs are made anew where it changes."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


# torch.compiler.assume_constant_result does this, but imports the compiler: a second for those who never compile.
allows_tf32._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Options(TypedDict, total=False):
    """The keyword arguments of `attention` that do not change the type of its result."""

    causal: bool | str
    scale: float | None
    window: tuple[int | None, int | None] | None
    bias: Tensor | None
    alibi_slopes: Tensor | None
    softcap: float
    sinks: Tensor | None
    dropout: float
    seed: int | Tensor | torch.Generator | None
    cu_seqlens_q: Tensor | None
    cu_seqlens_k: Tensor | None
    seqused_q: Tensor | None
    seqused_k: Tensor | None
    max_seqlen_q: int | None
    max_seqlen_k: int | None


def window_of(window: Any, op: str = "attention") -> tuple[int, int]:
    if window is None:
        return -1, -1
    sides = tuple(window) if isinstance(window, (tuple, list)) else ()
    if len(sides) != 2 or not all(x is None or isinstance(x, int) for x in sides):
        raise TypeError(f"{op}: window: expected (left, right), ints or None, got {window!r}")
    left, right = (-1 if x is None else x for x in sides)
    if left < -1 or right < -1:
        raise ValueError(f"{op}: window: expected sides >= 0, -1 or None, got {window!r}")
    return left, right


def softcap_of(softcap: float, op: str = "attention") -> float:
    if not 0 <= softcap < float("inf"):
        raise ValueError(f"{op}: softcap: expected a finite number >= 0, got {softcap!r}")
    return softcap


def slopes_of(slopes: Tensor | None, wide: torch.dtype, op: str = "attention") -> Tensor | None:
    slopes = to_wide(slopes, "alibi_slopes", wide, op)
    if slopes is not None and slopes.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError(
            f"{op}: alibi_slopes: expected slopes without a gradient, got requires_grad=True; "
            "a bias has one"
        )
    return slopes


def to_wide(x: Any, name: str, wide: torch.dtype, op: str = "attention") -> Tensor | None:
    if x is None:
        return None
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{op}: {name}: expected a floating tensor, got {got}")
    return x.to(wide)


def to_int32(name: str, x: Any, op: str = "attention") -> Tensor | None:
    if x is None:
        return None
    if not isinstance(x, Tensor) or x.dtype not in (torch.int32, torch.int64):
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{op}: {name}: expected an int32 tensor, got {got}")
    return x.to(torch.int32)


def seed_of(dropout: float, seed: Any, q: Tensor) -> Tensor | None:
    if not 0 <= dropout < 1:
        raise ValueError(f"attention: dropout: expected a probability in [0, 1), got {dropout!r}")
    if not dropout:
        return None
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.shape != (1,) or seed.device != q.device:
            raise TypeError(
                f"attention: seed: expected int64 [1] on {q.device}, got {seed.dtype} "
                f"{list(seed.shape)} on {seed.device}"
            )
        return seed
    if isinstance(seed, int):
        return torch.tensor([seed], dtype=torch.int64, device=q.device)
    if seed is not None and not isinstance(seed, torch.Generator):
        raise TypeError(
            "attention: seed: expected an int, an int64 tensor [1], a generator or None, "
            f"got {type(seed).__name__}"
        )
    device = q.device if seed is None else seed.device
    drawn = torch.randint(2**63 - 1, (1,), generator=seed, device=device)
    return drawn.to(q.device)


def causal_code_of(causal: Any, q: Tensor, k: Tensor, packed: bool) -> int:
    if causal is True:
        if packed:
            return 2  # the same for sequences of equal lengths, which only the kernel sees
        if q.dim() == 4 and k.dim() == 4 and q.shape[1] != k.shape[1]:
            raise ValueError(
                "attention: causal: expected 'top_left' or 'bottom_right' where T != S, "
                f"got True with T = {q.shape[1]}, S = {k.shape[1]}"
            )
        return 1
    code = reference.CAUSAL_CODES.get(causal) if isinstance(causal, (bool, str)) else None
    if code is None:
        raise ValueError(
            f"attention: causal: expected False, True, 'top_left' or 'bottom_right', got {causal!r}"
        )
    return code
