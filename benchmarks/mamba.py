"""transformers' Mamba with and without suffuse: `python -m benchmarks.mamba [--threads 1] [--rounds 5]`.

Two copies of transformers' unmodified model module: one imported without suffuse, one behind
`suffuse.compat.install`. They have the same weights, take turns, and must give the same.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

from suffuse import compat

MODULE = "transformers.models.mamba.modeling_mamba"
VOCABULARY = 1000
TOLERANCE = 1e-4


def model_classes() -> dict[str, Any]:
    """Name -> MambaForCausalLM, without and with suffuse."""
    plain = importlib.import_module(MODULE).MambaForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the first copy keeps its functions
        compat.install(["mamba_ssm", "causal_conv1d"])
    del sys.modules[MODULE]
    return {"without": plain, "with": importlib.import_module(MODULE).MambaForCausalLM}


def models(classes: dict[str, Any], layers: int) -> dict[str, Any]:
    """The same random weights in both."""
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=768, num_hidden_layers=layers, pad_token_id=0
    )
    made = {name: kind(config).eval() for name, kind in classes.items()}
    made["with"].load_state_dict(made["without"].state_dict())
    return made


def logits(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return {"logits": model(tokens, use_cache=False).logits}


def gradients(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(tokens, labels=tokens, use_cache=False).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def generated(model: Any, prompt: Tensor, count: int) -> Tensor:
    return model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=count,
        min_new_tokens=count,
    )  # fmt: skip


def in_turns(
    models: dict[str, Any], job: Callable[[Any], Any], rounds: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of a call, and the last results; the first call of each is not counted.

    Without suffuse a backward pass takes time by the square of the length (the gradient of every
    step's slice is a whole tensor), minutes at 1024: nothing is repeated inside a round.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    results = {name: job(model) for name, model in models.items()}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.perf_counter()
            results[name] = job(model)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}, results


def must_agree(what: str, results: dict[str, dict[str, Tensor]]) -> None:
    """Exits where a tensor differs by more than TOLERANCE of its largest value."""
    plain, ours = results["without"], results["with"]
    errors = {
        name: float((value - ours[name]).abs().max() / value.abs().max().clamp(min=1e-12))
        for name, value in plain.items()
    }
    worst = max(errors, key=lambda name: errors[name])
    print(f"{what}: largest relative difference {errors[worst]:.1e} ({worst})")
    if not errors[worst] <= TOLERANCE:
        sys.exit("the two differ")


def sequences(
    classes: dict[str, Any], name: str, job: Callable[..., Any], length: int, rounds: int
) -> None:
    made = models(classes, 2)
    tokens = torch.randint(1, VOCABULARY, (1, length))
    for model in made.values():
        model.train(job is gradients)
    took, results = in_turns(made, lambda model: job(model, tokens), rounds)
    must_agree(name, results)
    plain, ours = took["without"], took["with"]
    print(
        f"{name}, hidden 768, 2 layers, L {length}: {plain:.3f} s -> {ours:.3f} s, "
        f"{plain / ours:.1f}x",
        flush=True,
    )


def generation(classes: dict[str, Any], count: int, rounds: int) -> None:
    made = models(classes, 4)
    prompt = torch.randint(1, VOCABULARY, (1, 32))
    took, tokens = in_turns(made, lambda model: generated(model, prompt, count), rounds)
    if not torch.equal(tokens["without"], tokens["with"]):
        sys.exit("the two generate different tokens")
    plain, ours = count / took["without"], count / took["with"]
    print(
        f"generation, hidden 768, 4 layers, {count} tokens behind 32: {plain:.1f} -> {ours:.1f} "
        f"tokens/s, {ours / plain:.2f}x"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.mamba", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training-rounds", type=int, default=1)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--training-length", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}, {options.threads} threads")
    classes = model_classes()
    generation(classes, options.tokens, options.rounds)
    sequences(classes, "forward", logits, options.length, options.rounds)
    sequences(
        classes, "forward and backward", gradients, options.training_length, options.training_rounds
    )


if __name__ == "__main__":
    main()
