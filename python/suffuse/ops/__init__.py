"""The fused ops: public functions, one file each."""

from suffuse.ops.attention import attention
from suffuse.ops.sampler_step import SamplerStep, sampler_step, step_coefficients

__all__ = ["SamplerStep", "attention", "sampler_step", "step_coefficients"]
