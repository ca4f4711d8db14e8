"""The command `suffuse`: info, demo, train, sample.

Exit codes: 0 done; 1 the demo's gates failed under `--check`; 2 a mistake in the call, a file or
the installation, told in one line; 130 stopped with Ctrl-C; 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What a user's mistake raises. Everything else is ours, and its traceback is wanted.
MISTAKES = (OSError, ValueError, NotImplementedError, ImportError, FloatingPointError)
INTERRUPTED, BROKEN_PIPE = 130, 141


def _number(kind: type, low: float, high: float, expected: str) -> Callable[[str], Any]:
    """A parser of numbers from low to high, both excluded."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low < value < high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


_positive_int = _number(int, 0, math.inf, "a whole number of at least 1")
_positive_float = _number(float, 0, math.inf, "a number above 0")
_finite = _number(float, -math.inf, math.inf, "a number")
_seed = _number(int, -1, 2**31, f"a whole number from 0 to {2**31 - 1}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. arguments: of the command line by default."""
    options = build_parser().parse_args(arguments)
    try:
        _check_isa()
        code = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("suffuse: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # What is still buffered must go somewhere when Python closes the stream at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except MISTAKES as error:
        if options.debug:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print(f"suffuse: error: {'; '.join(lines)}", file=sys.stderr)
        return 2


def _check_isa() -> None:
    """Tells of a SUFFUSE_CPU_ISA that this CPU lacks as the user's mistake that it is."""
    from suffuse.testing import cpu_isa

    try:
        cpu_isa()
    except RuntimeError as error:
        raise ValueError(error) from None


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="suffuse",
        description="Fused attention and diffusion-sampler kernels for PyTorch,"
        " and models built from them.",
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback where a command fails"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_info(commands)
    _add_demo(commands)
    _add_gallery(commands)
    _add_train(commands)
    _add_sample(commands)
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _add_info(commands: Any) -> None:
    text = "report versions, instruction sets, devices and where each op runs"
    parser = commands.add_parser("info", help=text, description=_sentence(text))
    parser.add_argument("--json", action="store_true", help="as JSON, for bug reports")
    parser.set_defaults(run=_info)


def _add_demo(commands: Any) -> None:
    text = "train a diffusion transformer on handwritten digits and paint a picture"
    parser = commands.add_parser(
        "demo",
        help=text,
        description=f"{_sentence(text)} Needs the extra suffuse[demo].",
        epilog="The same steps, seed and number of threads give the same numbers.",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("demo"), help="folder to write to (default: demo)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps", type=_positive_int, help="training steps (default: 2300, about 60 s)"
    )
    length.add_argument("--seconds", type=_positive_float, help="train about this long instead")
    parser.add_argument("--seed", type=_seed, default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--threads", type=_positive_int, default=1, help="of the CPU, for all of it (default: 1)"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if accuracy or distance miss their gates"
    )
    parser.set_defaults(run=_demo)


def _add_gallery(commands: Any) -> None:
    text = "paint digits of one model with every solver at 5, 10 and 20 model calls"
    parser = commands.add_parser(
        "gallery",
        help=text,
        description=f"{_sentence(text)} Needs the extra suffuse[demo].",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("gallery"), help="folder to write to (default: gallery)"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="folder of a model, such as demo/model; default: trains one"
    )
    parser.add_argument(
        "--steps", type=_positive_int, default=2300, help="of that training (default: 2300)"
    )
    parser.add_argument(
        "--per-class", type=_positive_int, default=50, help="digits to judge by (default: 50)"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="of everything random (default: 0)")
    parser.set_defaults(run=_gallery)


def _add_train(commands: Any) -> None:
    text = "train a class-conditional flow-matching DiT as a config file says"
    parser = commands.add_parser(
        "train",
        help=text,
        description=_sentence(text),
        epilog="The config is JSON, or TOML on Python 3.11 and later, with the keys of"
        " suffuse.recipe.Recipe: data, output, model, train, batch_size, class_dropout, seed.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a .json or .toml file")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the latest checkpoint, if there is one"
    )
    parser.set_defaults(run=_train)


def _add_sample(commands: Any) -> None:
    text = "sample pictures from a checkpoint into a PNG file"
    parser = commands.add_parser("sample", help=text, description=_sentence(text))
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="folder of a checkpoint, of a training (its latest), or demo/model",
    )
    parser.add_argument("--output", type=Path, default=Path("samples.png"), metavar="FILE.png")
    parser.add_argument(
        "--solver", default="heun", help="a name of suffuse.diffusion.SOLVERS (default: heun)"
    )
    parser.add_argument("--eta", type=_finite, help="strength of ddim's noise, 0 to 1 (default: 0)")
    parser.add_argument("--steps", type=_positive_int, default=25, help="default: 25")
    parser.add_argument(
        "--guidance", type=_finite, default=2.0, help="weight; 1 is no guidance (default: 2)"
    )
    parser.add_argument(
        "--classes", type=_classes, help="such as 0,3,7 or 2-5 (default: all of the model)"
    )
    parser.add_argument("--count", type=_positive_int, default=8, help="of each class (default: 8)")
    parser.add_argument("--seed", type=_seed, default=0, help="of all noise (default: 0)")
    parser.set_defaults(run=_sample)


def _classes(text: str) -> list[int]:
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isdigit() and (last.isdigit() or not dash)):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 0,3,7 or 2-5")
        chosen += range(int(first), int(last or first) + 1)
    if not chosen:
        raise argparse.ArgumentTypeError(f"{text!r} names no class")
    return chosen


def _info(options: argparse.Namespace) -> int:
    from suffuse.info import report

    facts = report()
    print(json.dumps(facts, indent=2) if options.json else "\n".join(_outline(facts)))
    return 0


def _outline(value: dict[str, Any], indent: str = "") -> list[str]:
    """A nested dict as lines of `key: value`, tables indented."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, dict) and entry:
            lines += [f"{indent}{key}:", *_outline(entry, indent + "  ")]
        else:
            shown = ", ".join(map(str, entry)) if isinstance(entry, list) else entry
            lines.append(f"{indent}{key}: {'none' if shown in (None, '', {}) else shown}")
    return lines


def _demo(options: argparse.Namespace) -> int:
    from suffuse.demo import DEFAULT_STEPS, DemoOptions, run_demo

    report = run_demo(
        DemoOptions(
            output=options.output,
            steps=options.steps or DEFAULT_STEPS,
            seconds=options.seconds,
            seed=options.seed,
            threads=options.threads,
        )
    )
    return 1 if options.check and not report["passed"] else 0


def _gallery(options: argparse.Namespace) -> int:
    from suffuse.demo.gallery import GalleryOptions, run_gallery

    run_gallery(
        GalleryOptions(
            output=options.output,
            checkpoint=options.checkpoint,
            steps=options.steps,
            per_class=options.per_class,
            seed=options.seed,
        )
    )
    return 0


def _train(options: argparse.Namespace) -> int:
    from suffuse._config import from_dict
    from suffuse.recipe import Recipe
    from suffuse.train.checkpoint import checkpoints
    from suffuse.train.config import read_table

    recipe = from_dict(Recipe, read_table(options.config))
    folder = Path(recipe.output)
    trainer = recipe.make_trainer(folder=folder, data=recipe.load_data())
    if options.resume:
        if trainer.resume():
            print(f"resuming after step {trainer.step}")
    elif checkpoints(folder):
        raise FileExistsError(f"{folder} has checkpoints: use --resume, or another output")
    trainer.fit()
    print(f"trained {trainer.step} steps; the latest checkpoint is {checkpoints(folder)[-1]}")
    return 0


def _sample(options: argparse.Namespace) -> int:
    import torch

    from suffuse.diffusion import DDIM, SOLVERS
    from suffuse.picture import Row, draw_grid, save_png
    from suffuse.recipe import generate, load_model

    if options.solver not in SOLVERS:
        names = ", ".join(SOLVERS)
        raise ValueError(f"--solver is {options.solver!r}, expected one of {names}")
    if options.eta is not None and options.solver != "ddim":
        raise ValueError(f"--eta is for ddim alone, not for {options.solver}")
    solver = DDIM(eta=options.eta) if options.eta is not None else SOLVERS[options.solver]()
    model = load_model(options.checkpoint)
    classes = options.classes or list(range(model.null_label))
    if max(classes) >= model.null_label:
        raise ValueError(
            f"--classes has {max(classes)}, expected classes 0 to {model.null_label - 1}"
        )
    labels = torch.tensor(classes).repeat(options.count)
    images = generate(
        model,
        labels,
        solver=solver,
        steps=options.steps,
        weight=options.guidance,
        seed=options.seed,
    )
    rows = [Row("", "", part) for part in images.chunk(options.count)]
    subtitle = f"{options.steps} steps, guidance {options.guidance:g}, seed {options.seed}"
    image = draw_grid(rows, [str(c) for c in classes], title=options.solver, subtitle=subtitle)
    save_png(image, options.output)
    print(f"wrote {options.output}")
    return 0
