"""DiT, the diffusion transformer with adaLN-Zero (Peebles & Xie 2023, arXiv:2212.09748).

Parameter names and shapes are those of `diffusers.DiTTransformer2DModel`, so that its checkpoints
load unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from suffuse import ops
from suffuse._config import check_types
from suffuse.models import folder as model_folder
from suffuse.nn.embedding import LabelEmbedding, PatchEmbedding, TimestepEmbedding, time_features
from suffuse.nn.feed_forward import GELU_APPROXIMATION, FeedForward
from suffuse.nn.linear import xavier_linear, zero_linear

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]

TIME_CHANNELS = 256
# Keys of a diffusers config that change nothing here, and the values they may have (None: any).
# Attention accumulates in fp32 in any case, so that `upcast_attention` may be either.
NEUTRAL_KEYS: dict[str, tuple[Any, ...] | None] = {
    "norm_num_groups": None,
    "upcast_attention": None,
    "norm_type": ("ada_norm_zero",),
    "attention_type": ("default",),
    "interpolation_scale": (None, 1),
    "cross_attention_dim": (None,),
    "caption_channels": (None,),
    "num_vector_embeds": (None,),
    "double_self_attention": (False,),
    "only_cross_attention": (False,),
    "use_linear_projection": (False,),
    "use_additional_conditions": (None, False),
}


@dataclass(frozen=True)
class DiTConfig:
    """Shape of a DiT. Names are those of `diffusers.DiTTransformer2DModel`, plus the last two.

    num_attention_heads, attention_head_dim: the width is their product, a multiple of 4.
    in_channels, out_channels: of the picture; out = 2 * in where the variance is learned too.
    sample_size: height and width in pixels that the position embedding is laid out for.
    patch_size: side of the square of pixels that makes one token.
    num_embeds_ada_norm: number of classes; the label after the last is the null class (no label).
    activation_fn: "gelu-approximate" (tanh form) or "gelu".
    norm_elementwise_affine, norm_eps: of the normalisation before the feed-forward part.
    time_scale: factor on the time before its sinusoidal embedding: 1 for integer steps 0..999,
        1000 for continuous times in [0, 1], as flow matching has them.
    shared_embedding: one embedding of time and class for all blocks, as in the paper. False: one
        for each block, as diffusers stores it.
    """

    num_attention_heads: int
    attention_head_dim: int
    num_layers: int
    in_channels: int
    out_channels: int
    sample_size: int
    patch_size: int
    num_embeds_ada_norm: int
    dropout: float = 0.0
    attention_bias: bool = True
    activation_fn: str = "gelu-approximate"
    norm_elementwise_affine: bool = False
    norm_eps: float = 1e-5
    time_scale: float = 1.0
    shared_embedding: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        for name, value in vars(self).items():
            if type(value) is int and value < 1:
                raise ValueError(f"DiTConfig: {name} is {value}, expected at least 1")
        if self.sample_size % self.patch_size:
            raise ValueError(
                f"DiTConfig: sample_size is {self.sample_size}, expected a multiple of patch_size"
                f" {self.patch_size}"
            )
        if self.width % 4:
            raise ValueError(
                f"DiTConfig: num_attention_heads * attention_head_dim is {self.width},"
                " expected a multiple of 4"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"DiTConfig: dropout is {self.dropout}, expected 0 <= dropout < 1")
        if self.activation_fn not in GELU_APPROXIMATION:
            raise NotImplementedError(
                f"DiTConfig: activation_fn is {self.activation_fn!r}, expected one of"
                f" {list(GELU_APPROXIMATION)}"
            )

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DiTConfig:
        """Read a `config.json` of diffusers or of `DiT.save_pretrained`.

        Raises NotImplementedError for a key or value that this class cannot do, ValueError for a
        missing one.
        """
        values = {"out_channels": None, **values}
        if values["out_channels"] is None:
            values["out_channels"] = values.get("in_channels")
        values = model_folder.without_neutral_keys(cls, values, NEUTRAL_KEYS)
        return cls(**values)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x [B, T, C] * (1 + scale [B, C]) + shift [B, C], after a LayerNorm."""
    return torch.addcmul(shift.unsqueeze(1), x, (scale + 1).unsqueeze(1))


class Conditioning(nn.Module):
    """silu(time embedding + class embedding) [B, width]: what every adaLN layer starts from."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(TIME_CHANNELS, config.width)
        self.class_embedder = LabelEmbedding(config.num_embeds_ada_norm, config.width)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return F.silu(self.timestep_embedder(features) + self.class_embedder(labels))


class AdaLayerNormZero(nn.Module):
    """Shift, scale and gate of the attention part, then of the feed-forward part; [B, width]."""

    def __init__(self, config: DiTConfig, *, owns_embedding: bool) -> None:
        super().__init__()
        if owns_embedding:
            self.emb = Conditioning(config)
        self.linear = zero_linear(config.width, 6 * config.width)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.linear(condition).chunk(6, dim=1)


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens [B, T, width]."""

    def __init__(self, config: DiTConfig, attention: AttentionFunction) -> None:
        super().__init__()
        self.heads, self.attention = config.num_attention_heads, attention
        width, bias = config.width, config.attention_bias
        self.to_q = xavier_linear(width, width, bias=bias)
        self.to_k = xavier_linear(width, width, bias=bias)
        self.to_v = xavier_linear(width, width, bias=bias)
        dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.to_out = nn.Sequential(xavier_linear(width, width), dropout)

    def forward(self, x: Tensor) -> Tensor:
        heads = (*x.shape[:2], self.heads, -1)
        q, k, v = self.to_q(x).view(heads), self.to_k(x).view(heads), self.to_v(x).view(heads)
        return self.to_out(self.attention(q, k, v).flatten(2))


class DiTBlock(nn.Module):
    """Attention and feed-forward part, each modulated before and gated after by the condition."""

    def __init__(
        self, config: DiTConfig, attention: AttentionFunction, *, owns_embedding: bool
    ) -> None:
        super().__init__()
        self.norm1 = AdaLayerNormZero(config, owns_embedding=owns_embedding)
        self.attn1 = SelfAttention(config, attention)
        self.norm3 = nn.LayerNorm(
            config.width, config.norm_eps, elementwise_affine=config.norm_elementwise_affine
        )
        self.ff = FeedForward(config.width, activation=config.activation_fn, dropout=config.dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.norm1(condition)
        h = _modulate(F.layer_norm(x, x.shape[-1:], eps=1e-6), shift1, scale1)
        x = torch.addcmul(x, gate1.unsqueeze(1), self.attn1(h))
        h = _modulate(self.norm3(x), shift2, scale2)
        return torch.addcmul(x, gate2.unsqueeze(1), self.ff(h))


class DiT(nn.Module):
    """Class-conditional diffusion transformer.

    config: see `DiTConfig`.
    attention: called as attention(q, k, v) with tensors [B, T, H, D]; returns [B, T, H, D].

    Labels are never dropped in here: a training step that wants classifier-free guidance replaces
    some of them by `null_label` itself. A new model predicts zero (adaLN-Zero).
    """

    def __init__(self, config: DiTConfig, *, attention: AttentionFunction = ops.attention) -> None:
        super().__init__()
        self.config = config
        self.null_label = config.num_embeds_ada_norm
        self.pos_embed = PatchEmbedding(
            config.in_channels,
            config.width,
            patch=config.patch_size,
            base=config.sample_size // config.patch_size,
        )
        self.transformer_blocks = nn.ModuleList(
            DiTBlock(config, attention, owns_embedding=not (config.shared_embedding and index))
            for index in range(config.num_layers)
        )
        self.proj_out_1 = zero_linear(config.width, 2 * config.width)
        self.proj_out_2 = zero_linear(config.width, config.patch_size**2 * config.out_channels)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Predict from noisy pictures.

        x: [B, in_channels, H, W]; H and W are multiples of the patch size.
        t: [B], times, any number type; multiplied by `config.time_scale`.
        class_labels: [B] int64 in 0..null_label; None: the null class for all.
        Returns [B, out_channels, H, W].
        """
        self._check(x, t, class_labels)
        if class_labels is None:
            class_labels = torch.full_like(t, self.null_label, dtype=torch.int64)
        features = time_features(t.float() * self.config.time_scale, TIME_CHANNELS).to(x.dtype)
        tokens = self.pos_embed(x)  # [B, T, width]
        conditions: list[Tensor] = []
        for block in cast("Iterable[DiTBlock]", self.transformer_blocks):
            if not (conditions and self.config.shared_embedding):
                conditions.append(block.norm1.emb(features, class_labels))
            tokens = block(tokens, conditions[-1])
        shift, scale = self.proj_out_1(conditions[0]).chunk(2, dim=1)
        tokens = _modulate(F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6), shift, scale)
        return self._pictures(self.proj_out_2(tokens), *x.shape[2:])

    def _check(self, x: Tensor, t: Tensor, class_labels: Tensor | None) -> None:
        channels, patch = self.config.in_channels, self.config.patch_size
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % patch or x.shape[3] % patch:
            raise ValueError(
                f"DiT: x has shape {tuple(x.shape)}, expected (B, {channels}, H, W) with H and W"
                f" multiples of {patch}"
            )
        for name, value in (("t", t), ("class_labels", class_labels)):
            if value is not None and value.shape != x.shape[:1]:
                raise ValueError(
                    f"DiT: {name} has shape {tuple(value.shape)}, expected ({x.shape[0]},) like x"
                )

    def _pictures(self, tokens: Tensor, height: int, width: int) -> Tensor:
        p, channels = self.config.patch_size, self.config.out_channels
        grid = tokens.view(-1, height // p, width // p, p, p, channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, attention: AttentionFunction = ops.attention
    ) -> DiT:
        """Load a local folder written by diffusers (`config.json` beside
        `diffusion_pytorch_model.safetensors`) or by `save_pretrained`.

        The model is on the CPU, in eval mode, in the dtype of the file. Raises FileNotFoundError,
        ValueError for a damaged file, NotImplementedError for a config that this class cannot do,
        RuntimeError for missing, unexpected or misshapen weights.
        """
        config = DiTConfig.from_dict(model_folder.read_config(folder))
        weights = model_folder.read_weights(folder)
        model = cls(config, attention=attention)
        dtypes = {tensor.dtype for tensor in weights.values()}
        if len(dtypes) == 1:
            model.to(dtypes.pop())
        model.load_state_dict(weights, strict=True)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `diffusion_pytorch_model.safetensors` into `folder`.

        diffusers reads it too where `shared_embedding` is False and `time_scale` is 1.
        """
        config = {"_class_name": "DiTTransformer2DModel", **asdict(self.config)}
        if not self.config.shared_embedding and self.config.time_scale == 1.0:
            del config["shared_embedding"], config["time_scale"]
        model_folder.write_folder(folder, config, self)
