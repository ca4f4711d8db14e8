"""One list of cases: inputs, FLOPs, compulsory bytes, and the peers each op is measured against."""

from __future__ import annotations

from benchmarks.attention_cases import attention_cases, qk_norm_cases, rotary_cases
from benchmarks.case import Case, Functions
from benchmarks.sampler_cases import gram_cases, sampler_cases
from benchmarks.scans_cases import conv_cases, linear_scan_cases, s4_cases, selective_scan_cases

__all__ = ["Case", "Functions", "cases"]


def cases() -> list[Case]:
    """All cases, grouped by op."""
    return [
        *attention_cases(),
        *conv_cases(),
        *gram_cases(),
        *linear_scan_cases(),
        *qk_norm_cases(),
        *rotary_cases(),
        *s4_cases(),
        *sampler_cases(),
        *selective_scan_cases(),
    ]
