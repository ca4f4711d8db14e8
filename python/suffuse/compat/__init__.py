"""The parts of other libraries that suffuse can take over, switched on and off here.

    suffuse.compat.enable("diffusers", pipeline)     # this pipeline's scheduler, in place
    suffuse.compat.enable("diffusers")               # that of every pipeline made from now on
    suffuse.compat.disable("diffusers")              # everything as it was
    with suffuse.compat.enable("diffusers", pipeline): ...

    suffuse.compat.install(["mamba_ssm", "causal_conv1d"])  # before transformers' models
    suffuse.compat.uninstall()

Nothing is patched on import. `status` says what is on.
"""

from suffuse.compat._install import install, uninstall
from suffuse.compat._registry import Enabled, disable, enable, status

__all__ = ["Enabled", "disable", "enable", "install", "status", "uninstall"]
