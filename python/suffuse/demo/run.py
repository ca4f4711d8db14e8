"""`suffuse demo`: a diffusion transformer trained on real digits in about a minute."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from suffuse.data import Pictures, load_digits
from suffuse.demo.judge import Judge
from suffuse.demo.timing import interleaved_medians, torch_attention
from suffuse.diffusion import DDIM, DPMSolverPP2M, Euler, Heun, Solver
from suffuse.models import DiT
from suffuse.picture import Row, draw_grid, pillow, save_png
from suffuse.recipe import Recipe, export_for_sampling, generate

DEFAULT_STEPS = 2300
"""About 60 s at 25 ms a step, which is what one thread of an AVX-512 server core takes."""
GUIDANCE = 2.0
MIN_ACCURACY, MAX_DISTANCE = 0.95, 1.5
# Name, solver and steps: about 25 model evaluations each.
SOLVERS: tuple[tuple[str, Solver, int], ...] = (
    ("Euler", Euler(), 25),
    ("Heun", Heun(), 13),
    ("DPM-Solver++ 2M", DPMSolverPP2M(), 25),
    ("DDIM, eta 1", DDIM(eta=1.0), 25),
)


@dataclass(frozen=True)
class DemoOptions:
    """Settings of `run_demo`.

    output: folder for `demo.png`, `demo.json` and `model/`.
    steps: training steps; with the seed and the number of threads they fix every result.
    threads: that torch uses meanwhile. The model is so small that a second one saves a third of the
        time on an idle machine, and costs ten times as much on a busy one.
    seconds: train about this long instead; the number of steps is then chosen by a short timing.
    seed: of everything random.
    per_class: pictures of each digit that a solver is judged by.
    timing_rounds: training steps timed with each attention.
    """

    output: Path
    steps: int = DEFAULT_STEPS
    seconds: float | None = None
    seed: int = 0
    threads: int = 1
    per_class: int = 50
    timing_rounds: int = 30


def run_demo(options: DemoOptions, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the whole demo; returns what `demo.json` holds.

    say: gets one line of text at a time. Raises ImportError without scikit-learn or Pillow.
    """
    pillow()  # fails now rather than after the training
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        return _run(options, say)
    finally:
        torch.set_num_threads(threads)


def _run(options: DemoOptions, say: Callable[[str], None]) -> dict[str, Any]:
    train, test = load_digits()
    say(f"data: {len(train.images)} digits to train on, {len(test.images)} to test with")
    medians = time_steps(train, options)
    steps = options.steps
    if options.seconds is not None:
        steps = max(1, round(options.seconds / medians["suffuse"]))
        say(f"training {steps} steps; repeat exactly with --steps {steps}")
    recipe = demo_recipe(steps, options.seed)
    trainer = recipe.make_trainer(folder=None, data=train)
    count = sum(p.numel() for p in trainer.model.parameters())
    say(f"model: DiT with {count:,} parameters, threads: {options.threads}")
    started = time.perf_counter()
    trainer.fit()
    train_seconds = time.perf_counter() - started
    model = cast(DiT, trainer.averaged.module.cpu())
    export_for_sampling(model, options.output / "model")
    say(f"trained {steps} steps in {train_seconds:.1f} s")

    judge = Judge(train)
    results, rows = judge_solvers(model, judge, options)
    rows.insert(0, Row("Real digits", "the test split", _first_of_each(test, 2)))
    report = {
        "seed": options.seed,
        "steps": steps,
        "parameters": count,
        "threads": options.threads,
        "train_seconds": round(train_seconds, 2),
        "step_milliseconds": {name: round(1e3 * value, 3) for name, value in medians.items()},
        "classifier_test_accuracy": judge.accuracy(test),
        "train_test_distance": judge.distance(test.images),
        "solvers": results,
    }
    report["passed"] = gates_pass(report)
    draw_report(report, rows, options.output / "demo.png")
    text = json.dumps(report, indent=2) + "\n"
    (options.output / "demo.json").write_text(text, encoding="utf-8")
    for line in table_lines(report):
        say(line)
    say(f"wrote {options.output}/demo.png, demo.json and model/")
    return report


def demo_recipe(steps: int, seed: int) -> Recipe:
    """0.25M parameters, 16 tokens of 2 x 2 pixels."""
    return Recipe(
        data="digits",
        output="",
        model={
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "num_layers": 3,
            "patch_size": 2,
            "shared_embedding": True,
        },
        train={
            "steps": steps,
            "learning_rate": 2e-3,
            "warmup_steps": min(100, steps // 10),
            "ema_decay": 0.995,
            "seed": seed,
        },
        seed=seed,
    )


def time_steps(train: Pictures, options: DemoOptions) -> dict[str, float]:
    """Median seconds of one training step with our attention ("suffuse") and with torch's."""
    recipe = demo_recipe(options.timing_rounds + 10, options.seed)
    ours = recipe.make_trainer(folder=None, data=train)
    plain = recipe.make_trainer(folder=None, data=train, attention=torch_attention)
    return interleaved_medians(
        {"suffuse": ours.train_step, "torch": plain.train_step}, rounds=options.timing_rounds
    )


def judge_solvers(
    model: DiT, judge: Judge, options: DemoOptions
) -> tuple[list[dict[str, Any]], list[Row]]:
    """Sample with every solver, guided, and with the first one also unguided."""
    labels = torch.arange(10).repeat_interleave(options.per_class)
    runs = [(*entry, GUIDANCE) for entry in SOLVERS]
    runs.append((*SOLVERS[0], 1.0))
    results: list[dict[str, Any]] = []
    rows: list[Row] = []
    for name, solver, steps, weight in runs:
        started = time.perf_counter()
        images = generate(
            model, labels, solver=solver, steps=steps, weight=weight, seed=options.seed
        ).clamp(-1, 1)
        seconds = time.perf_counter() - started
        accuracy, distance = judge.accuracy(Pictures(images, labels)), judge.distance(images)
        results.append(
            {
                "solver": name,
                "steps": steps,
                "guidance": weight,
                "accuracy": accuracy,
                "distance": distance,
                "seconds": round(seconds, 2),
            }
        )
        if weight == GUIDANCE:
            note = f"{100 * accuracy:.1f} % read right, FD {distance:.2f}"
            rows.append(Row(name, note, _first_of_each(Pictures(images, labels), 2)))
    return results, rows


def gates_pass(report: dict[str, Any]) -> bool:
    """Whether every guided run is accurate and near enough to the real digits."""
    return all(
        result["accuracy"] >= MIN_ACCURACY and result["distance"] <= MAX_DISTANCE
        for result in report["solvers"]
        if result["guidance"] == GUIDANCE
    )


def _first_of_each(pictures: Pictures, each: int) -> torch.Tensor:
    """The first `each` pictures of each digit: what there is, not the best."""
    rows = [torch.nonzero(pictures.labels == digit)[:each, 0] for digit in range(10)]
    return pictures.images[torch.cat(rows)]


def draw_report(report: dict[str, Any], rows: list[Row], path: Path) -> None:
    subtitle = (
        f"Class-conditional rectified-flow DiT, {report['parameters']:,} parameters,"
        f" {report['steps']:,} steps in {report['train_seconds']:.0f} s;"
        f" sampled with guidance {GUIDANCE:g}"
    )
    columns = [str(digit) for digit in range(10)]
    title = "Handwritten digits, painted by Suffuse"
    save_png(draw_grid(rows, columns, title=title, subtitle=subtitle), path)


def table_lines(report: dict[str, Any]) -> list[str]:
    """The report as lines of text."""
    lines = [
        "",
        f"{'solver':<18}{'steps':>6}{'guidance':>10}{'accuracy':>10}{'FD':>8}{'seconds':>9}",
    ]
    for r in report["solvers"]:
        lines.append(
            f"{r['solver']:<18}{r['steps']:>6}{r['guidance']:>10g}{100 * r['accuracy']:>8.1f} %"
            f"{r['distance']:>8.2f}{r['seconds']:>9.1f}"
        )
    milliseconds = report["step_milliseconds"]
    lines += [
        f"{'real test digits':<34}{100 * report['classifier_test_accuracy']:>8.1f} %"
        f"{report['train_test_distance']:>8.2f}",
        "",
        f"training step: {milliseconds['suffuse']:.2f} ms with suffuse attention,"
        f" {milliseconds['torch']:.2f} ms with torch's"
        f" ({milliseconds['torch'] / milliseconds['suffuse']:.2f}x)",
        f"gates (accuracy >= {100 * MIN_ACCURACY:g} %, FD <= {MAX_DISTANCE:g} at guidance"
        f" {GUIDANCE:g}): {'passed' if report['passed'] else 'FAILED'}",
    ]
    return lines
