"""One run of a small transformers model in a process of its own: `python transformers_mamba.py KIND WITH OUT`.

WITH is 1 behind `suffuse.compat.install`. Saves logits, gradients, tokens and which ops of ours ran.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}


class OpsOfOurs(TorchDispatchMode):
    """Counts the suffuse ops that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "suffuse":
            self.seen[func.name().split("::")[1]] += 1
        return func(*args, **(kwargs or {}))


def make(kind: str) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    if kind == "mamba":
        config = transformers.MambaConfig(**SMALL, state_size=8)
        return transformers.MambaForCausalLM(config)
    if kind == "falcon_mamba":
        config = transformers.FalconMambaConfig(**SMALL, state_size=8)
        return transformers.FalconMambaForCausalLM(config)
    if kind == "jamba":
        config = transformers.JambaConfig(
            **SMALL, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1,
            attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_d_state=8, mamba_dt_rank=4,
        )  # fmt: skip
        return transformers.JambaForCausalLM(config)
    config = transformers.Mamba2Config(
        **SMALL, state_size=8, num_heads=4, head_dim=16, n_groups=2, chunk_size=8
    )
    return transformers.Mamba2ForCausalLM(config)


def gradients(model: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(tokens, labels=tokens, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def run(kind: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = make(kind).eval()
    with torch.no_grad():  # no weight stays at its symmetric start value
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    tokens = torch.randint(1, 64, (2, 21))
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0  # padding on the left
    result: dict[str, Any] = {"ops": {}}

    def during(name: str, job: Any) -> None:
        with OpsOfOurs() as ops:
            result[name] = job()
        result["ops"][name] = dict(ops.seen)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model(tokens, attention_mask=mask).logits

    def generated() -> dict[str, torch.Tensor]:
        made = model.generate(
            tokens, attention_mask=mask, max_new_tokens=12, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        return {"tokens": made.sequences, "logits": torch.stack(made.logits)}

    during("logits", logits)
    during("generated", generated)
    during("gradients", lambda: gradients(model, tokens))
    model.train()
    during("training", lambda: gradients(model, tokens))
    return result


def main() -> None:
    kind, with_us, out = sys.argv[1:]
    if with_us == "1":
        from suffuse import compat

        compat.install(["mamba_ssm", "causal_conv1d"])
    torch.save(run(kind), out)


if __name__ == "__main__":
    main()
