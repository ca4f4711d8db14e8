"""What every op's test needs: the error rule, the CPU's instruction sets, thread counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from suffuse import _library  # noqa: F401  (registers the ops used below)

ALL_ISAS = ("scalar", "avx2", "avx512", "avx512_bf16", "amx")


def cpu_isa() -> str:
    """Name of the instruction set that the CPU kernels run on now."""
    return torch.ops.suffuse.cpu_isa()


@contextlib.contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Run the CPU kernels on one of :data:`ALL_ISAS` inside the block.

    Raises:
        RuntimeError: this CPU does not have it.
    """
    before = cpu_isa()
    torch.ops.suffuse.set_cpu_isa(name)
    try:
        yield
    finally:
        torch.ops.suffuse.set_cpu_isa(before)


def cpu_isas() -> list[str]:
    """The instruction sets of :data:`ALL_ISAS` that this CPU has."""
    names = []
    for name in ALL_ISAS:
        with contextlib.suppress(RuntimeError), use_isa(name):
            names.append(name)
    return names


@contextlib.contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Run torch with ``count`` intra-op threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def relative_error(actual: Tensor, reference: Tensor) -> float:
    """||actual - reference|| / ||reference|| in float64 over the finite entries of the reference."""
    actual, reference = actual.double(), reference.double()
    finite = reference.isfinite()
    difference = (actual - reference)[finite].norm()
    scale = reference[finite].norm()
    return float(difference / scale) if scale > 0 else float(difference)


def assert_close_to_reference(
    actual: Tensor, plain: Tensor, reference: Tensor, floor: float, name: str = "result"
) -> None:
    """The error rule: at most twice the error of the plain same-dtype version, plus ``floor``.

    Args:
        actual: the kernel's result, any shape and dtype.
        plain: the plain PyTorch version's result in the same dtype.
        reference: the float64 reference.
        floor: relative error that is always allowed (a few units in the last place of the dtype).
        name: what is compared, for the message.

    Raises:
        AssertionError: larger error, another shape or dtype, or NaN/inf in other places than the
            reference's.
    """
    assert actual.shape == reference.shape, f"{name}: shape {actual.shape} != {reference.shape}"
    assert actual.dtype == plain.dtype, f"{name}: dtype {actual.dtype} != {plain.dtype}"
    # Values beyond the storage dtype's range become inf in any version of that dtype.
    expected = reference.to(actual.dtype)
    for what, test in (("NaN", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        assert torch.equal(test(actual), test(expected)), f"{name}: {what} in other places"
    error, allowed = relative_error(actual, reference), 2 * relative_error(plain, reference) + floor
    assert error <= allowed, f"{name}: error {error:.3e} > {allowed:.3e} = 2 x plain + {floor:.1e}"
