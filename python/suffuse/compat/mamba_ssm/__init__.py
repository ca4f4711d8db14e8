"""The interface of the package mamba-ssm on suffuse's ops: every device, no build step.

The scan of Mamba-1 runs on `suffuse.selective_scan`, forward and backward, the one of Mamba-2 on the
chunked formula of `suffuse.nn.ssd`. Beyond the original: gradients through the last state, and twice.
"""

from suffuse.compat.mamba_ssm import modules, ops
from suffuse.compat.mamba_ssm.modules.mamba2 import Mamba2
from suffuse.compat.mamba_ssm.modules.mamba_simple import Mamba
from suffuse.compat.mamba_ssm.ops.selective_scan_interface import (
    mamba_inner_fn,
    selective_scan_fn,
)

__version__ = "2.3.2.post1"  # whose interface this is

__all__ = ["Mamba", "Mamba2", "mamba_inner_fn", "modules", "ops", "selective_scan_fn"]
