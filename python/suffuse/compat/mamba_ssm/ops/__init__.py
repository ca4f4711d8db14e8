"""mamba_ssm.ops: scans, updates and norms."""

from suffuse.compat.mamba_ssm.ops import selective_scan_interface, triton

__all__ = ["selective_scan_interface", "triton"]
