"""Skips the folder in one line where the emulator cannot be built; continuous integration has to."""

from __future__ import annotations

import os

import pytest

from emulated import build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        build.compiler()
        build.cuda_include()
    except build.CannotBuild as reason:
        if os.environ.get("CI"):
            raise
        skip = pytest.mark.skip(reason=f"cannot build the emulator: {reason}")
        for item in items:
            if item.path.is_relative_to(build.KERNELS) or item.path.is_relative_to(build.ENGINE):
                item.add_marker(skip)
