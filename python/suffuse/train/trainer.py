"""The training loop: AdamW, cosine schedule, EMA, bf16 autocast, accumulation, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from suffuse.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from suffuse.train.config import TrainConfig
from suffuse.train.log import JsonLog
from suffuse.train.schedule import cosine_schedule

Batch = tuple[Tensor, ...]
Loss = Callable[[nn.Module, Batch, torch.Generator], Tensor]
# What may differ between a training and its continuation without changing any number.
_FREE_FIELDS = ("log_every", "checkpoint_every", "keep_checkpoints")


class BatchSource(Protocol):
    """Endless batches whose place in the data can be stored."""

    def next(self) -> Batch: ...
    def state_dict(self) -> dict[str, int]: ...
    def load_state_dict(self, state: dict[str, int]) -> None: ...


class StepResult(NamedTuple):
    """loss: of the batch, before the step. gradient_norm: before clipping. Both scalar tensors."""

    loss: Tensor
    gradient_norm: Tensor


class Trainer:
    """Trains a model; all of its state can be stored and taken up again without any difference.

    model: trained in place, on the device it is on.
    loss: called as loss(model, batch, generator) -> scalar. Whatever it draws comes from
        `generator` (or from torch's global generators, whose state is stored too).
    batches: endless batches of tensors with a common first dimension.
    folder: for `log.jsonl` and checkpoints; None writes nothing.
    export: called as export(averaged_model, folder) for every checkpoint, to add files to it.

    Python's and NumPy's random generators are not stored. Two runs are equal bit for bit on the
    same machine with the same number of threads.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: BatchSource,
        config: TrainConfig,
        *,
        folder: Path | None = None,
        export: Callable[[nn.Module, Path], None] | None = None,
    ) -> None:
        self.model, self.loss, self.batches, self.config = model, loss, batches, config
        self.folder, self.export, self.step = folder, export, 0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        self.averaged.eval()
        self.optimizer = self._make_optimizer()
        self.scheduler = cosine_schedule(self.optimizer, config)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        decayed = [p for p in self.parameters if p.ndim >= 2]
        others = [p for p in self.parameters if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=self.device.type in ("cpu", "cuda"),
        )

    def train_step(self) -> StepResult:
        """Take the next batch and one optimizer step."""
        self.model.train()
        batch = tuple(tensor.to(self.device) for tensor in self.batches.next())
        total = torch.zeros((), device=self.device)
        for part in self._parts(batch):
            with torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
            ):
                loss = self.loss(self.model, part, self.generator) / self.config.accumulate
            loss.backward()
            total += loss.detach()
        limit = self.config.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.averaged.update_parameters(self.model)
        self.step += 1
        return StepResult(total, norm)

    def _parts(self, batch: Batch) -> list[Batch]:
        count, size = self.config.accumulate, len(batch[0])
        if size % count:
            raise ValueError(f"Trainer: batch of {size}, expected a multiple of accumulate {count}")
        return list(zip(*(tensor.chunk(count) for tensor in batch), strict=True))

    def fit(self, *, until: int | None = None) -> None:
        """Train up to step `until` (None: `config.steps`), with log lines, checkpoints and, on a
        terminal, a progress bar.

        Raises FloatingPointError as soon as a logged or stored step has a loss that is not finite.
        """
        last = min(self.config.steps, self.config.steps if until is None else until)
        log = JsonLog(self.folder / "log.jsonl", self.step) if self.folder else None
        started = time.perf_counter()
        with tqdm(total=last, initial=self.step, disable=None, unit="step") as bar:
            while self.step < last:
                result = self.train_step()
                logs, stores = self._due(last)
                if logs or stores:
                    self._check_finite(result)
                if logs:
                    bar.set_postfix(loss=f"{float(result.loss):.4f}", refresh=False)
                if logs and log:
                    log.write(self._record(result, time.perf_counter() - started))
                if stores and self.folder:
                    self.save()
                bar.update()
        if log:
            log.close()

    def _due(self, last: int) -> tuple[bool, bool]:
        """Whether this step is to be logged, and to be stored."""
        every = self.config.checkpoint_every
        at_end = self.step == last
        return at_end or self.step % self.config.log_every == 0, (
            at_end or (every > 0 and self.step % every == 0)
        )

    def _check_finite(self, result: StepResult) -> None:
        if not torch.isfinite(result.loss):
            raise FloatingPointError(
                f"Trainer: the loss is {float(result.loss)} at step {self.step}"
            )

    def _record(self, result: StepResult, seconds: float) -> dict[str, Any]:
        return {
            "step": self.step,
            "loss": float(result.loss),
            "gradient_norm": float(result.gradient_norm),
            "learning_rate": self.scheduler.get_last_lr()[0],
            "seconds": round(seconds, 3),
        }

    def save(self) -> Path:
        """Store everything as a checkpoint in `folder`; see `suffuse.train.checkpoint`."""
        if self.folder is None:
            raise ValueError("Trainer: folder is None, expected a path to write checkpoints to")
        optimizer = self.optimizer.state_dict()
        tensors = {
            **_prefixed("model", self.model.state_dict()),
            **_prefixed("averaged", self.averaged.state_dict()),
            **_prefixed("random", self._random_states()),
        }
        for index, values in optimizer["state"].items():
            tensors.update(_prefixed(f"optimizer.{index}", values))
        state = {
            "config": asdict(self.config),
            "batches": self.batches.state_dict(),
            "groups": optimizer["param_groups"],
            "scheduler": self.scheduler.state_dict(),
        }
        export, averaged = self.export, self.averaged.module
        return save_checkpoint(
            self.folder,
            self.step,
            tensors,
            state,
            keep=self.config.keep_checkpoints,
            export=None if export is None else lambda path: export(averaged, path),
        )

    def resume(self) -> bool:
        """Go on from the latest complete checkpoint in `folder`; False if there is none.

        Raises ValueError where it was made with another config, other data or another model.
        """
        found = checkpoints(self.folder) if self.folder else []
        if not found:
            return False
        tensors, state = load_checkpoint(found[-1])
        for name, value in asdict(self.config).items():
            if name not in _FREE_FIELDS and state["config"].get(name) != value:
                raise ValueError(
                    f"Trainer: {name} is {value!r}, expected {state['config'].get(name)!r} as in"
                    f" {found[-1]}"
                )
        self.batches.load_state_dict(state["batches"])
        try:
            self.model.load_state_dict(_without_prefix("model", tensors))
            self.averaged.load_state_dict(_without_prefix("averaged", tensors))
        except RuntimeError as error:
            raise ValueError(f"Trainer: {found[-1]} is of another model: {error}") from error
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _without_prefix("optimizer", tensors).items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
        self.scheduler.load_state_dict(state["scheduler"])
        self._set_random_states(_without_prefix("random", tensors))
        self.step = state["step"]
        return True

    def _random_states(self) -> dict[str, Tensor]:
        states = {"loss": self.generator.get_state(), "cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def _set_random_states(self, states: dict[str, Tensor]) -> None:
        self.generator.set_state(states["loss"])
        torch.set_rng_state(states["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self.device)


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
