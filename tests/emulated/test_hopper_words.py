"""TMA boxes and wgmma products of the emulator against what NVIDIA documents of their layouts."""

from __future__ import annotations

import ctypes
import itertools

import pytest
import torch
from torch import Tensor

from emulated.harness import MMA_ROUNDINGS, Emulator, KernelError

SPANS = (16, 32, 64, 128)  # bytes, by swizzle mode; the first is none
TYPES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
COLUMNS = (8, 16, 32, 64, 96, 128, 192, 256)


def swizzled(offset: Tensor, span: int) -> Tensor:
    """Of bytes: bits 4 and up are changed by the bits 7 and up, one for each doubling of the span."""
    return offset ^ ((offset >> 7) & (span // 16 - 1)) << 4


# ---- boxes ---------------------------------------------------------------------------------------


class BoxCall(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("element", "swizzle", "rank", "store")),
        *(
            (name, ctypes.c_int64 * n)
            for name, n in (("sizes", 4), ("strides", 3), ("box", 4), ("at", 4))
        ),
    ]


def box_call(tensor: Tensor, element: int, swizzle: int, box: list[int], at: list[int], store: int):
    """Sizes as TMA counts them, from the innermost dimension."""
    sizes, strides = list(tensor.shape)[::-1], list(tensor.stride())[::-1]
    call = BoxCall(element, swizzle, tensor.dim(), store)
    for i, (n, size, position) in enumerate(zip(box, sizes, at, strict=True)):
        call.box[i], call.sizes[i], call.at[i] = n, size, position
        if i:
            call.strides[i - 1] = strides[i] * tensor.element_size()
    return call


def box_of(tensor: Tensor, box: list[int], at: list[int]) -> Tensor:
    """The elements of a box, 0 outside the tensor."""
    for dim, (n, position) in enumerate(zip(box[::-1], at[::-1], strict=True)):
        index = torch.arange(position, position + n)
        size = tensor.shape[dim]
        taken = tensor.index_select(dim, index.clamp(0, size - 1))
        outside = torch.nonzero((index < 0) | (index >= size)).flatten()
        tensor = taken.index_fill(dim, outside, 0)
    return tensor.contiguous()


def image_of(values: Tensor, span: int) -> Tensor:
    """The bytes of a box in shared memory, row after row."""
    data = values.flatten().view(torch.uint8)
    image = torch.empty_like(data)
    image[swizzled(torch.arange(len(data)), span)] = data
    return image


BOXES = {
    "2d inside": ((40, 96), [0, 8], [8]),
    "2d before": ((40, 96), [-16, -3], [16]),
    "2d behind": ((40, 96), [80, 37], [8]),
    "2d outside": ((40, 96), [96, 0], [8]),
    "3d": ((5, 9, 80), [32, 6, 3], [8, 4]),
    "4d": ((2, 3, 7, 72), [48, 5, -1, 1], [4, 2, 2]),
}


@pytest.mark.parametrize("swizzle", range(4))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", BOXES)
def test_box(name: str, dtype: torch.dtype, swizzle: int) -> None:
    shape, at, outer = BOXES[name]
    tensor = torch.arange(1, 1 + torch.Size(shape).numel()).reshape(shape).to(dtype)
    box = [SPANS[swizzle] // dtype.itemsize, *outer]
    expected = box_of(tensor, box, at)
    image = image_of(expected, SPANS[swizzle])
    element = 0 if dtype == torch.bfloat16 else 2
    for seed in (0, 1):
        device = Emulator("hopper_words", seed=seed)
        source = device.tensor(tensor, "tensor")
        result = device.empty((len(image),), torch.uint8, "image")
        call = box_call(tensor, element, swizzle, box, at, 0)
        counters = device.call("emulated_box", call, source, result).counters
        assert torch.equal(result.read(), image)
        inside = torch.count_nonzero(expected).item() * dtype.itemsize
        assert counters.tensor_load.bytes == inside
        assert counters.tensor_load.requests == 1

        target = device.tensor(torch.zeros(shape, dtype=dtype), "target")
        call.store = 1
        device.call("emulated_box", call, target, device.tensor(image, "image"))
        kept = box_of(target.read(), box, at)
        assert torch.equal(kept, expected)
        assert torch.count_nonzero(target.read()) == torch.count_nonzero(expected)


@pytest.mark.parametrize("rounding, kept", [("ideal", 1.0009765625), ("truncating", 1.0)])
def test_tf32_is_rounded_on_the_way(rounding: str, kept: float) -> None:
    """To nearest or cut off: NVIDIA does not say which, so kernels must bear both."""
    device = Emulator("hopper_words", mma=rounding)
    tensor = torch.full((8, 32), 1 + 2.0**-11 + 2.0**-20)
    call = box_call(tensor, 3, 3, [32, 8], [0, 0], 0)
    result = device.empty((256,), torch.float32, "image")
    device.call("emulated_box", call, device.tensor(tensor, "tensor"), result)
    assert result.read().unique().tolist() == [kept]


# ---- products ------------------------------------------------------------------------------------


class Place(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("start", "swizzle", "leading", "stride")]


def canonical(extent: int, depth: int, size: int, mn_major: bool, place: Place) -> Tensor:
    """Byte offsets of the elements (mn, k), from the canonical layouts of matrix descriptors."""
    span = SPANS[place.swizzle]
    mn, k = torch.arange(extent)[:, None], torch.arange(depth)[None, :]
    along, across = (mn, k) if mn_major else (k, mn)  # along: contiguous in a chunk
    chunk, byte = along * size // 16, along * size % 16
    if place.swizzle == 0:
        chunk_step, row_step = (
            (place.stride, place.leading) if mn_major else (place.leading, place.stride)
        )
        offset = chunk * chunk_step + across % 8 * 16 + across // 8 * row_step
    else:
        per_span = span // 16
        offset = chunk % per_span * 16 + chunk // per_span * place.leading
        offset = offset + across % 8 * span + across // 8 * place.stride
    return swizzled(place.start + offset, span) + byte


def place_of(start: int, extent: int, size: int, mn_major: bool, swizzle: int) -> Place:
    """An operand of one product, packed, or with gaps of whole patterns where it has several."""
    span = SPANS[swizzle]
    if swizzle == 0:
        first, second = 128, 128 * max(2, extent * size // 16 if mn_major else extent // 8) + 128
        return Place(start, 0, second, first) if mn_major else Place(start, 0, first, 256)
    rows = 8 * span
    return Place(start, swizzle, 4 * rows if mn_major else 16, rows)


def fragments_of(a: Tensor) -> Tensor:
    """A as 128 threads hold it: four registers each, two elements or one in a register."""
    thread = torch.arange(128)
    warp, g, t = thread // 32, thread % 32 // 4, thread % 4
    wide = a.element_size() == 4
    registers = []
    for r in range(4):
        row = warp * 16 + g + r % 2 * 8
        columns = [t + r // 2 * 4] if wide else [2 * t + r // 2 * 8 + e for e in range(2)]
        registers.append(torch.stack([a[row, column] for column in columns], 1))
    return torch.stack(registers, 1).contiguous()


def accumulators(d: Tensor) -> Tensor:
    """64 x n from what 128 threads hold."""
    n = d.shape[1] * 2
    whole = torch.empty(64, n)
    thread, i = torch.arange(128)[:, None], torch.arange(n // 2)[None, :]
    row = thread // 32 * 16 + thread % 32 // 4 + i // 2 % 2 * 8
    whole[row, i // 4 * 8 + thread % 4 * 2 + i % 2] = d
    return whole


def multiply(
    dtype: torch.dtype, n: int, majors: str, swizzle: int, registers: bool, mma: str = "ideal"
) -> None:
    size, depth = dtype.itemsize, 32 // dtype.itemsize
    torch.manual_seed(n + swizzle)
    a, b = torch.randint(-8, 9, (64, depth)).to(dtype), torch.randint(-8, 9, (n, depth)).to(dtype)
    a_mn, b_mn = majors[0] == "m", majors[1] == "m"
    # an operand that is narrower than a span takes the widest swizzle that it fills
    b_swizzle = min(swizzle, {8: 0, 16: 1, 32: 2}.get(n, 3)) if b_mn else swizzle
    places = place_of(0, 64, size, a_mn, swizzle), place_of(16384, n, size, b_mn, b_swizzle)
    image = torch.full((65536,), 255, dtype=torch.uint8)  # NaN where no operand is
    for value, mn_major, place in zip((a, b), (a_mn, b_mn), places, strict=True):
        offsets = canonical(*value.shape, size, mn_major, place)
        assert len(offsets.unique()) == offsets.numel()
        for byte in range(size):
            image[offsets + byte] = value.contiguous().view(torch.uint8)[:, byte::size]
    before = torch.randint(-8, 9, (128, n // 2)).float()
    device = Emulator("hopper_words", mma=mma)
    d = device.tensor(before, "d")
    fragments = device.tensor(fragments_of(a), "fragments") if registers else None
    report = device.call(
        "emulated_product", TYPES[dtype], n, a_mn, b_mn, *places, device.tensor(image, "image"),
        fragments, d,
    )  # fmt: skip
    expected = accumulators(before).double() + a.double() @ b.double().t()
    assert torch.equal(accumulators(d.read()).double(), expected)
    assert report.counters.wgmma == 1


@pytest.mark.parametrize("n", COLUMNS)
@pytest.mark.parametrize("dtype", TYPES)
def test_product_of_every_width(dtype: torch.dtype, n: int) -> None:
    for registers, mma in itertools.product((False, True), MMA_ROUNDINGS):
        multiply(dtype, n, "kk", 3, registers, mma)


@pytest.mark.parametrize("swizzle", range(4))
@pytest.mark.parametrize("majors", ["kk", "km", "mk", "mm"])
def test_product_of_every_layout(majors: str, swizzle: int) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        for n in (8, 64, 256):
            multiply(dtype, n, majors, swizzle, False)
            if majors[0] == "k":
                multiply(dtype, n, majors, swizzle, True)
    if majors == "kk":
        multiply(torch.float32, 64, majors, swizzle, False)


def test_nan_where_no_operand_is_would_be_seen() -> None:
    device = Emulator("hopper_words")
    image = device.tensor(torch.full((65536,), 255, dtype=torch.uint8), "image")
    d = device.tensor(torch.zeros(128, 32), "d")
    place = place_of(0, 64, 2, False, 3)
    device.call("emulated_product", 0, 64, 0, 0, place, place, image, None, d)
    assert d.read().isnan().all()


def test_operand_that_starts_in_the_middle_of_a_pattern() -> None:
    device = Emulator("hopper_words")
    image = device.tensor(torch.zeros(65536, dtype=torch.uint8), "image")
    d = device.tensor(torch.zeros(128, 32), "d")
    good, bad = place_of(0, 64, 2, False, 3), place_of(128, 64, 2, False, 3)
    with pytest.raises(KernelError, match="matrix descriptor"):
        device.call("emulated_product", 0, 64, 0, 0, good, bad, image, None, d)
