"""A log of one JSON object a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class JsonLog:
    """Appends to `path`. Lines of steps after `step` are dropped first, as is a torn last line, so
    that the log of a resumed training reads like one that never stopped."""

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= step]
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(unfinished, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, visible to readers at once."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
