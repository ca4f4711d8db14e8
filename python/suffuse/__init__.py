"""Suffuse: fused attention, scan and diffusion-sampler kernels for PyTorch, and models from them.

The ops are functions of this package: :func:`attention` and :func:`attention_decode`,
:func:`rotary`, :func:`qk_norm`, :func:`selective_scan`, :func:`linear_scan`,
:func:`causal_conv1d`, :func:`s4_kernel`, :func:`sampler_step`, :func:`guidance_gram`. Layers above
them: ``suffuse.nn`` and ``suffuse.models`` (networks), ``suffuse.diffusion`` (processes, solvers,
guidance, losses), ``suffuse.train`` (trainer), ``suffuse.compat`` (drop-ins for other packages), and
the command line ``suffuse``.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("suffuse")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

from suffuse.ops import (
    GuidanceGram,
    SamplerStep,
    attention,
    attention_append,
    attention_decode,
    cauchy_mult,
    causal_conv1d,
    causal_conv1d_update,
    causal_conv1d_varlen_states,
    fft_conv,
    guidance_gram,
    linear_scan,
    log_vandermonde,
    log_vandermonde_transpose,
    qk_norm,
    rotary,
    rotary_,
    s4_kernel,
    sampler_step,
    selective_scan,
    selective_state_update,
    step_coefficients,
)

__all__ = [
    "GuidanceGram",
    "SamplerStep",
    "__version__",
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
