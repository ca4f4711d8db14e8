"""Model folders as `diffusers` writes them: `config.json` beside `diffusion_pytorch_model.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's `config.json` as a dict.

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

    Raises FileNotFoundError where the file is missing, NotImplementedError for weights split into several files,
    ValueError where the file is damaged.
    """
    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        if path.with_name(WEIGHTS_FILE + ".index.json").is_file():
            raise NotImplementedError(
                f"{folder}: weights split into several files, expected one {WEIGHTS_FILE}"
            )
        raise FileNotFoundError(f"{folder} has no {WEIGHTS_FILE}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error


def write_folder(folder: str | Path, config: dict[str, Any], model: torch.nn.Module) -> None:
    """Write `config` and the model's state dict into `folder`, which is made if needed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
