"""Model folders as diffusers writes them: `config.json` beside one safetensors file."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises FileNotFoundError where it is missing and ValueError where it is no JSON object.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no model folder: it has no {CONFIG_FILE}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a JSON {type(config).__name__}, expected an object")
    return config


def read_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """The folder's weights by parameter name, on the CPU, in the dtypes of the file.

    Raises FileNotFoundError where the file is missing, NotImplementedError for weights split into
    several files, ValueError where the file is damaged.
    """
    path = Path(folder) / WEIGHTS_FILE
    if path.with_name(WEIGHTS_FILE + ".index.json").is_file():
        raise NotImplementedError(
            f"{folder} has its weights split into several files, expected one {WEIGHTS_FILE}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS_FILE}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error


def write_folder(folder: str | Path, config: dict[str, Any], model: torch.nn.Module) -> None:
    """Write `config` and the model's state dict into `folder`, which is made if needed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def without_neutral_keys(
    config: type, values: dict[str, Any], neutral: dict[str, tuple[Any, ...] | None]
) -> dict[str, Any]:
    """The entries of `values` that are fields of the dataclass `config`.

    values: a `config.json`; keys that start with "_" are its writer's own notes.
    neutral: keys that change nothing, with the values they may have (None: any).
    Raises NotImplementedError for any other key and ValueError where a required field is missing.
    """
    name, known = config.__name__, {field.name: field for field in fields(config)}
    for key in values.keys() - known.keys():
        if key.startswith("_"):
            continue
        if key not in neutral:
            raise NotImplementedError(f"{name}: unknown key {key!r} with value {values[key]!r}")
        allowed = neutral[key]
        if allowed is not None and values[key] not in allowed:
            raise NotImplementedError(
                f"{name}: {key} is {values[key]!r}, expected one of {list(allowed)}"
            )
    required = [key for key, field in known.items() if field.default is MISSING]
    missing = [key for key in required if key not in values]
    if missing:
        raise ValueError(f"{name}: missing {', '.join(missing)}")
    return {key: value for key, value in values.items() if key in known}
