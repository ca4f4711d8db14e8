"""The environment report tells the truth and survives a missing host module."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from suffuse import info
from suffuse.testing import ALL_ISAS, cpu_isa, cpu_isas, use_isa


def test_report_is_plain_data():
    report = json.loads(json.dumps(info.report()))
    assert report["torch"] == torch.__version__
    assert report["cpu"]["isa"] in cpu_isas()
    assert set(report["ops"]) == set(info.OPS)
    assert "cpu" in report["libraries"]
    assert (
        report["build"]["isas"].split(",") == list(ALL_ISAS) or report["build"]["isas"] == "scalar"
    )


def test_host_module_agrees_with_the_library():
    host = info.host_facts()
    assert host["available"]
    assert host["supported_isas"] == cpu_isas()
    assert all(size >= 0 for size in host["cache_bytes"].values())


def test_report_without_the_host_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "suffuse._host", None)
    host = info.report()["host"]
    assert host == {"available": False, "why": host["why"]}


@pytest.mark.parametrize("isa", cpu_isas())
def test_isa_can_be_forced(isa):
    before = cpu_isa()
    with use_isa(isa):
        assert cpu_isa() == isa
        assert isa in info.backend_table()["attention"]["cpu"]
    assert cpu_isa() == before


def test_unknown_isa_is_refused_and_changes_nothing():
    before = cpu_isa()
    with pytest.raises(
        RuntimeError, match=r"SUFFUSE_CPU_ISA: this CPU takes one of \(auto, .*got 'neon'"
    ):
        torch.ops.suffuse.set_cpu_isa("neon")
    assert cpu_isa() == before


@pytest.mark.parametrize("name, code", [("scalar", 0), ("neon", 2)])
def test_environment_variable_forces_the_isa(name, code):
    run = subprocess.run(
        [sys.executable, "-m", "suffuse", "info", "--json"],
        env={**os.environ, "SUFFUSE_CPU_ISA": name},
        capture_output=True,
        text=True,
    )
    assert run.returncode == code
    if code == 0:
        assert json.loads(run.stdout)["cpu"]["isa"] == name
    else:
        assert run.stderr.startswith("suffuse: error: SUFFUSE_CPU_ISA: this CPU takes one of")
        assert len(run.stderr.splitlines()) == 1
