"""The fused ops: public functions, one file each."""

from suffuse.ops.attention import attention
from suffuse.ops.causal_conv1d import (
    causal_conv1d,
    causal_conv1d_update,
    causal_conv1d_varlen_states,
)
from suffuse.ops.guidance_gram import GuidanceGram, guidance_gram
from suffuse.ops.linear_scan import linear_scan
from suffuse.ops.sampler_step import SamplerStep, sampler_step, step_coefficients
from suffuse.ops.selective_scan import selective_scan, selective_state_update

__all__ = [
    "GuidanceGram",
    "SamplerStep",
    "attention",
    "causal_conv1d",
    "causal_conv1d_update",
    "causal_conv1d_varlen_states",
    "guidance_gram",
    "linear_scan",
    "sampler_step",
    "selective_scan",
    "selective_state_update",
    "step_coefficients",
]
