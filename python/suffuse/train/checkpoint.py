"""Checkpoint folders that are complete or not there at all.

A checkpoint is a folder `step-00001000` with `state.safetensors` (every tensor), `state.json`
(every number, written last, with the sizes of all files) and what the caller's `export` adds. It
is written under another name and renamed, so that a process killed at any moment leaves the
checkpoints before it as they were. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS_FILE = "state.safetensors"
STATE_FILE = "state.json"
_PREFIX, _UNFINISHED, _DISCARDED = "step-", ".unfinished-", ".discarded-"


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    *,
    keep: int,
    export: Callable[[Path], None] | None = None,
) -> Path:
    """Write the checkpoint of `step` and delete all but the latest `keep`.

    folder: of all checkpoints; made if needed.
    state: anything JSON can hold.
    export: called with the unfinished folder, to add files.
    Raises FileExistsError where a complete checkpoint of this step is there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    final = folder / f"{_PREFIX}{step:08d}"
    if is_complete(final):
        raise FileExistsError(f"{final} is there already")
    unfinished = folder / f"{_UNFINISHED}{final.name}"
    unfinished.mkdir()
    copies = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    save_file(copies, unfinished / TENSORS_FILE)
    if export is not None:
        export(unfinished)
    sizes = {str(path.relative_to(unfinished)): path.stat().st_size for path in _files(unfinished)}
    text = json.dumps({**state, "step": step, "files": sizes}, indent=1)
    (unfinished / STATE_FILE).write_text(text + "\n", encoding="utf-8")
    _flush(unfinished)
    if final.exists():  # damaged: it would hide this one
        _discard(final)
    unfinished.rename(final)
    _flush_entry(folder)
    for old in checkpoints(folder)[:-keep]:
        _discard(old)
    return final


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and state of a checkpoint folder. Raises ValueError if incomplete."""
    if not is_complete(path):
        raise ValueError(f"{path} is no complete checkpoint")
    return load_file(path / TENSORS_FILE), _read_state(path)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, earliest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if is_complete(path))


def is_complete(path: Path) -> bool:
    """Whether every file of the checkpoint is there in its full size."""
    try:
        sizes = _read_state(path)["files"].items()
        return all((path / name).stat().st_size == size for name, size in sizes)
    except (OSError, ValueError, KeyError):
        return False


def _read_state(path: Path) -> dict[str, Any]:
    return json.loads((path / STATE_FILE).read_text(encoding="utf-8"))


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _flush(folder: Path) -> None:
    """Bring all files of a folder, then its entries, to the disk."""
    for path in [*_files(folder), *(p for p in folder.rglob("*") if p.is_dir()), folder]:
        _flush_entry(path)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    """Delete a folder in a way that never leaves half of it under a checkpoint's name."""
    shutil.rmtree(path.rename(path.with_name(_DISCARDED + path.name)))


def _remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left behind."""
    for prefix in (_UNFINISHED, _DISCARDED):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path)
