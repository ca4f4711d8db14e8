"""causal_conv1d.causal_conv1d_varlen: the states of packed sequences."""

from suffuse.ops import causal_conv1d_varlen_states
from suffuse.reference.causal_conv1d import (
    causal_conv1d_varlen_states as causal_conv1d_varlen_states_ref,
)

__all__ = ["causal_conv1d_varlen_states", "causal_conv1d_varlen_states_ref"]
