"""A plan made ready to run: its coefficients on the device, and one stage as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from suffuse.diffusion.guidance import Guidance, Guided, Unguided
from suffuse.diffusion.solvers import Plan, Stage
from suffuse.diffusion.variance import learned_range_std, split_learned
from suffuse.ops import sampler_step, step_coefficients

Noise = Tensor | tuple[int, int] | None
X, MODEL, NOISE, GUIDANCE = 0, 1, 9, 17  # columns of `step_coefficients`


class State(NamedTuple):
    """What one stage hands to the next.

    x: the sample [B, ...]. model_input: what the model sees. anchor: the sample at the start of the
    step. history: kept tensors, newest first. guided: the guidance's own.
    """

    x: Tensor
    model_input: Tensor
    anchor: Tensor
    history: tuple[Tensor, ...]
    guided: Any = None


@dataclass(frozen=True)
class Known:
    """The known part of a picture, for plans that inpaint (`RePaint`).

    data: [B, ...] like the sample. mask: broadcasts against it; 1 where data are known, else 0.
    """

    data: Tensor
    mask: Tensor


class Loop:
    """Runs a plan with one guidance; nothing waits for the device, and all tables are made here.

    `begin`, then `stage` for every index, carries a sample to the end. Both are functions of their
    arguments alone, so that a stage or a whole run can be compiled without a graph break or captured
    in a CUDA graph, with noise given as tensors.

    Args:
        guided: a guidance object, or a denoiser that is called as denoiser(x, t).
        plan: one plan, or several of one shape (the same solver and number of steps).
        assignment: for several plans: which one every sample [B] or every token [B, T] of a sample
            [B, T, ...] follows, int64. The model then gets times of this shape.
        dtype: of the sample, float32 or float64. device: of the sample.
        model_dtype: of the model's input; default `dtype`.
        known: for plans that inpaint.

    Raises:
        ValueError: plans of different shapes; `known` missing, or given to a plan that has no use
            for it.
        NotImplementedError: guidance that takes the noise part from another output (CFG++) with a
            solver that has no such part; tokens with a threshold or a step size from norms.
    """

    def __init__(
        self,
        guided: Guidance | Callable[..., Tensor],
        plan: Plan | Sequence[Plan],
        *,
        assignment: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        model_dtype: torch.dtype | None = None,
        known: Known | None = None,
    ) -> None:
        plans = (plan,) if isinstance(plan, Plan) else tuple(plan)
        self.guidance = guided if isinstance(guided, Guidance) else Unguided(guided)
        self.plan, self.stages = plans[0], merged(plans)
        self.rows = 1 if assignment is None else assignment.dim()
        self._check(known)
        self.known = known
        self.depths = _depths(self.stages)
        self.model_dtype = model_dtype or dtype
        table = torch.stack([self._table(p, dtype) for p in plans], dim=1)
        times = torch.tensor([[s.model_time for s in p.stages] for p in plans], dtype=dtype).T
        scale = torch.tensor([p.stages[0].input_scale for p in plans], dtype=dtype)
        index = torch.zeros((), dtype=torch.int64) if assignment is None else assignment.cpu()
        table = table[:, index]
        self.table = table.flatten(1, -2).to(device) if index.dim() else table.to(device)
        self.times, self.scale = times[:, index].to(device), scale[index].to(device)

    def begin(self, x: Tensor) -> State:
        """The state before the first stage. x: [B, ...], dtype and device of the loop."""
        scale = self.scale.reshape(self.scale.shape + (1,) * (x.dim() - self.scale.dim()))
        model_input = x if self.stages[0].input_scale == 1 else scale * x
        return State(x, model_input.to(self.model_dtype), x, ())

    def stage(self, i: int, state: State, noise: Noise = None) -> State:
        """The state after stage i. noise: a tensor like x or (seed, offset), if the stage needs it."""
        stage, x, row = self.stages[i], state.x, self.table[i]
        guided = self._outputs(i, state)
        outputs = guided.outputs
        if guided.weights is not None:
            row = self._with_weights(row, guided.weights)
        if stage.variances is not None:
            halves = [split_learned(output, x) for output in outputs]
            outputs = tuple(half[0] for half in halves)
            if stage.noise:
                std = learned_range_std(halves[0][1].to(x.dtype), *stage.variances)
                noise = std * as_tensor(noise, x)
        if stage.known and stage.needs_noise:
            noise = as_tensor(noise, x)
        if stage.snr:
            noise = as_tensor(noise, x)
            row = self._langevin(stage, row, x, outputs, noise)
        anchor = state.anchor if stage.holds else x
        following = self.stages[min(i + 1, len(self.stages) - 1)]
        scaled = following.input_scale != 1 or x.dtype != self.model_dtype
        result = sampler_step(
            self._flat(x),
            [self._flat(output) for output in outputs],
            row,
            history=[self._flat(kept) for kept in state.history[: len(stage.history)]],
            anchor=self._flat(anchor) if stage.anchor else None,
            extra=None if guided.noise is None else self._flat(guided.noise),
            noise=self._flat(noise) if isinstance(noise, Tensor) else noise,
            threshold=stage.threshold,
            converted=stage.keep,
            next_input=self.model_dtype if scaled else None,
        )
        sample = result.sample.reshape(x.shape)
        model_input = sample if result.next_input is None else result.next_input.reshape(x.shape)
        if stage.known:
            sample = self._inpaint(stage.known, sample, noise)
            model_input = (following.input_scale * sample).to(self.model_dtype)
        kept = () if result.converted is None else (result.converted.reshape(x.shape),)
        history = (*kept, *state.history[stage.forget :])[: self.depths[i]]
        return State(sample, model_input, anchor, history, guided.state)

    def _outputs(self, i: int, state: State) -> Guided:
        """What the model gives, checked against the weights that the table holds."""
        stage, x = self.stages[i], state.model_input
        if not stage.calls_model:
            return Guided((state.x,), None, None, state.guided)
        time = self.times[i]
        if not time.dim():
            time = time.expand(x.shape[0])
        guided = self.guidance.outputs(x, time, stage.time, stage.step, state.guided)
        expected = self.guidance.weights(stage.time, stage.step)
        count = guided.weights.shape[1] if guided.weights is not None else len(expected or ())
        if len(guided.outputs) != count:
            kind, got = type(self.guidance).__name__, len(guided.outputs)
            raise ValueError(f"sample: {kind} gave {got} outputs, expected {count}")
        return guided

    def _with_weights(self, row: Tensor, weights: Tensor) -> Tensor:
        """The row [B, 21] with the guidance's own weights [B, n]."""
        if self.rows > 1:
            tokens = len(row) // max(len(weights), 1)
            weights = weights.repeat_interleave(tokens, dim=0)
        row = row.expand(len(weights), -1)
        end = GUIDANCE + weights.shape[1]
        return torch.cat([row[:, :GUIDANCE], weights.to(row.dtype), row[:, end:]], dim=1)

    def _langevin(
        self, stage: Stage, row: Tensor, x: Tensor, outputs: Sequence[Tensor], z: Tensor
    ) -> Tensor:
        """The row for x + e s + sqrt(2 e) z, e = 2 (snr |z| / |s|)^2 (see `PredictorCorrector`)."""
        assert stage.snr is not None
        model = torch.zeros_like(x)
        for j, output in enumerate(outputs):
            weight = row[..., GUIDANCE + j]
            model = model + weight.reshape(weight.shape + (1,) * (x.dim() - weight.dim())) * output
        from_x, from_model, _ = stage.kept
        norms = [t.flatten(1).norm(dim=1).mean() for t in (z, from_x * x + from_model * model)]
        size = 2 * (stage.snr * norms[0] / norms[1]) ** 2
        row = row.clone()
        row[..., X], row[..., MODEL] = 1 + size * from_x, size * from_model
        row[..., NOISE] = (2 * size).sqrt()
        return row

    def _inpaint(self, level: tuple[float, float], sample: Tensor, z: Noise) -> Tensor:
        assert self.known is not None
        known = level[0] * self.known.data.to(sample)
        if level[1]:
            assert isinstance(z, Tensor)
            known = known + level[1] * z
        return torch.lerp(sample, known, self.known.mask.to(sample).expand_as(sample))

    def _flat(self, x: Tensor) -> Tensor:
        return x if self.rows == 1 else x.flatten(0, self.rows - 1)

    def _table(self, plan: Plan, dtype: torch.dtype) -> Tensor:
        """The coefficients of all stages [stages, 21], on the CPU."""
        stages = plan.stages
        weights = [self.guidance.weights(s.time, s.step) or () for s in stages]
        moved = [s.noise_model or 0.0 if self.guidance.separate_noise else 0.0 for s in stages]
        return step_coefficients(
            x=[s.x for s in stages],
            model=[s.model - part for s, part in zip(stages, moved, strict=True)],
            data=[s.data for s in stages],
            history=_columns([s.history for s in stages]),
            anchor=[s.anchor for s in stages],
            extra=moved,
            noise=[s.noise for s in stages],
            data_from_x=[s.data_from_x for s in stages],
            data_from_model=[s.data_from_model for s in stages],
            clip=[s.clip for s in stages],
            converted=_columns([s.kept for s in stages]),
            next_scale=[*(s.input_scale for s in stages[1:]), 1.0],
            guidance=_columns(weights),
            dtype=dtype,
        )

    def _check(self, known: Known | None) -> None:
        name, inpaints = self.plan.solver, any(stage.known for stage in self.stages)
        if (known is not None) != inpaints:
            got = "no known picture" if inpaints else "a known picture"
            raise ValueError(
                f"sample: got {got} for {name}, expected one exactly where it inpaints"
            )
        calls = [stage for stage in self.stages if stage.calls_model]
        if self.guidance.separate_noise and any(s.noise_model is None for s in calls):
            kind = type(self.guidance).__name__
            raise NotImplementedError(f"sample: {name} has no noise part to take from {kind}")
        if self.rows > 1 and any(s.threshold or s.snr for s in calls):
            raise NotImplementedError(
                f"sample: {name} needs norms or quantiles of whole samples, not of tokens"
            )


def as_tensor(noise: Noise, x: Tensor) -> Tensor:
    """The noise of a stage that needs some as a tensor like x, made by Philox if it is a seed."""
    if isinstance(noise, Tensor):
        return noise
    if noise is None:
        raise ValueError("sample: a stage that adds noise got none")
    table = step_coefficients(noise=1.0, dtype=x.dtype).to(x.device)
    return sampler_step(x, [x], table, noise=noise, converted=False).sample


def merged(plans: Sequence[Plan]) -> tuple[Stage, ...]:
    """The stages with the operands that any of the plans needs; their numbers are the first one's."""
    if len(plans) == 1:
        return plans[0].stages
    counts = [len(plan.stages) for plan in plans]
    if len(set(counts)) > 1:
        raise ValueError(f"sample: plans have {counts} stages, expected the same number")
    return tuple(_merge(stages) for stages in zip(*(plan.stages for plan in plans), strict=True))


def _merge(stages: Sequence[Stage]) -> Stage:
    first = stages[0]
    for name in ("step", "keep", "forget", "holds", "calls_model", "threshold", "known", "snr"):
        values = {getattr(stage, name) for stage in stages}
        if len(values) > 1:
            raise ValueError(f"sample: plans differ in {name} at step {first.step}: {values}")
    if len({stage.variances for stage in stages}) > 1:
        raise NotImplementedError("sample: several plans with a learned variance")
    return replace(
        first,
        history=max((stage.history for stage in stages), key=len),
        anchor=max((stage.anchor for stage in stages), key=abs),
        noise=max((stage.noise for stage in stages), key=abs),
        input_scale=max((s.input_scale for s in stages), key=lambda scale: abs(scale - 1)),
    )


def _depths(stages: Sequence[Stage]) -> list[int]:
    """How many kept tensors are still needed after each stage."""
    depths, deepest = [], 0
    for stage in reversed(stages):
        depths.append(deepest)
        deepest = max(len(stage.history), deepest - stage.keep + stage.forget if deepest else 0)
    return depths[::-1]


def _columns(rows: Sequence[tuple[float, ...]]) -> list[list[float]]:
    """Rows of different lengths as columns, short rows filled up with 0."""
    width = max(len(row) for row in rows)
    return [[row[j] if j < len(row) else 0.0 for row in rows] for j in range(width)]
