"""Packs the coefficients of a sampler step into the table that the kernels read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suffuse.reference import sampler_step as formula

COLUMNS = formula.COLUMNS
MAX_HISTORY = 4
MAX_OUTPUTS = 4

Entry = float | Tensor | Sequence[float]


def step_coefficients(
    *,
    x: Entry = 0.0,
    model: Entry = 0.0,
    data: Entry = 0.0,
    history: Sequence[Entry] = (),
    anchor: Entry = 0.0,
    extra: Entry = 0.0,
    noise: Entry = 0.0,
    data_from_x: Entry = 0.0,
    data_from_model: Entry = 0.0,
    clip: Entry = math.inf,
    converted: Sequence[Entry] = (0.0, 0.0, 1.0),
    next_scale: Entry = 1.0,
    guidance: Sequence[Entry] = (1.0,),
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Packs the coefficients of one `sampler_step` into its table.

    Every entry is a number, or one number per sample: a sequence or a tensor [B] (a 0-d tensor
    counts as a number). Gradients flow through tensors.

    Args:
        x, model, data, history, anchor, extra, noise: the weights of x, F, D, up to 4 history
            tensors, anchor, extra and noise in the new sample.
        data_from_x, data_from_model: D = data_from_x x + data_from_model F.
        clip: D is clamped to [-clip, clip]; inf for no clamp.
        converted: the weights of x, F and D in the converted output; by default it is D.
        next_scale: next_input = next_scale * sample.
        guidance: the weights of up to 4 model outputs in F; classifier-free guidance w of
            (cond, uncond) is (w, 1 - w).
        device, dtype: of the table; float32 or float64.

    Returns:
        [21], or [B, 21] if any entry is per sample.

    Raises:
        ValueError: NaN or inf (clip may be inf), a negative clip, too many entries, sizes B that
            differ, or another dtype.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"step_coefficients: dtype is {dtype}, expected float32 or float64")
    entries: list[Entry] = [
        x, model, data, *_padded("history", history, MAX_HISTORY), anchor, extra, noise,
        data_from_x, data_from_model, clip, *_padded("converted", converted, 3), next_scale,
        *_padded("guidance", guidance, MAX_OUTPUTS),
    ]  # fmt: skip
    if all(isinstance(entry, (int, float)) for entry in entries):
        table = torch.tensor(entries, dtype=dtype, device=device)
    else:
        table = _stacked(entries, dtype, device)
    _check_values(table)
    return table


def _padded(name: str, entries: Sequence[Entry], count: int) -> list[Entry]:
    if len(entries) > count or (name == "converted" and len(entries) != count):
        limit = f"{count}" if name == "converted" else f"at most {count}"
        raise ValueError(f"step_coefficients: {name} has {len(entries)} entries, expected {limit}")
    return [*entries, *(0.0 for _ in range(count - len(entries)))]


def _stacked(entries: list[Entry], dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    columns = [torch.as_tensor(entry, dtype=dtype, device=device) for entry in entries]
    sizes = {column.shape for column in columns if column.dim()}
    if len(sizes) > 1 or any(len(size) != 1 for size in sizes):
        got = ", ".join(str(tuple(size)) for size in sorted(sizes))
        raise ValueError(
            f"step_coefficients: per-sample entries have shapes {got}, expected one (B,) for all"
        )
    return torch.stack(torch.broadcast_tensors(*columns), dim=-1)


def _check_values(table: Tensor) -> None:
    values = table.detach()
    clip = values[..., formula.CLIP]
    if bool((clip < 0).any()):
        raise ValueError(f"step_coefficients: clip is {float(clip.min())}, expected >= 0")
    finite = values.isfinite()
    finite[..., formula.CLIP] = ~clip.isnan()
    if not bool(finite.all()):
        names = [_NAMES[int(i)] for i in (~finite).reshape(-1, COLUMNS).any(0).nonzero()]
        raise ValueError(
            f"step_coefficients: {', '.join(names)}: expected finite numbers, got NaN or inf"
        )


_NAMES = (
    "x", "model", "data", "history[0]", "history[1]", "history[2]", "history[3]", "anchor", "extra",
    "noise", "data_from_x", "data_from_model", "clip", "converted[0]", "converted[1]",
    "converted[2]", "next_scale", "guidance[0]", "guidance[1]", "guidance[2]", "guidance[3]",
)  # fmt: skip
