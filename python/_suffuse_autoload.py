"""What `import torch` calls through the entry point "torch.backends": nothing, unless SUFFUSE_AUTOLOAD asks for it.

SUFFUSE_AUTOLOAD is a list of names, with commas: "sdpa" is passed to `suffuse.compat.enable`, and "flash_attn",
"mamba_ssm", "causal_conv1d" to `suffuse.compat.install`. A module of its own, since all of `suffuse` takes a while to
import. It runs within `import torch` and must not make that fail: what goes wrong is a warning.
"""

import os


def autoload() -> None:
    """Enables and installs what SUFFUSE_AUTOLOAD names."""
    names = [name.strip() for name in os.environ.get("SUFFUSE_AUTOLOAD", "").split(",")]
    for name in filter(None, names):
        try:
            _load(name)
        except Exception as error:
            import warnings

            warnings.warn(f"SUFFUSE_AUTOLOAD: {name}: {error}", stacklevel=2)


def _load(name: str) -> None:
    from suffuse import compat
    from suffuse.compat._install import STAND_INS

    if name in STAND_INS:
        compat.install(name)
    elif name == "sdpa":
        compat.enable(name)
    else:
        known = ", ".join(["sdpa", *STAND_INS])
        raise ValueError(f"expected one of {known}; suffuse.compat.enable does the others")
