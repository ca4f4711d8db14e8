"""The harness itself: what a failing kernel's error says, tensors in the emulator's memory, builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emulated import build
from emulated.harness import (
    CountersError,
    Emulator,
    KernelError,
    SimpleNamespace,
    assert_coalesced,
    assert_traffic,
    total,
)
from emulated.mutants import mutated
from emulated.mutants import sampler_step as planted


def test_error_names_kernel_launch_finding_and_lines():
    mutant = next(m for m in planted.MUTANTS if m.caught_by == "shared race")
    device = Emulator(mutant.library, library=mutated(mutant))
    with pytest.raises(KernelError) as caught:
        mutant.case(device)
    message = str(caught.value)
    assert message.startswith(
        "sampler_step_scales_kernel launched with grid 2x1x1, block 512x1x1, "
    )
    assert "shared race: " in message
    assert message.count("\n    at csrc/ops/sampler_step/cuda/threshold.cuh:") >= 2
    assert device.report().launches == []  # it was taken with the error


def test_tensors_keep_their_strides_and_have_nan_between():
    device = Emulator("sampler_step")
    value = torch.arange(24.0).reshape(4, 6)
    for view in (value, value[:, 1:4], value[::2], value.T, value[:1].expand(4, 6), value[:, :0]):
        tensor = device.tensor(view, "view", shift=1)
        assert tensor.stride == view.stride() and torch.equal(tensor.read(), view)
    around = device.tensor(value[:, 1:3], "two of six columns")
    around.size, around.stride = (20,), (1,)
    assert around.read().isnan().tolist() == ([False] * 2 + [True] * 4) * 3 + [False] * 2


def test_new_memory_is_nan_and_a_new_emulator_empties_it():
    first = Emulator("sampler_step").empty((3,), torch.float32, "first")
    assert bool(first.read().isnan().all())
    second = Emulator("sampler_step").empty((3,), torch.float32, "second")
    assert bool(second.read().isnan().all())
    assert Emulator("sampler_step").empty((2,), torch.int32, "integers").read().tolist() == [-1, -1]


def traffic(sectors: int, ideal: int = 100, distinct: int = 100) -> SimpleNamespace:
    return SimpleNamespace(sectors=sectors, ideal=ideal, distinct=distinct)


@pytest.mark.parametrize("name", ["global_load", "global_store", "shared_load", "matrix_load"])
def test_assertions_on_counters(name: str):
    names = ("global_load", "global_store", "shared_load", "shared_store", "matrix_load")
    counters = SimpleNamespace(**{n: traffic(100) for n in names})
    assert_coalesced(counters)
    assert_traffic(counters, 3200, 3200)
    setattr(counters, name, traffic(106, distinct=106))
    with pytest.raises(CountersError, match=f"{name}: 106 .*ideal are 100"):
        assert_coalesced(counters)
    if name.startswith("global"):
        with pytest.raises(CountersError, match=f"{name}: 3392 bytes .*3200 are needed"):
            assert_traffic(counters, 3200, 3200)


def test_counters_of_launches_add_up():
    each = [SimpleNamespace(mma=i, load=traffic(i)) for i in (1, 2)]
    assert total(each).mma == 3 and total(each).load.sectors == 3


def test_objects_are_made_anew_for_new_text_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "BUILD", tmp_path / "build")
    source, header = tmp_path / "some.cpp", tmp_path / "some.h"
    source.write_text('#include "some.h"\nint f() { return kNumber; }\n')
    header.write_text("constexpr int kNumber = 1;\n")
    first = build.compile_object(source, ["-O0"])
    written = first.stat().st_mtime_ns
    assert build.compile_object(source, ["-O0"]) == first and first.stat().st_mtime_ns == written
    assert header in build.dependencies(first)
    header.write_text("constexpr int kNumber = 2;\n")
    second = build.compile_object(source, ["-O0"])
    assert second != first
    assert build.compile_object(source, ["-O1"]) not in (first, second)
    header.write_text("constexpr int kNumber = 1;\n")
    assert build.compile_object(source, ["-O0"]) == first and first.stat().st_mtime_ns == written


def test_an_undefined_hook_is_an_error_of_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "BUILD", tmp_path / "build")
    source = tmp_path / "uses_std_atomic.cpp"
    source.write_text("#include <atomic>\nint f(std::atomic<int>& x) { return x.fetch_add(1); }\n")
    kernel = build.compile_object(source, build.KERNEL_FLAGS)
    with pytest.raises(RuntimeError, match="__tsan_atomic32_fetch_add"):
        build.link("uses_std_atomic", [kernel])


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SUFFUSE_EMULATOR_CXX", "no-such-compiler")
    with pytest.raises(build.CannotBuild, match=r"^no no-such-compiler$"):
        build.compiler.__wrapped__()
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(build.CannotBuild, match=r"^no CUDA headers .*[^\n]$"):
        build.cuda_include.__wrapped__()
