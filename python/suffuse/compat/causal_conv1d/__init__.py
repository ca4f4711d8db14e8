"""The interface of the package causal-conv1d on suffuse's ops: every device, any width, no build step.

Beyond the original: any width, float64, states together with ``seq_idx``, any memory layout, gradients
through the final states, and twice.
"""

from suffuse.compat.causal_conv1d.causal_conv1d_interface import (
    causal_conv1d_fn,
    causal_conv1d_update,
)
from suffuse.compat.causal_conv1d.causal_conv1d_varlen import causal_conv1d_varlen_states

__version__ = "1.6.1"  # whose interface this is

__all__ = ["causal_conv1d_fn", "causal_conv1d_update", "causal_conv1d_varlen_states"]
