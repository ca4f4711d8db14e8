"""Configuration of the drop-in schedulers: the part of diffusers' ConfigMixin that they need.

Written out here so that the classes work without diffusers. The JSON files are the same in both
directions: `scheduler_config.json` with `_class_name` and one entry for every argument.
"""

from __future__ import annotations

import inspect
import json
import os
import warnings
from pathlib import Path
from typing import Any, ClassVar, NoReturn

CONFIG_NAME = "scheduler_config.json"
# The release whose arguments and files these classes follow; written into every file.
DIFFUSERS_VERSION = "0.42.1"
# Stands for the default of an argument that has none.
REQUIRED = inspect.Parameter.empty
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")


class FrozenConfig(dict[str, Any]):
    """A dict whose entries are attributes too, and that cannot be changed."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no entry {name!r}") from None

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("a configuration cannot be changed; use register_to_config or from_config")

    __setattr__ = __setitem__ = __delitem__ = __delattr__ = _refuse
    pop = popitem = update = setdefault = clear = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenConfig, (dict(self),)


class Configured:
    """Base of the schedulers: arguments declared as data, kept in `config`, saved as JSON.

    A subclass lists its arguments with their defaults in `_config`, in order; `__init__` is made
    from that. Afterwards `_setup` runs.
    """

    _config: ClassVar[dict[str, Any]] = {}
    # Former names of arguments.
    _renamed: ClassVar[dict[str, str]] = {}
    _known: ClassVar[set[str]] = set()

    config_name: ClassVar[str] = CONFIG_NAME
    ignore_for_config: ClassVar[list[str]] = []
    has_compatibles: ClassVar[bool] = True
    _deprecated_kwargs: ClassVar[list[str]] = []
    _compatibles: ClassVar[list[str]] = []

    _internal_dict: dict[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "_config" in cls.__dict__:
            cls.__init__ = _initialiser(cls._config)  # type: ignore[method-assign]
            Configured._known.update(cls._config)

    def _setup(self) -> None:
        """Fills in the scheduler's tables from `config`."""

    @property
    def config(self) -> Any:
        """The arguments, as a frozen dict with attribute access."""
        return self._internal_dict

    def register_to_config(self, **entries: Any) -> None:
        """Adds or replaces entries of `config`."""
        self._internal_dict = FrozenConfig({**getattr(self, "_internal_dict", {}), **entries})

    def __getattr__(self, name: str) -> Any:
        config = self.__dict__.get("_internal_dict", {})
        if name in config:
            return config[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def to_json_string(self) -> str:
        """`config` as diffusers writes it."""
        entries = {k: v for k, v in self.config.items() if k != "_use_default_values"}
        entries |= {"_class_name": type(self).__name__, "_diffusers_version": DIFFUSERS_VERSION}
        return json.dumps(entries, indent=2, sort_keys=True, default=_plain) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Writes `to_json_string` to a file."""
        Path(json_file_path).write_text(self.to_json_string(), encoding="utf-8")

    def save_config(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Writes `scheduler_config.json` into the directory, which is created if necessary.

        Raises:
            NotADirectoryError: the path is a file.
            NotImplementedError: push_to_hub, or any further argument.
        """
        name = f"{type(self).__name__}.save_config"
        if push_to_hub or kwargs:
            refused = ", ".join([*(["push_to_hub"] if push_to_hub else []), *kwargs])
            raise NotImplementedError(f"{name}: {refused} is not supported; upload the folder")
        folder = Path(save_directory)
        if folder.is_file():
            raise NotADirectoryError(
                f"{name}: save_directory {folder} is a file, expected a folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / self.config_name)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """The same as `save_config`."""
        self.save_config(save_directory, push_to_hub, **kwargs)

    @classmethod
    def load_config(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> dict[str, Any]:
        """The configuration saved in a folder or file; any other name is left to diffusers' hub.

        subfolder: of the folder. Further arguments are those of the hub's download.

        Raises:
            FileNotFoundError: neither exists and diffusers is not installed.
        """
        path = Path(pretrained_model_name_or_path)
        local = path / (kwargs.get("subfolder") or "") / cls.config_name
        for file in (path, local):
            if file.is_file():
                return json.loads(file.read_text(encoding="utf-8"))
        from_hub = getattr(super(), "load_config", None)
        if from_hub is None or path.is_dir():
            raise FileNotFoundError(f"{cls.__name__}.load_config: there is no file {local}")
        return from_hub(str(pretrained_model_name_or_path), **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        subfolder: str | None = None,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """A scheduler from a saved configuration; further arguments replace its entries."""
        hub = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
        config = cls.load_config(pretrained_model_name_or_path, subfolder=subfolder, **hub)
        return cls.from_config(config, return_unused_kwargs, **kwargs)

    @classmethod
    def from_config(
        cls, config: dict[str, Any] | None = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """A scheduler with the entries of `config` (of any scheduler class) that it takes.

        Entries that this class does not take are kept in its `config`, so that going on to a third
        class loses nothing. Entries that no class takes are kept with a warning. Defaults of the
        class that made `config` are not carried over, as in diffusers.

        kwargs: replace entries. With return_unused_kwargs the result is (scheduler, the rest).
        """
        if not isinstance(config, dict):
            kind = type(config).__name__
            raise TypeError(
                f"{cls.__name__}.from_config: config is a {kind}, expected a dict; from_pretrained "
                "takes a path"
            )
        defaults = {*config.get("_use_default_values", ()), "_use_default_values"}
        entries = {k: v for k, v in config.items() if k not in defaults}
        taken = {*cls._config, *cls._renamed}
        arguments = {k: v for k, v in {**entries, **kwargs}.items() if k in taken}
        hidden = {k: v for k, v in entries.items() if k not in arguments}
        unknown = [k for k in hidden if k not in cls._known and not k.startswith("_")]
        if unknown:
            names = ", ".join(unknown)
            warnings.warn(f"{cls.__name__}: no scheduler takes {names}; kept unused", stacklevel=2)
        scheduler = cls(**arguments)
        if "_class_name" in hidden:
            hidden["_class_name"] = cls.__name__
        scheduler.register_to_config(**hidden)
        if not return_unused_kwargs:
            return scheduler
        return scheduler, {**{k: v for k, v in kwargs.items() if k not in taken}, **hidden}


def _initialiser(config: dict[str, Any]) -> Any:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(k, kind, default=v) for k, v in config.items()]
    signature = inspect.Signature(parameters)
    defaults = {k: v for k, v in config.items() if v is not REQUIRED}

    def __init__(self: Configured, *args: Any, **kwargs: Any) -> None:
        for old, new in self._renamed.items():
            if old in kwargs:
                kwargs[new] = kwargs.pop(old)
        hidden = {k: kwargs.pop(k) for k in list(kwargs) if k.startswith("_")}
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        # Lists are copied: a default must not be shared by two schedulers.
        values = {
            k: list(v) if isinstance(v, list) else v for k, v in {**defaults, **given}.items()
        }
        unset = [k for k in config if k not in given]
        self.register_to_config(**hidden, **values, _use_default_values=unset)
        self._setup()

    myself = inspect.Parameter("self", kind)
    __init__.__signature__ = inspect.Signature([myself, *parameters])  # type: ignore[attr-defined]
    return __init__


def _plain(value: Any) -> Any:
    """What json cannot write by itself: arrays, tensors, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"an entry of type {type(value).__name__} cannot be saved")
