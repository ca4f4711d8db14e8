"""Drop-in schedulers: diffusers' names, arguments, files and results, one fused update a step.

    from suffuse.compat.diffusers import DPMSolverMultistepScheduler
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)

or `suffuse.compat.enable("diffusers", pipeline)`, which keeps the pipeline's own choice. A class
here has the constructor, `config`, `save_pretrained`, `set_timesteps`, `scale_model_input`, `step`,
`add_noise` and so on of diffusers' class of that name (release 0.42), and is a subclass of it where
diffusers is installed, so that pipelines accept it. Its results are those of diffusers up to
rounding, with the same random numbers.

What differs: `step` returns a named tuple whether or not return_dict is set; coefficients are
computed in float64 from diffusers' float32 tables; a timestep that `step` only needs to find its
place is read once; methods that are inner workings of diffusers' solvers are not reproduced.

Not here, as no linear update expresses them: the schedulers of discrete data (Amused,
BlockRefinement, DiscreteDDIM, EntropyBound, VQDiffusion). Nor is Piflow, which takes ten model
outputs a step.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "cogvideox": (
        "CogVideoXDDIMScheduler",
        "CogVideoXDPMScheduler",
    ),
    "consistency": (
        "CMStochasticIterativeScheduler",
        "SCMScheduler",
    ),
    "consistency_decoder": ("ConsistencyDecoderScheduler",),
    "ddim": (
        "DDIMInverseScheduler",
        "DDIMParallelScheduler",
        "DDIMScheduler",
    ),
    "ddpm": (
        "DDPMParallelScheduler",
        "DDPMScheduler",
    ),
    "deis": ("DEISMultistepScheduler",),
    "dpm": ("DPMSolverMultistepScheduler",),
    "dpm2": (
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
    ),
    "dpm_inverse": ("DPMSolverMultistepInverseScheduler",),
    "dpm_sde": ("DPMSolverSDEScheduler",),
    "dpm_single": ("DPMSolverSinglestepScheduler",),
    "edm": ("EDMEulerScheduler",),
    "edm_dpm": (
        "CosineDPMSolverMultistepScheduler",
        "EDMDPMSolverMultistepScheduler",
    ),
    "euler": (
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
    ),
    "flow": ("FlowMatchEulerDiscreteScheduler",),
    "flow_heun": (
        "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
    ),
    "flow_map": (
        "FlowMapEulerDiscreteScheduler",
        "MiniMaxH3Scheduler",
    ),
    "helios": ("HeliosScheduler",),
    "helios_dmd": ("HeliosDMDScheduler",),
    "heun": ("HeunDiscreteScheduler",),
    "karras_ve": ("KarrasVeScheduler",),
    "lcm": (
        "LCMScheduler",
        "TCDScheduler",
    ),
    "linear": (
        "IPNDMScheduler",
        "LMSDiscreteScheduler",
    ),
    "ltx": ("LTXEulerAncestralRFScheduler",),
    "pndm": ("PNDMScheduler",),
    "proteina": ("RFD4ProteinaScheduler",),
    "repaint": ("RePaintScheduler",),
    "sasolver": ("SASolverScheduler",),
    "score_sde": (
        "ScoreSdeVeScheduler",
        "ScoreSdeVpScheduler",
    ),
    "unclip": (
        "DDPMWuerstchenScheduler",
        "UnCLIPScheduler",
    ),
    "unipc": ("UniPCMultistepScheduler",),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

SCHEDULERS = tuple(sorted(_WHERE))
__all__ = [*SCHEDULERS, "SCHEDULERS"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *SCHEDULERS])
