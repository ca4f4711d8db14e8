"""All tests of the folder that are skipped, for want of a device, are one line of the summary."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        report.longrepr = ("tests/gpu", None, report.longrepr[2])  # type: ignore[assignment]
    return report
