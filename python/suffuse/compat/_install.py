"""install and uninstall: suffuse's drop-ins under the real names of the packages they stand for."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module, metadata
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# Import name -> our package with the same modules, functions and signatures, and a __version__.
STAND_INS = {
    "causal_conv1d": "suffuse.compat.causal_conv1d",
    "flash_attn": "suffuse.compat.flash_attn",
    "mamba_ssm": "suffuse.compat.mamba_ssm",
}


def install(names: str | Iterable[str]) -> None:
    """Makes suffuse's drop-ins importable under the real names, for code that cannot be changed.

    ``import mamba_ssm`` and all its modules then give ``suffuse.compat.mamba_ssm`` and its modules;
    `importlib.util.find_spec` and `importlib.metadata.version` find them too, with the version whose
    interface they have. A transformers model looks for the packages when its module is imported:
    install first. What is installed already stays.

    Args:
        names: one or more of "causal_conv1d", "flash_attn", "mamba_ssm".

    Raises:
        ValueError: an unknown name.
        RuntimeError: the real package is there, which is never shadowed. Nothing is installed then.
    """
    names = _known("install", names)
    new = [name for name in names if name not in _finder.stand_ins]
    for name in new:
        _refuse_to_shadow(name)
    for name in new:
        _finder.stand_ins[name] = import_module(STAND_INS[name])
    if _finder.stand_ins and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if new:
        _warn_of_early_modules()


def uninstall(names: str | Iterable[str] | None = None) -> None:
    """Takes names back that `install` put up (default: all of them). Others are left alone.

    Code that has imported a function meanwhile keeps it.

    Raises:
        ValueError: an unknown name.
    """
    for name in _known("uninstall", STAND_INS if names is None else names):
        if _finder.stand_ins.pop(name, None) is None:
            continue
        for module in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            del sys.modules[module]
    if not _finder.stand_ins and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


def install_status() -> dict[str, dict[str, Any]]:
    """For every name: the real package's version (None if there is none) and what is put up."""
    status = {}
    for name, ours in STAND_INS.items():
        enabled = name in _finder.stand_ins
        status[name] = {
            "installed": None if enabled else _real_version(name),
            "enabled": enabled,
            "changes": [f"import {name}: {ours}"] if enabled else [],
        }
    return status


def _known(function: str, names: str | Iterable[str]) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in STAND_INS:
            known = ", ".join(map(repr, STAND_INS))
            raise ValueError(
                f"suffuse.compat.{function}: name is {name!r}, expected some of {known}"
            )
    return names


def _refuse_to_shadow(name: str) -> None:
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        return
    version = _real_version(name)
    raise RuntimeError(
        f"suffuse.compat.install: {name} {version or '(no version)'} is installed, and a real "
        f"package is never shadowed: uninstall it, or import {STAND_INS[name]} by its own name"
    )


def _real_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _warn_of_early_modules() -> None:
    decided = [
        name
        for name, module in list(sys.modules.items())
        if name.startswith("transformers.models.")
        and "use_kernel_func_from_hub_with_fallback" in getattr(module, "__dict__", {})
    ]
    if decided:
        warnings.warn(
            f"suffuse.compat.install: {', '.join(decided)} was imported before and keeps the "
            "functions that it found then",
            stacklevel=3,
        )


class _Finder:
    """Finds the stand-ins, and the metadata that version checks read, for the import system."""

    def __init__(self) -> None:
        self.stand_ins: dict[str, ModuleType] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, rest = name.partition(".")
        if root not in self.stand_ins:
            return None
        ours = ".".join([STAND_INS[root], rest]) if rest else STAND_INS[root]
        found = importlib.util.find_spec(ours)
        if found is None:
            return None
        spec = ModuleSpec(name, _Loader(ours), origin=found.origin)
        spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def find_distributions(
        self, context: metadata.DistributionFinder.Context | None = None
    ) -> Iterable[metadata.Distribution]:
        wanted = None if context is None else context.name
        for name, module in self.stand_ins.items():
            if wanted is None or _normal(wanted) == _normal(name):
                yield _Distribution(name, module.__version__)


class _Loader(Loader):
    """Gives our module itself: one module, two names."""

    def __init__(self, ours: str) -> None:
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(self._ours)


class _Distribution(metadata.Distribution):
    """What pip would have written beside the package."""

    def __init__(self, name: str, version: str) -> None:
        self._import_name, self._version = name, version

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return (
                f"Metadata-Version: 2.1\nName: {_normal(self._import_name)}\n"
                f"Version: {self._version}\nSummary: the drop-in of suffuse\n"
            )
        return f"{self._import_name}\n" if filename == "top_level.txt" else None

    def locate_file(self, path: Any) -> Any:
        return Path(__file__).parent / path


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


_finder: Any = _Finder()
