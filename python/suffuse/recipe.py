"""What the command line trains and samples: class-conditional flow matching on pictures.

The model learns the velocity noise - data of x_t = (1 - t) data + t noise (rectified flow, Liu et
al. 2023), with logit-normal times and labels dropped at random for classifier-free guidance.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from suffuse._config import check_types, from_dict
from suffuse.data import Batches, Pictures, load_digits
from suffuse.data.files import load_pictures
from suffuse.diffusion import (
    ClassifierFree,
    Flow,
    Solver,
    Unguided,
    flow_matching_loss,
    logit_normal_times,
    sample,
    uniform,
)
from suffuse.models import DiT, DiTConfig
from suffuse.train import TrainConfig, Trainer
from suffuse.train.checkpoint import checkpoints

SAMPLING_FILE = "sampling.json"
TIME_SCALE = 1000.0


@dataclass(frozen=True)
class Recipe:
    """A whole training.

    data: "digits", or the path of a safetensors file; see `suffuse.data.files.load_pictures`.
    output: folder for the log and the checkpoints.
    model: fields of `DiTConfig`. What the data decides (channels, size, classes) may be left out,
        and `time_scale` is 1000 if it is.
    train: fields of `TrainConfig`.
    batch_size: pictures a step.
    class_dropout: share of the labels that are replaced by the null class.
    seed: of the first weights and of the order of the data.
    """

    data: str
    output: str
    model: dict[str, Any]
    train: dict[str, Any]
    batch_size: int = 64
    class_dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.class_dropout < 1.0:
            raise ValueError(f"Recipe: class_dropout is {self.class_dropout}, expected 0 <= it < 1")
        if self.seed < 0:
            raise ValueError(f"Recipe: seed is {self.seed}, expected at least 0")

    def load_data(self) -> Pictures:
        """The pictures to train on."""
        return load_digits()[0] if self.data == "digits" else load_pictures(self.data)

    def model_config(self, data: Pictures) -> DiTConfig:
        """The model's config. Raises ValueError where it does not fit the data."""
        if not isinstance(self.model, dict):
            raise ValueError(f"Recipe: model is {self.model!r}, expected a table")
        channels, height, width = data.images.shape[1:]
        if height != width:
            raise ValueError(f"Recipe: pictures are {height} x {width}, expected squares")
        known = {
            "in_channels": channels,
            "out_channels": channels,
            "sample_size": height,
            "num_embeds_ada_norm": int(data.labels.max()) + 1,
        }
        for key, value in known.items():
            if self.model.get(key, value) != value:
                raise ValueError(f"Recipe: model {key} is {self.model[key]}, but data has {value}")
        return from_dict(DiTConfig, {**known, "time_scale": TIME_SCALE, **self.model})

    def make_trainer(
        self, *, folder: Path | None, data: Pictures, attention: Callable[..., Any] | None = None
    ) -> Trainer:
        """A trainer at step 0. folder: None writes nothing. attention: None is the model's own."""
        config = self.model_config(data)
        torch.manual_seed(self.seed)
        model = DiT(config) if attention is None else DiT(config, attention=attention)
        return Trainer(
            model.to("cuda" if torch.cuda.is_available() else "cpu"),
            self.loss,
            Batches(tuple(data), batch_size=self.batch_size, seed=self.seed),
            from_dict(TrainConfig, self.train),
            folder=folder,
            export=export_for_sampling,
        )

    def loss(
        self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> Tensor:
        """Flow matching on (images [B, C, H, W], labels [B]), some labels dropped."""
        images, labels = batch
        draw = torch.rand(len(labels), generator=generator, device=labels.device)
        labels = labels.masked_fill(draw < self.class_dropout, cast(DiT, model).null_label)
        times = logit_normal_times(len(images), generator=generator, device=images.device)
        return flow_matching_loss(model, images, t=times, generator=generator, class_labels=labels)


def export_for_sampling(model: nn.Module, folder: Path) -> None:
    """Write the model and how it is to be sampled: `folder` can then be given to `load_model`."""
    assert isinstance(model, DiT)
    model.save_pretrained(folder)
    facts = {"process": "flow", "prediction": "flow", "model": asdict(model.config)}
    (folder / SAMPLING_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def load_model(checkpoint: str | Path) -> DiT:
    """A model to sample from: of a checkpoint folder, or of the latest in a training's folder.

    Raises FileNotFoundError where there is none, ValueError where it is damaged or its output is
    not a flow velocity.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = checkpoints(folder)
    folder = found[-1] if found else folder
    if not (folder / SAMPLING_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} has no {SAMPLING_FILE}: it was not written by 'suffuse train' or 'demo'"
        )
    try:
        facts = json.loads((folder / SAMPLING_FILE).read_text(encoding="utf-8"))
        kind = (facts["process"], facts["prediction"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / SAMPLING_FILE} is damaged: {error}") from error
    if kind != ("flow", "flow"):
        raise ValueError(f"{folder}: process and prediction are {kind}, expected flow and flow")
    try:
        return DiT.from_pretrained(folder)
    except RuntimeError as error:
        raise ValueError(f"{folder}: weights do not fit the config: {error}") from error


def generate(
    model: DiT, labels: Tensor, *, solver: Solver, steps: int, weight: float, seed: int
) -> Tensor:
    """Sample pictures of the classes `labels` [B]; [B, C, H, W] fp32, nominally in [-1, 1].

    weight: of classifier-free guidance; 1 is none. The same seed gives the same pictures whatever
    the solver starts from: noise comes from a CPU generator.
    """
    config, process = model.config, Flow()
    device = next(model.parameters()).device
    shape = (len(labels), config.in_channels, config.sample_size, config.sample_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)
    condition = {"class_labels": labels.to(device)}
    null = {"class_labels": torch.full_like(condition["class_labels"], model.null_label)}
    guided = (
        Unguided(model, **condition)
        if weight == 1.0
        else ClassifierFree(model, condition, null, weight)
    )
    plan = solver.plan(process, "flow", uniform(process, steps))
    return sample(guided, noise, plan, seed=seed)
