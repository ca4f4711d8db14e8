"""make_tensor_map: what it asks of the CUDA driver, and what it says where something is wrong."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cubin_build
import pytest
from emulated import build
from test_static import need

ELEMENTS = {"bf16": 9, "f16": 6, "f32": 7, "tf32": 11}  # CUtensorMapDataType


def loaded_anew(path: Path) -> ctypes.CDLL:
    """A library that remembers nothing: the encoder is looked up once."""
    with tempfile.NamedTemporaryFile(suffix=".so") as copy:
        copy.write(path.read_bytes())
        copy.flush()
        return ctypes.CDLL(copy.name)


def numbers(ctype, count: int, values: Sequence[int]):
    return (ctype * count)(*values, *[0] * (count - len(values)))


@pytest.fixture(scope="module")
def make_map() -> Callable[..., str]:
    need(cubin_build.nvcc)
    flags = [*build.ENGINE_FLAGS, *build.include_flags()]
    driver = Path(__file__).with_name("tensor_map_driver.cpp")
    sources = [driver, build.ROOT / "csrc/cuda/tensor_map.cpp"]
    path = build.link("tensor_map", [build.compile_object(source, flags) for source in sources])

    def call(
        element="bf16", swizzle=3, rank=2, address=4096, sizes=(128, 64), strides=(256,),
        box=(64, 8), driver=2, result=0,
    ) -> str:  # fmt: skip
        library = loaded_anew(path)
        library.make_map.restype = ctypes.c_char_p
        said = library.make_map(
            driver, result, list(ELEMENTS).index(element), swizzle, rank, ctypes.c_uint64(address),
            numbers(ctypes.c_uint64, 5, sizes), numbers(ctypes.c_uint64, 4, strides),
            numbers(ctypes.c_uint32, 5, box),
        )  # fmt: skip
        return said.decode()

    return call


@pytest.mark.parametrize("element", ELEMENTS)
def test_element_types(make_map, element: str) -> None:
    said = make_map(element, swizzle=0, box=(32, 8))
    assert said == (
        f"type={ELEMENTS[element]} address=4096 sizes=128,64 strides=256 box=32,8 steps=1,1"
        " interleave=0 swizzle=0 fill=0"
    )


@pytest.mark.parametrize("swizzle, columns", [(0, 24), (1, 16), (2, 32), (3, 64)])
def test_swizzles(make_map, swizzle: int, columns: int) -> None:
    assert f"box={columns},8 " in make_map(swizzle=swizzle, box=(columns, 8))
    assert f" swizzle={swizzle} " in make_map(swizzle=swizzle, box=(columns, 8))


def test_four_dimensions(make_map) -> None:
    said = make_map(rank=4, sizes=(64, 12, 300, 2), strides=(128, 1536, 460800), box=(64, 1, 64, 1))
    assert "sizes=64,12,300,2 strides=128,1536,460800 box=64,1,64,1 steps=1,1,1,1" in said


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"rank": 6}, "1 to 5 dimensions, got 6"),
        ({"address": 4104}, "an address that is a multiple of 16, got 4104"),
        ({"sizes": (128, 0)}, "sizes of 1 to 2^32, got 0"),
        ({"box": (64, 257)}, "a box of 1 to 256, got 257"),
        ({"strides": (250,)}, "strides that are multiples of 16 bytes below 2^40, got 250"),
        ({"strides": (2**40,)}, "strides that are multiples of 16 bytes below 2^40, got"),
        ({"box": (60, 8), "swizzle": 0}, "rows of a box of whole 16 bytes, got 120"),
        ({"box": (32, 8)}, "rows of a box of 128 bytes, got 64"),
        ({"result": 1}, "cuTensorMapEncodeTiled failed with CUDA error 1"),
        ({"driver": 0}, "the CUDA driver cannot be asked: no driver here"),
        ({"driver": 1}, "the CUDA driver has no cuTensorMapEncodeTiled: expected 12.0 or later"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors(make_map, wrong: dict, message: str) -> None:
    said = make_map(**wrong)
    assert said.startswith("tensor map: ") and message in said
