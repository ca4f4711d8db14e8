"""Unmodified transformers models give the same with and without the installed drop-ins, on our ops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("transformers_mamba.py")
SCAN = {
    "logits": {"causal_conv1d_fwd", "selective_scan_fwd"},
    "generated": {
        "causal_conv1d_fwd", "selective_scan_fwd", "causal_conv1d_update", "selective_state_update",
    },
    "gradients": {
        "causal_conv1d_fwd", "selective_scan_fwd", "causal_conv1d_bwd", "selective_scan_bwd",
    },
}  # fmt: skip


def outcome(kind: str, with_us: bool, folder: Path) -> dict[str, Any]:
    out = folder / f"{kind}-{with_us}.pt"
    subprocess.run([sys.executable, SCRIPT, kind, str(int(with_us)), out], check=True)
    return torch.load(out)


def assert_same(ours: Any, plain: Any, name: str) -> None:
    if isinstance(plain, dict):
        assert ours.keys() == plain.keys()
        for key in plain:
            assert_same(ours[key], plain[key], f"{name}.{key}")
        return
    if not plain.is_floating_point():
        assert torch.equal(ours, plain), name
        return
    scale = plain.abs().max().clamp(min=1e-6)
    assert float((ours - plain).abs().max() / scale) <= 1e-4, name


@pytest.fixture(params=["mamba", "falcon_mamba", "jamba", "mamba2"], scope="module")
def outcomes(request: Any, tmp_path_factory: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs")
    kind = request.param
    return kind, outcome(kind, True, folder), outcome(kind, False, folder)


def test_results_are_the_same(outcomes: Any) -> None:
    kind, ours, plain = outcomes
    for name in ("logits", "generated", "gradients"):
        assert_same(ours[name], plain[name], name)
    # transformers' FalconMamba norms its step sizes before their projection, mamba_ssm's fused
    # function, which it calls in training, behind it.
    if kind != "falcon_mamba":
        assert_same(ours["training"], plain["training"], "training")


def test_our_ops_ran(outcomes: Any) -> None:
    kind, ours, plain = outcomes
    assert not any(plain["ops"].values())
    for name, expected in SCAN.items():
        if kind == "mamba2":
            scans = {"selective_scan_fwd": "linear_scan", "selective_scan_bwd": "linear_scan"}
            expected = {scans.get(op, op) for op in expected}
        assert set(ours["ops"][name]) == expected, name
    training = "linear_scan" if kind == "mamba2" else "selective_scan_bwd"
    assert training in ours["ops"]["training"]
