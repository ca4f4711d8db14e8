"""Every op has every layer: one word, the same in each folder. What an op still lacks is listed in LACKS.

The list can only shrink: an entry whose layer exists fails the test as loudly as a layer that is missing.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

import suffuse
from benchmarks import registry
from suffuse import info

ROOT = Path(__file__).parents[1]

# Layers that an op does not have yet, with the reason.
LACKS: dict[str, dict[str, str]] = {}


def ops() -> list[str]:
    """The op words: the folders of csrc/ops."""
    return sorted(path.name for path in (ROOT / "csrc" / "ops").iterdir() if path.is_dir())


def source(path: str) -> str:
    file = ROOT / path
    return file.read_text() if file.exists() else ""


def files_of_tests(op: str) -> list[Path]:
    return sorted((ROOT / "tests" / "ops").glob(f"test_{op}*.py"))


def has_schema(op: str) -> bool:
    schemas = source("csrc/library.cpp")
    return all(f'"{name}(' in schemas for name in info.OPS[op])


def python_of(op: str) -> str:
    """The op's public module and the private ones beside it."""
    parts = sorted((ROOT / "python" / "suffuse" / "ops").glob(f"_{op}*.py"))
    return source(f"python/suffuse/ops/{op}.py") + "".join(path.read_text() for path in parts)


def has_fake(op: str) -> bool:
    code = python_of(op)
    return all(f'register_fake("suffuse::{name}"' in code for name in info.OPS[op])


def has_autograd(op: str) -> bool:
    code = source(f"python/suffuse/ops/{op}.py")
    return "torch.autograd.Function" in code and "setup_context" in code and ".apply(" in code


def has_benchmark(op: str) -> bool:
    return any(case.op == op for case in registry.cases())


LAYERS = {
    "public_function": lambda op: callable(getattr(suffuse, op, None)),
    "schema": has_schema,
    "bind": lambda op: bool(source(f"csrc/ops/{op}/bind.cpp")),
    "cpu_kernel": lambda op: (
        bool(source(f"csrc/ops/{op}/cpu/kernel.cpp")) and info.has_kernel(op, "cpu")
    ),
    "cuda_kernel": lambda op: bool(source(f"csrc/ops/{op}/cuda/kernel.cuh")),
    "fake": has_fake,
    "autograd": has_autograd,
    "reference": lambda op: f"def {op}(" in source(f"python/suffuse/reference/{op}.py"),
    "test": lambda op: bool(source(f"tests/ops/test_{op}.py")),
    "opcheck": lambda op: any("opcheck(" in f.read_text() for f in files_of_tests(op)),
    "gradgradcheck": lambda op: any("gradgradcheck(" in f.read_text() for f in files_of_tests(op)),
    "emulated_test": lambda op: bool(source(f"tests/emulated/test_{op}.py")),
    "benchmark": has_benchmark,
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("op", ops())
def test_layer(op: str, layer: str) -> None:
    there = LAYERS[layer](op)
    if layer in LACKS.get(op, {}):
        assert not there, f"{op} has its {layer} now: remove it from LACKS"
    else:
        assert there, f"{op} lacks its {layer}"


def test_every_op_has_one_word_everywhere() -> None:
    assert ops() == sorted(info.OPS)
    assert ops() == sorted(path.stem for path in ROOT.glob("python/suffuse/ops/[a-z]*.py"))
    assert ops() == sorted(path.stem for path in ROOT.glob("python/suffuse/reference/[a-z]*.py"))
    assert set(LACKS) <= set(ops())


def test_no_schema_outside_the_list() -> None:
    defined = set(re.findall(r'm\.def\(\s*"(\w+)\(', source("csrc/library.cpp")))
    listed = {name for names in info.OPS.values() for name in names}
    assert defined - {"cpu_isa", "set_cpu_isa"} == listed
    for name in listed:
        assert torch._C._dispatch_has_kernel(f"suffuse::{name}")


def test_public_functions_say_shapes_and_sources() -> None:
    for op in ops():
        doc = getattr(suffuse, op).__doc__ or ""
        assert "Args:" in doc and "Returns:" in doc and "Raises:" in doc, op
        assert re.search(r"\[B, ", doc), f"{op}: no shape in the docstring"


# What every layer may use: it imports nothing of the project.
FOUNDATION = {"suffuse._config"}
# Layer -> the layers that it may import. What is absent may import everything.
IMPORTS = {
    "reference": {"reference"},
    "ops": {"ops", "reference", "_library"},
    "nn": {"nn", "ops"},
    "models": {"models", "nn", "ops"},
    "diffusion": {"diffusion", "ops"},
    "data": {"data"},
    "train": {"train"},
}


@pytest.mark.parametrize("layer", IMPORTS)
def test_layers_import_downwards_only(layer: str) -> None:
    for path in (ROOT / "python" / "suffuse" / layer).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                if node.module == "suffuse":
                    names = [f"suffuse.{alias.name}" for alias in node.names]
            for name in names:
                if name.startswith("suffuse.") and name not in FOUNDATION:
                    assert name.split(".")[1] in IMPORTS[layer], f"{path.name} imports {name}"
