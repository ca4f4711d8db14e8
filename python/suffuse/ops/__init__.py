"""The fused ops: public functions, one file each."""

from suffuse.ops.attention import attention, attention_append, attention_decode
from suffuse.ops.causal_conv1d import (
    causal_conv1d,
    causal_conv1d_update,
    causal_conv1d_varlen_states,
)
from suffuse.ops.guidance_gram import GuidanceGram, guidance_gram
from suffuse.ops.linear_scan import linear_scan
from suffuse.ops.qk_norm import qk_norm
from suffuse.ops.rotary import rotary, rotary_
from suffuse.ops.s4_kernel import (
    cauchy_mult,
    fft_conv,
    log_vandermonde,
    log_vandermonde_transpose,
    s4_kernel,
)
from suffuse.ops.sampler_step import SamplerStep, sampler_step, step_coefficients
from suffuse.ops.selective_scan import selective_scan, selective_state_update

__all__ = [
    "GuidanceGram",
    "SamplerStep",
    "attention",
    "attention_append",
    "attention_decode",
    "cauchy_mult",
    "causal_conv1d",
    "causal_conv1d_update",
    "causal_conv1d_varlen_states",
    "fft_conv",
    "guidance_gram",
    "linear_scan",
    "log_vandermonde",
    "log_vandermonde_transpose",
    "qk_norm",
    "rotary",
    "rotary_",
    "s4_kernel",
    "sampler_step",
    "selective_scan",
    "selective_state_update",
    "step_coefficients",
]
