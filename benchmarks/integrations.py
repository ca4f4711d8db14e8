"""Unmodified models with and without `suffuse.compat.enable`: `python -m benchmarks.integrations [--threads 1]`.

A BERT of MiniLM's size, a Llama-style decoder with grouped heads, a diffusers UNet2DConditionModel and a ViT of
nn.MultiheadAttention, with random weights. The outputs must be the same; times are medians of alternating rounds, and
the attention's part is what the profiler counts for it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from diffusers import UNet2DConditionModel
from torch.profiler import profile

from suffuse import compat

Model = tuple[str, Callable[[], torch.Tensor]]
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
ATTENTION = ("aten::scaled_dot_product_attention", "aten::_native_multi_head_attention")


def bert(dtype: torch.dtype) -> Model:
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=4, num_attention_heads=12, intermediate_size=1536
    )
    model: Any = transformers.BertModel(config)
    model = model.to(dtype).eval()
    ids = torch.randint(1000, (4, 512))
    return "BERT (4, 512), 12 heads of 32", lambda: model(ids).last_hidden_state


def llama(dtype: torch.dtype) -> Model:
    config = transformers.LlamaConfig(
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=1408,
        vocab_size=1000,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    model = model.to(dtype).eval()
    ids = torch.randint(1000, (1, 2048))
    return "Llama (1, 2048), 8 / 2 heads of 64", lambda: model(ids, use_cache=False).logits


def unet(dtype: torch.dtype) -> Model:
    model: Any = UNet2DConditionModel(
        sample_size=64,
        layers_per_block=1,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=256,
        attention_head_dim=(1, 2),
    )
    model = model.to(dtype).eval()
    x, text = torch.randn(1, 4, 64, 64, dtype=dtype), torch.randn(1, 77, 256, dtype=dtype)
    return "UNet (1, 4, 64, 64), heads of 64", lambda: model(x, 10, text).sample


def vit(dtype: torch.dtype) -> Model:
    layer = torch.nn.TransformerEncoderLayer(
        384, 6, 1536, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    model = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).to(dtype).eval()
    x = torch.randn(4, 577, 384, dtype=dtype)
    return "ViT of nn.MultiheadAttention (4, 577), 6 heads of 64", lambda: model(x)


MODELS = (bert, llama, unet, vit)


def attention_seconds(run: Callable[[], Any]) -> float:
    """Of one call, what the profiler counts for attention with all that it calls."""
    with profile() as record:
        run()
    return sum(e.cpu_time_total for e in record.key_averages() if e.key in ATTENTION) * 1e-6


def compare(name: str, run: Callable[[], torch.Tensor], dtype: torch.dtype, rounds: int) -> str:
    modes: dict[str, Callable[[], Any]] = {
        "without": nullcontext,
        "with": lambda: compat.enable("sdpa"),
    }
    results: dict[str, torch.Tensor] = {}
    whole: dict[str, list[float]] = {mode: [] for mode in modes}
    part: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(rounds):
        for mode, context in modes.items():
            with context():
                results[mode] = run()
                start = time.perf_counter()
                run()
                whole[mode].append(time.perf_counter() - start)
                part[mode].append(attention_seconds(run))
    difference = (results["with"] - results["without"]).norm() / results["without"].norm()
    if not float(difference) <= TOLERANCE[dtype]:
        raise AssertionError(f"{name}: the outputs differ by {float(difference):.1e}")
    median = {mode: statistics.median(whole[mode]) for mode in modes}
    inside = {mode: statistics.median(part[mode]) for mode in modes}
    return (
        f"{name:52} {str(dtype)[6:]:9} {1e3 * median['without']:8.1f} -> {1e3 * median['with']:7.1f} ms "
        f"{median['without'] / median['with']:5.2f}x   attention {1e3 * inside['without']:7.1f} -> "
        f"{1e3 * inside['with']:7.1f} ms {inside['without'] / inside['with']:5.2f}x   "
        f"difference {float(difference):.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with torch.no_grad():
        for dtype in TOLERANCE:
            for make in MODELS:
                print(compare(*make(dtype), dtype, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
