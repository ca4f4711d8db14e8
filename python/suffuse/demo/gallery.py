"""`suffuse gallery`: one model under every sampler at 5, 10 and 20 evaluations.

Draws the same digits from the same noise with each, one row a sampler, and measures the Frechet distance
to the real ones (see `Judge`). Trains the demo's model first unless it is given a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from suffuse.data import load_digits
from suffuse.demo.judge import Judge
from suffuse.demo.run import GUIDANCE, demo_recipe
from suffuse.diffusion import (
    DDIM,
    DDPM,
    DEIS,
    DPM2,
    IPNDM,
    LMS,
    PNDM,
    TCD,
    ClassifierFree,
    CogVideoXDPM,
    Consistency,
    DPMSolver,
    DPMSolverGrouped,
    DPMSolverPP2M,
    DPMSolverSDE,
    DPMSolverSinglestep,
    Euler,
    EulerAncestral,
    ExponentialAdams,
    Flow,
    Heun,
    Plan,
    PredictorCorrector,
    ReverseSDE,
    SASolver,
    Solver,
    UniPC,
    sample,
    uniform,
)
from suffuse.models import DiT
from suffuse.picture import Row, draw_grid, pillow, save_png
from suffuse.recipe import load_model

EVALUATIONS = (5, 10, 20)
SHOWN = (0, 2, 3, 5, 8)
# Where alpha must be above 0, sampling starts a little later.
LATE_START = 0.985
SAMPLERS: tuple[tuple[str, Solver], ...] = (
    ("Euler", Euler()),
    ("DDIM", DDIM()),
    ("Heun", Heun()),
    ("DPM2", DPM2()),
    ("LMS", LMS()),
    ("iPNDM", IPNDM()),
    ("PNDM", PNDM()),
    ("DPM-Solver 2M", DPMSolver(form="noise")),
    ("DPM-Solver++ 2M", DPMSolverPP2M()),
    ("DPM-Solver++ 3M", DPMSolver(3)),
    ("DPM-Solver++ 2S", DPMSolverSinglestep()),
    ("DPM-Solver++ 3S", DPMSolverSinglestep(3)),
    ("DPM-Solver++ grouped", DPMSolverGrouped(3)),
    ("DEIS 3", DEIS(3)),
    ("exp. Adams 3", ExponentialAdams(3)),
    ("UniPC", UniPC()),
    ("UniPC 3", UniPC(3)),
    ("SA-Solver, tau 0", SASolver(tau=0.0)),
    ("DDIM, eta 1", DDIM(eta=1.0)),
    ("DDPM", DDPM()),
    ("Euler ancestral", EulerAncestral()),
    ("Euler ancestral RF", EulerAncestral(rectified=True)),
    ("DPM2 ancestral", DPM2(eta=1.0)),
    ("2S ancestral", DPMSolverSinglestep(eta=1.0)),
    ("DPM++ SDE", DPMSolverSDE()),
    ("DPM++ 2M SDE", DPMSolver(eta=1.0)),
    ("DPM++ 3M SDE", DPMSolver(3, eta=1.0)),
    ("CogVideoX DPM", CogVideoXDPM()),
    ("SA-Solver", SASolver()),
    ("reverse SDE", ReverseSDE(diffusion="sigma")),
    ("predictor-corrector", PredictorCorrector(snr=0.05)),
    ("consistency (noise anew)", Consistency()),
    ("TCD, gamma 0.3", TCD()),
)


@dataclass(frozen=True)
class GalleryOptions:
    """Settings of `run_gallery`.

    output: folder for `gallery.png` and `gallery.json`.
    checkpoint: folder of a model to load; None trains the demo's for `steps` steps.
    steps: of that training.
    per_class: digits of each class that a sampler is judged by.
    seed: of everything random.
    """

    output: Path
    checkpoint: Path | None = None
    steps: int = 2300
    per_class: int = 50
    seed: int = 0


def plan_with(solver: Solver, evaluations: int) -> Plan:
    """The plan of as many steps as make at most this many model calls, uniform in flow time."""
    start = LATE_START if isinstance(solver, PredictorCorrector) else None
    best = None
    for steps in range(1, evaluations + 1):
        plan = solver.plan(Flow(), "flow", uniform(Flow(), steps, start=start))
        best = plan if plan.calls <= evaluations else best
    if best is None:
        raise ValueError(f"{solver.name}: no plan has at most {evaluations} model calls")
    return best


def run_gallery(options: GalleryOptions, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Draw the gallery; returns what `gallery.json` holds: the distances and calls of every sampler."""
    pillow()  # fails now rather than after the training
    train, test = load_digits()
    model = _model(options, say)
    judge = Judge(train)
    labels = torch.arange(10).repeat_interleave(options.per_class)
    rows, results = [], []
    for name, solver in SAMPLERS:
        images, distances, calls = [], [], []
        for evaluations in EVALUATIONS:
            plan = plan_with(solver, evaluations)
            pictures = generate_with(model, labels, plan, seed=options.seed)
            distances.append(judge.distance(pictures))
            calls.append(plan.calls)
            images.append(pictures[[options.per_class * digit for digit in SHOWN]])
        results.append({"sampler": name, "calls": calls, "distance": distances})
        note = "FD " + ", ".join(f"{distance:.2f}" for distance in distances)
        rows.append(Row(name, note, torch.cat(images)))
        say(f"{name:<26}" + "".join(f"{distance:>9.2f}" for distance in distances))
    report = {
        "seed": options.seed,
        "evaluations": EVALUATIONS,
        "train_test_distance": judge.distance(test.images),
        "samplers": results,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    subtitle = f"One model, guidance {GUIDANCE:g}, the same noise; FD at {EVALUATIONS} evaluations"
    columns = [f"{count} evaluations" for count in EVALUATIONS]
    picture = draw_grid(rows, columns, title="Every sampler", subtitle=subtitle, cell=40)
    save_png(picture, options.output / "gallery.png")
    text = json.dumps(report, indent=2) + "\n"
    (options.output / "gallery.json").write_text(text, encoding="utf-8")
    say(f"wrote {options.output}/gallery.png and gallery.json")
    return report


def generate_with(model: DiT, labels: Tensor, plan: Plan, *, seed: int) -> Tensor:
    """Guided pictures of the classes `labels` [B] by a plan, [B, C, H, W] in [-1, 1]."""
    config = model.config
    shape = (len(labels), config.in_channels, config.sample_size, config.sample_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    null = torch.full_like(labels, model.null_label)
    guided = ClassifierFree(model, {"class_labels": labels}, {"class_labels": null}, GUIDANCE)
    # From a later start than pure noise the sample has that standard deviation.
    return sample(guided, plan.times[0] * noise, plan, seed=seed).clamp(-1, 1)


def _model(options: GalleryOptions, say: Callable[[str], None]) -> DiT:
    if options.checkpoint is not None:
        return load_model(options.checkpoint)
    say(f"training the demo's model for {options.steps} steps")
    train, _ = load_digits()
    trainer = demo_recipe(options.steps, options.seed).make_trainer(folder=None, data=train)
    trainer.fit()
    return cast(DiT, trainer.averaged.module.cpu())
