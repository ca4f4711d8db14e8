"""enable, disable and status: what is switched on, and how to undo it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module, metadata
from types import TracebackType
from typing import Any

from suffuse.compat._install import install_status

Undo = Callable[[], None]

# Library -> module with a function apply(*targets) that returns (what it did, how to undo it).
INTEGRATIONS = {
    "diffusers": "suffuse.compat.diffusers._swap",
    "sdpa": "suffuse.compat._sdpa",
    "transformers": "suffuse.compat._transformers",
}
_PACKAGES = {"sdpa": "torch"}  # where the library is not called as its package


@dataclass
class Enabled(AbstractContextManager["Enabled"]):
    """One call of `enable`; leaving it as a context, or `disable`, undoes it.

    Attributes:
        library: its name.
        changes: what was done, in words.
    """

    library: str
    changes: list[str] = field(default_factory=list)
    _undo: list[Undo] = field(default_factory=list, repr=False)

    @property
    def active(self) -> bool:
        """False once it is undone."""
        return self in _active

    def disable(self) -> None:
        """Undoes what this call did, the last thing first; does nothing the second time."""
        if not self.active:
            return
        _active.remove(self)
        for undo in reversed(self._undo):
            undo()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disable()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


_active: list[Enabled] = []


def enable(library: str, *targets: Any) -> Enabled:
    """Lets suffuse take over a library's part, in place.

    Args:
        library: "diffusers".
        targets: pipelines whose scheduler is replaced by the drop-in of the same name with the same
            configuration. None at all: every pipeline that is made from now on.

    Returns:
        A handle: a context manager, with `disable`.

    Raises:
        ValueError: an unknown library.
        ImportError: the library is not installed.
        TypeError: a target that is no pipeline, or whose scheduler has no drop-in; nothing is
            changed then. A class of the user's own is never shadowed by one of ours.
        RuntimeError: it is enabled already for all pipelines, or another package has patched the
            same place.
    """
    module = _integration(library)
    if importlib.util.find_spec(_PACKAGES.get(library, library)) is None:
        raise ImportError(f"enable: {library} is not installed")
    handle = Enabled(library)
    for change, undo in module.apply(*targets):
        handle.changes.append(change)
        handle._undo.append(undo)
    _active.append(handle)
    return handle


def disable(library: str | None = None) -> None:
    """Undoes all that `enable` did for a library (default: for all), the last call first."""
    if library is not None:
        _integration(library)
    for handle in reversed(list(_active)):
        if library in (None, handle.library):
            handle.disable()


def status() -> dict[str, dict[str, Any]]:
    """For every library: its installed version (None if there is none) and what is switched on.

    Of a package that `install` stands in for: the version of the real one.
    """
    enabled = {
        library: {
            "installed": _version(_PACKAGES.get(library, library)),
            "enabled": any(handle.library == library for handle in _active),
            "changes": [
                c for handle in _active if handle.library == library for c in handle.changes
            ],
        }
        for library in INTEGRATIONS
    }
    return enabled | install_status()


def _integration(library: str) -> Any:
    if library not in INTEGRATIONS:
        known = ", ".join(map(repr, INTEGRATIONS))
        raise ValueError(f"suffuse.compat: library is {library!r}, expected one of {known}")
    return import_module(INTEGRATIONS[library])


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
