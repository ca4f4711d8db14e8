"""mamba_ssm.modules: the layers."""

from suffuse.compat.mamba_ssm.modules import mamba2, mamba_simple, ssd_minimal

__all__ = ["mamba2", "mamba_simple", "ssd_minimal"]
