"""Runs a kernel of this project on the CPU, under the emulator, on torch tensors.

    device = Emulator("sampler_step", seed=1)
    x = device.tensor(torch.randn(8), "x")
    y = device.empty((8,), torch.float32, "y")
    report = device.call("emulated_copy", x, y, 8)
    assert torch.equal(y.read(), x.read()) and report.counters.global_load.sectors == 1

A C entry takes int64_t, double, pointers and const char* alone: that is what Python's int, float,
tensors (or None), ctypes structures and str are passed as.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from emulated import build

try:
    build.compiler()
    build.cuda_include()
except build.CannotBuild as reason:
    if os.environ.get("CI"):  # there these tests must not go missing unnoticed
        raise
    # Every file that imports this one is skipped, all in one line of the summary.
    pytest.skip(f"cannot build the emulator: {reason}", allow_module_level=True)

SEEDS = (0, 1, 2)
MMA_ROUNDINGS = {"ideal": 0, "truncating": 1}


class Finding(NamedTuple):
    kind: str
    text: str
    sites: list[str]  # file:line of every access that takes part

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" + "".join(f"\n    at {site}" for site in self.sites)


class Launch(NamedTuple):
    """One kernel that ran. counters: the engine's, by name, as `counters.global_load.sectors`."""

    kernel: str
    shape: str
    findings: list[Finding]
    counters: Any
    seconds: float

    def __str__(self) -> str:
        found = "".join(f"\n  {finding}" for finding in self.findings)
        return f"{self.kernel} launched with {self.shape}:{found or ' nothing found'}"


class Report(NamedTuple):
    """What one call launched, in order."""

    launches: list[Launch]

    @property
    def findings(self) -> list[Finding]:
        return [finding for launch in self.launches for finding in launch.findings]

    @property
    def counters(self) -> Any:
        """Of all launches together."""
        return total([launch.counters for launch in self.launches])


def total(counters: list[Any]) -> Any:
    """The sum of counters, entry by entry."""
    if not isinstance(counters[0], SimpleNamespace):
        return sum(counters)
    names = vars(counters[0])
    return SimpleNamespace(**{name: total([getattr(c, name) for c in counters]) for name in names})


class KernelError(AssertionError):
    """A kernel did what a GPU need not forgive. `report` says what and where."""

    def __init__(self, report: Report) -> None:
        super().__init__("\n".join(str(launch) for launch in report.launches if launch.findings))
        self.report = report


class CountersError(AssertionError):
    """A kernel moves more than it should."""


class DeviceTensor:
    """A strided tensor in the emulator's memory. Between its elements, and before them, is NaN."""

    def __init__(
        self, address: int, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype
    ):
        self.address = address
        self.size, self.stride, self.dtype = tuple(size), tuple(stride), dtype

    def read(self) -> Tensor:
        """Its elements now; what was never written is NaN (all bits set, for integers)."""
        count = span(self.size, self.stride)
        if count == 0:
            return torch.empty(self.size, dtype=self.dtype)
        data = ctypes.string_at(self.address, count * self.dtype.itemsize)
        flat = torch.frombuffer(bytearray(data), dtype=self.dtype)
        return flat.as_strided(self.size, self.stride).contiguous()


def span(size: Sequence[int], stride: Sequence[int]) -> int:
    """How many elements a strided tensor reaches over."""
    if 0 in size:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))


class Emulator:
    """One kernel library and its memory; making another of the same name empties it.

    Args:
        name: of tests/emulated/<name>.cpp.
        seed: order in which warps and lanes run (0: ascending) and how approximations err.
        mma: "ideal" or "truncating", how tensor-core instructions round.
        races, counters: whether to look for races and to count traffic.
        library: another build of the same entries.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        mma: str = "ideal",
        races: bool = True,
        counters: bool = True,
        library: Path | None = None,
    ) -> None:
        self._library = load(library or build.library(name))
        self._library.emulator_reset()
        self.options(seed, mma, races, counters)

    def release(self) -> None:
        """Gives its memory back; a call thereafter takes it anew."""
        self._library.emulator_release()

    def options(
        self, seed: int = 0, mma: str = "ideal", races: bool = True, counters: bool = True
    ) -> None:
        """Of the calls to come."""
        self._library.emulator_options(int(races), int(counters), seed, MMA_ROUNDINGS[mma])

    def tensor(self, value: Tensor, name: str, *, shift: int = 0) -> DeviceTensor:
        """A copy with the strides of `value`, `shift` elements from where its memory begins."""
        tensor = self._allocate(value.shape, value.stride(), value.dtype, name, True, shift)
        count = span(value.shape, value.stride())
        if count:
            flat = torch.full((count * value.dtype.itemsize,), 255, dtype=torch.uint8).view(
                value.dtype
            )
            once = [
                1 if step == 0 else n for n, step in zip(value.shape, value.stride(), strict=True)
            ]
            first = value.detach().as_strided(once, value.stride())
            flat.as_strided(once, value.stride()).copy_(first)
            ctypes.memmove(tensor.address, flat.data_ptr(), count * value.dtype.itemsize)
        return tensor

    def empty(
        self, shape: Sequence[int], dtype: torch.dtype, name: str, *, shift: int = 0
    ) -> DeviceTensor:
        """Contiguous and not initialised: to read it before it is written is an error."""
        stride = torch.empty(tuple(shape), device="meta").stride()
        return self._allocate(shape, stride, dtype, name, False, shift)

    def _allocate(
        self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype, name: str,
        initialised: bool, shift: int,
    ) -> DeviceTensor:  # fmt: skip
        before = shift * dtype.itemsize
        count = span(size, stride) * dtype.itemsize
        start = self._library.emulator_allocate(before + count, name.encode(), int(initialised))
        assert start, f"the emulator has no memory left for {name} of {count} bytes"
        return DeviceTensor(start + before, size, stride, dtype)

    def function(self, name: str, result: Any = None) -> Any:
        """A C function of the library with that ctypes result type."""
        found = getattr(self._library, name)
        found.restype = result
        return found

    def call(self, entry: str, *arguments: Any) -> Report:
        """Runs a C entry and its kernels.

        Raises:
            KernelError: names the kernel, the launch and all findings with their source lines.
        """
        self.function(entry)(*(as_c(argument) for argument in arguments))
        report = self.report()
        if report.findings:
            raise KernelError(report)
        return report

    def report(self) -> Report:
        """Of the launches since the last report."""
        launches = json.loads(
            self._library.emulator_report().decode(), object_hook=lambda d: SimpleNamespace(**d)
        )
        return Report([as_launch(launch) for launch in launches])


def as_launch(raw: Any) -> Launch:
    grid, block = ("x".join(map(str, shape)) for shape in (raw.grid, raw.block))
    shape = f"grid {grid}, block {block}, {raw.shared} bytes of shared memory"
    findings = [Finding(f.kind, f.text, f.sites) for f in raw.findings]
    return Launch(raw.kernel, shape, findings, raw.counters, raw.seconds)


def as_c(value: Any) -> Any:
    if isinstance(value, DeviceTensor):
        return ctypes.c_void_p(value.address)
    if value is None:
        return ctypes.c_void_p(0)
    if isinstance(value, (bool, int)):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_double(value)
    if isinstance(value, str):
        return ctypes.c_char_p(value.encode())
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    raise TypeError(f"a C entry takes no {type(value).__name__}")


@functools.cache
def load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.emulator_allocate.restype = ctypes.c_void_p
    library.emulator_allocate.argtypes = [ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int]
    library.emulator_reset.restype = None
    library.emulator_release.restype = None
    library.emulator_report.restype = ctypes.c_char_p
    library.emulator_options.restype = None
    library.emulator_options.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_uint32, ctypes.c_int]
    return library


def assert_coalesced(counters: Any, allowed: float = 1.05, *, stores: bool = True) -> None:
    """Global accesses need at most `allowed` times the sectors that their bytes need at best,
    shared ones exactly the wavefronts. stores: whether to look at global stores.

    Raises:
        CountersError: more.
    """
    for name in ("global_load", "global_store")[: 2 if stores else 1]:
        traffic = getattr(counters, name)
        if traffic.sectors > allowed * traffic.ideal:
            raise CountersError(f"{name}: {traffic.sectors} sectors, ideal are {traffic.ideal}")
    for name in ("shared_load", "shared_store", "matrix_load"):
        traffic = getattr(counters, name)
        if traffic.sectors != traffic.ideal:
            raise CountersError(f"{name}: {traffic.sectors} wavefronts, ideal are {traffic.ideal}")


def assert_traffic(counters: Any, loaded: int, stored: int, allowed: float = 1.05) -> None:
    """The distinct sectors that a launch touches are at most `allowed` times the compulsory bytes.

    Raises:
        CountersError: more.
    """
    for name, compulsory in (("global_load", loaded), ("global_store", stored)):
        moved = 32 * getattr(counters, name).distinct
        if moved > allowed * compulsory:
            raise CountersError(
                f"{name}: {moved} bytes of distinct sectors, {compulsory} are needed"
            )
