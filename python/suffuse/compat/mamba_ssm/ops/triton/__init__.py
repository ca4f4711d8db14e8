"""mamba_ssm.ops.triton: the modules that the original writes in Triton."""

from suffuse.compat.mamba_ssm.ops.triton import (
    layer_norm,
    layernorm_gated,
    selective_state_update,
    ssd_combined,
)

__all__ = ["layer_norm", "layernorm_gated", "selective_state_update", "ssd_combined"]
