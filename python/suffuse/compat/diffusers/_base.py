"""What the drop-in schedulers share: the one update and its noise."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

import suffuse.ops  # noqa: F401  registers the op
from suffuse.compat.diffusers import _update
from suffuse.compat.diffusers._config import Configured
from suffuse.compat.diffusers._update import Output, Step, Update
from suffuse.ops import sampler_step

Generator = torch.Generator | Sequence[torch.Generator] | None


# The op without the Python frame of OpOverload.__call__, which is 0.3 us of a call's 4.
# torch.compile cannot see through it.
raw_step = torch.ops.suffuse.sampler_step.default._op

gradients = torch.is_grad_enabled
compiling = torch.compiler.is_dynamo_compiling

NO_HISTORY: list[Tensor] = []


KARRAS = [
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler",
    "EulerDiscreteScheduler", "HeunDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
    "DPMSolverSDEScheduler", "EDMEulerScheduler",
]  # fmt: skip


def randn(
    shape: Sequence[int], generator: Generator, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Normal numbers, drawn as diffusers draws them: on the generator's own device, and with one
    generator a sample, one sample after the other.
    """
    if generator is None or isinstance(generator, torch.Generator):
        source = device if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=source, dtype=dtype).to(device)
    if len(generator) == 1:
        return randn(shape, generator[0], device, dtype)
    if len(generator) != shape[0]:
        raise ValueError(
            f"step: generator is a list of {len(generator)}, expected one for each of the "
            f"{shape[0]} samples"
        )
    return torch.cat([randn((1, *shape[1:]), one, device, dtype) for one in generator])


def mixed(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """a x + b y in one pass, in x's dtype, with a and b [B] or []."""
    table = torch.zeros(max(a.numel(), b.numel()), 21, dtype=torch.float64, device=x.device)
    table[:, 0], table[:, 1] = a, b  # the weights of x and of the model output
    table[:, 17] = 1  # guidance
    if len(table) != x.shape[0]:
        table = table[0]
    return sampler_step(x, (y.to(x.dtype),), table, converted=False).sample


def needed(scheduler: object, noise: Tensor | None) -> Tensor:
    """The noise of `scale_noise`, whose default None means nothing."""
    if noise is None:
        raise ValueError(
            f"{type(scheduler).__name__}.scale_noise: noise is None, expected a Tensor"
        )
    return noise


class Scheduler(Configured):
    """Base of all drop-in schedulers.

    `step` looks its coefficients up and makes one call of `sampler_step`; histories and anchors
    are references to tensors that exist anyway, or the kernel's second output.

    Attributes:
        order: model calls a step.
        init_noise_sigma: standard deviation of the starting noise.
        timesteps: what to call the model with.
    """

    # Storage type of betas and sigmas. All coefficients are computed in float64 from those.
    _precision: torch.dtype = torch.float32
    # True where the new sample has the model output's dtype, False where both are promoted.
    _in_model_dtype = False

    order: int = 1
    init_noise_sigma: Any = 1.0
    num_inference_steps: int | None = None
    timesteps: Tensor

    _threshold: tuple[float, float] | None = None

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    @property
    def compatibles(self) -> list[type]:
        """The drop-in classes that can take over this one's configuration."""
        return self._get_compatibles()

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        from suffuse.compat import diffusers

        names = sorted({cls.__name__, *cls._compatibles})
        return [getattr(diffusers, name) for name in names if hasattr(diffusers, name)]

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The model's input: the sample itself, whatever the timestep."""
        return sample

    def _read_threshold(self) -> None:
        """Takes the dynamic thresholding options out of the configuration."""
        config = self.config
        on = config.get("thresholding")
        pair = (config.dynamic_thresholding_ratio, config.sample_max_value) if on else None
        self._threshold = pair

    def _ready(self) -> None:
        if self.num_inference_steps is None:
            name = type(self).__name__
            raise ValueError(f"{name}.step: there are no timesteps yet, call set_timesteps first")

    def _run(
        self,
        step: Step,
        x: Tensor,
        model_output: Tensor,
        history: list[Tensor],
        anchor: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The new sample, and the converted output if the step keeps it."""
        row, depth, keep = step[:3]
        converted = keep == _update.KEEP_CONVERTED
        if x.dtype is model_output.dtype and not (gradients() or compiling()):
            history = history[:depth]
            threshold = self._threshold
            try:
                # The public function's checks are a tenth of a small call's time.
                if anchor is noise is threshold is None:
                    return raw_step(x, (model_output,), row, history, converted)[:2]
                if noise is threshold is None:
                    return raw_step(x, (model_output,), row, history, converted, None, anchor)[:2]
                quantile, most = threshold or (None, 1.0)
                return raw_step(
                    x, (model_output,), row, history, converted, None, anchor, None, noise, None, 0,
                    quantile, most,
                )[:2]  # fmt: skip
            except RuntimeError:
                # Tables or operands of another device or dtype; anything else fails again below.
                pass
        return self._run_any(row, depth, converted, x, model_output, history, anchor, noise)

    def _run_any(
        self,
        row: Tensor,
        depth: int,
        converted: bool,
        x: Tensor,
        model_output: Tensor,
        history: list[Tensor],
        anchor: Tensor | None,
        noise: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """`_run` for mixed dtypes, tables elsewhere, gradients and any operand."""
        result = model_output.dtype if self._in_model_dtype else None
        wide = torch.promote_types(x.dtype, model_output.dtype)
        if self._in_model_dtype:
            wide = torch.promote_types(wide, torch.float32) if wide != result else wide
        x, model_output = x.to(wide), model_output.to(wide)
        out = sampler_step(
            x,
            (model_output,),
            row.to(x.device),
            history=[h.to(wide) for h in history[:depth]],
            anchor=None if anchor is None else anchor.to(wide),
            noise=None if noise is None else noise.to(x),
            threshold=self._threshold,
            converted=converted,
        )
        return out.sample if result is None else out.sample.to(result), out.converted  # type: ignore[return-value]

    def _second(
        self, update: Update, x: Tensor, model_output: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """The second result of `step`."""
        if update.churn:
            assert noise is not None
            x = torch.add(x, noise, alpha=update.churn)
        wide = torch.promote_types(x.dtype, model_output.dtype)
        row = torch.tensor(update.second_row(), dtype=torch.float64, device=x.device)
        out = sampler_step(x.to(wide), (model_output.to(wide),), row, threshold=self._threshold)
        assert out.converted is not None
        return out.converted


T = TypeVar("T", bound=Configured)


def drop_in(cls: type[T]) -> type[T]:
    """The class as a subclass of diffusers' class of that name, where diffusers is installed.

    Pipelines ask for the class, so this is what makes them accept the scheduler. All methods that
    the drop-in has come first.
    """
    bases = _peer(cls.__name__)
    if not bases:
        return cls
    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    derived = types.new_class(cls.__name__, (cls, *bases), {}, lambda space: space.update(body))
    # The methods of the written class, so that `super()` without arguments works there too.
    return derived


def _peer(name: str) -> tuple[type, ...]:
    try:
        import diffusers
    except ImportError:
        return ()
    # A few classes are exported by the subpackage only.
    peer = getattr(diffusers, name, getattr(diffusers.schedulers, name, None))
    # A class whose own requirements are missing is a placeholder of another metaclass.
    if isinstance(peer, type) and type(peer) is type:
        return (peer,)
    return (diffusers.SchedulerMixin, diffusers.ConfigMixin)


on_device = _update.on_device


def deferred(cls: type[Output], out: Tensor, function: Any, *arguments: Any) -> Any:
    """An output whose second entry is function(*arguments)."""
    return cls((out, (function, *arguments)))
