"""Config dataclasses: types checked, read from plain dicts."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

Config = TypeVar("Config")

_ACCEPTED = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,)}


def check_types(config: Any) -> None:
    """Raise ValueError where a field of a dataclass instance is not of its annotated type.

    Knows the annotations int, float, bool and str, as strings. A whole number is a float too; a
    bool is no number.
    """
    for field in fields(config):
        value, types = getattr(config, field.name), _ACCEPTED.get(str(field.type))
        if types is not None and type(value) not in types:
            raise ValueError(
                f"{type(config).__name__}: {field.name} is {value!r}, expected {field.type}"
            )


def from_dict(config: type[Config], values: Any) -> Config:
    """Make the dataclass `config` of a dict, as a file gave it.

    Raises ValueError naming the key where it is unknown, missing or has a wrong value.
    """
    name = config.__name__
    if not isinstance(values, dict):
        raise ValueError(f"{name}: got {values!r}, expected a table of keys and values")
    known = {field.name: field for field in fields(config)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"{name}: unknown key {key!r}, expected one of {', '.join(known)}")
    required = [
        key
        for key, field in known.items()
        if field.default is MISSING and field.default_factory is MISSING
    ]
    missing = [key for key in required if key not in values]
    if missing:
        raise ValueError(f"{name}: missing {', '.join(missing)}")
    return config(**values)
