"""What the drop-ins share with diffusers' classes besides their steps: arguments, files, lookups."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import warnings
from typing import Any

import pytest
import torch
from scheduler_peer import drop_in, peer, relative, start, trajectory
from torch.utils._python_dispatch import TorchDispatchMode

from suffuse.compat.diffusers import SCHEDULERS

# Arguments that a class cannot do without.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "RFD4ProteinaScheduler": {
        "schedule_mode": "log",
        "noise_mode": "tan",
        "tsr_k": 2.0,
        "tsr_sigma": 0.8,
    },
}
# diffusers gives a placeholder where torchsde is not installed.
PEERS = [name for name in SCHEDULERS if type(peer(name)) is type]
SIGMAS = [
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "CMStochasticIterativeScheduler",
]
LAMBDAS = [
    "DPMSolverMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "DEISMultistepScheduler",
]
ALPHAS = [
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "UnCLIPScheduler",
    "PNDMScheduler",
    "LCMScheduler",
    "TCDScheduler",
]


def make(name: str, **config: Any) -> Any:
    return drop_in(name)(**ARGUMENTS.get(name, {}), **config)


def parameters(function: Any) -> list[tuple[str, Any]]:
    known = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in known if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


@pytest.mark.parametrize("name", PEERS)
def test_arguments_are_the_same(name: str) -> None:
    ours, theirs = drop_in(name), peer(name)
    assert parameters(ours.__init__) == parameters(theirs.__init__)
    for method in (
        "step",
        "set_timesteps",
        "add_noise",
        "get_velocity",
        "step_pred",
        "scale_noise",
    ):
        if hasattr(theirs, method):
            assert parameters(getattr(ours, method)) == parameters(getattr(theirs, method)), method


@pytest.mark.parametrize("name", PEERS)
def test_is_a_subclass_with_its_attributes(name: str) -> None:
    ours, theirs = make(name), peer(name)(**ARGUMENTS.get(name, {}))
    assert isinstance(ours, peer(name))
    assert type(ours).__name__ == name
    for attribute in ("order", "_compatibles"):
        if hasattr(theirs, attribute):
            assert getattr(ours, attribute) == getattr(theirs, attribute)
    if hasattr(theirs, "init_noise_sigma") and name != "ConsistencyDecoderScheduler":
        assert float(ours.init_noise_sigma) == pytest.approx(
            float(theirs.init_noise_sigma), rel=1e-6
        )
    for attribute in ("betas", "alphas_cumprod", "sigmas", "timesteps"):
        table = getattr(theirs, attribute, None)
        if isinstance(table, torch.Tensor):
            torch.testing.assert_close(
                getattr(ours, attribute), table, rtol=1e-6, atol=1e-7, check_dtype=False
            )
    if hasattr(peer(name), "__len__") and "num_train_timesteps" in ours.config:
        assert len(ours) == len(theirs)


@pytest.mark.parametrize("name", PEERS)
def test_files_go_both_ways(name: str, tmp_path: Any) -> None:
    ours, theirs = make(name), peer(name)(**ARGUMENTS.get(name, {}))
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    texts = [
        json.loads((tmp_path / side / "scheduler_config.json").read_text())
        for side in ("ours", "theirs")
    ]
    for text in texts:
        text.pop("_diffusers_version")
    assert texts[0] == texts[1]
    assert dict(peer(name).from_pretrained(tmp_path / "ours").config)["_class_name"] == name
    loaded = drop_in(name).from_pretrained(tmp_path, subfolder="theirs")
    assert {k: v for k, v in loaded.config.items() if not k.startswith("_")} == {
        k: v for k, v in ours.config.items() if not k.startswith("_")
    }


def test_configuration_survives_a_class_that_does_not_take_it() -> None:
    euler = drop_in("EulerDiscreteScheduler")(use_karras_sigmas=True, beta_schedule="scaled_linear")
    ddim = drop_in("DDIMScheduler").from_config(euler.config)
    assert ddim.config.beta_schedule == "scaled_linear"
    # As in diffusers: defaults of the other class are not carried over.
    assert ddim.config.timestep_spacing == "leading"
    back = drop_in("EulerDiscreteScheduler").from_config(ddim.config)
    assert back.config.use_karras_sigmas is True
    theirs = peer("DPMSolverMultistepScheduler").from_config(ddim.config)
    assert theirs.config.use_karras_sigmas is True


def test_configuration_is_frozen_and_takes_overrides() -> None:
    scheduler = drop_in("DDIMScheduler").from_config({"beta_start": 0.01}, beta_end=0.03)
    assert (scheduler.config.beta_start, scheduler.config["beta_end"]) == (0.01, 0.03)
    with pytest.raises(TypeError, match="cannot be changed"):
        scheduler.config.beta_start = 1.0
    with pytest.raises(AttributeError, match="nothing"):
        _ = scheduler.config.nothing
    made, unused = drop_in("DDIMScheduler").from_config({}, True, beta_end=0.5, other=1)
    assert made.config.beta_end == 0.5 and unused["other"] == 1
    with pytest.warns(UserWarning, match="no scheduler takes nonsense"):
        drop_in("DDIMScheduler").from_config({"nonsense": 1})
    with pytest.raises(TypeError, match="unexpected keyword"):
        drop_in("DDIMScheduler")(nonsense=1)
    with pytest.raises(NotImplementedError, match="push_to_hub"):
        scheduler.save_pretrained("nowhere", push_to_hub=True)
    with pytest.raises(FileNotFoundError):
        drop_in("DDIMScheduler").from_pretrained(".", subfolder="nowhere")


def test_compatibles_are_drop_ins() -> None:
    kinds = drop_in("DDIMScheduler")().compatibles
    assert drop_in("EulerDiscreteScheduler") in kinds and drop_in("DDIMScheduler") in kinds


def test_renamed_argument() -> None:
    scheduler = drop_in("DDIMInverseScheduler")(set_alpha_to_zero=False)
    assert scheduler.config.set_alpha_to_one is False


@pytest.mark.parametrize("name", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noising_equals(name: str, dtype: torch.dtype) -> None:
    ours, theirs = make(name), peer(name)()
    x, noise = torch.randn(2, 3, 3, 4, 4, dtype=dtype).unbind(0)
    t = torch.tensor([10, 500, 999])
    both = [s.add_noise(x, noise, t) for s in (ours, theirs)]
    assert both[0].dtype == dtype and relative(*both) <= 2e-7
    assert relative(*(s.add_noise(x, noise, t[:1]) for s in (ours, theirs))) <= 2e-7
    if hasattr(theirs, "get_velocity"):
        assert relative(*(s.get_velocity(x, noise, t) for s in (ours, theirs))) <= 2e-7


@pytest.mark.parametrize("name", [*SIGMAS, *LAMBDAS])
@pytest.mark.parametrize("begin", [None, 3])
def test_noising_at_steps_equals(name: str, begin: int | None) -> None:
    ours, theirs = make(name), peer(name)()
    x, noise = torch.randn(2, 2, 3, 4, 4).unbind(0)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(10)
        if begin is not None and hasattr(theirs, "set_begin_index"):
            scheduler.set_begin_index(begin)
    results = [s.add_noise(x, noise, s.timesteps[[2, 5]]) for s in (ours, theirs)]
    assert relative(*results) <= 2e-7


@pytest.mark.parametrize("begin", [None, 2])
def test_flow_noising_equals(begin: int | None) -> None:
    ours, theirs = (
        make("FlowMatchEulerDiscreteScheduler"),
        peer("FlowMatchEulerDiscreteScheduler")(),
    )
    x, noise = torch.randn(2, 2, 3, 4, 4).unbind(0)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(10)
        if begin is not None:
            scheduler.set_begin_index(begin)
    results = [s.scale_noise(x, s.timesteps[[2, 5]], noise) for s in (ours, theirs)]
    assert relative(*results) <= 2e-7
    with pytest.raises(ValueError, match="noise is None"):
        ours.scale_noise(x, ours.timesteps[[2, 5]])


def test_velocity_at_steps_equals() -> None:
    schedulers = [
        kind() for kind in (drop_in("EulerDiscreteScheduler"), peer("EulerDiscreteScheduler"))
    ]
    x, noise = torch.randn(2, 2, 3, 4, 4).unbind(0)
    for scheduler in schedulers:
        scheduler.set_timesteps(10)
    assert relative(*(s.get_velocity(x, noise, s.timesteps[[2, 5]]) for s in schedulers)) <= 2e-7


# Everything that has a step index; a run that starts in the middle has no history.
@pytest.mark.parametrize(
    "name",
    [
        *SIGMAS,
        *LAMBDAS,
        "IPNDMScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "TCDScheduler",
    ],
)
@pytest.mark.parametrize("begin", [2, 6])
def test_start_in_the_middle_equals(name: str, begin: int) -> None:
    noisy = "generator" in inspect.signature(peer(name).step).parameters
    runs = []
    for kind in (drop_in(name), peer(name)):
        generator = torch.Generator().manual_seed(0) if noisy else None
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setting = {"num_inference_steps": 10}
            runs.append(
                trajectory(kind(), torch.float32, setting=setting, generator=generator, begin=begin)
            )
    assert relative(runs[0][0], runs[1][0]) <= 3e-6


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("DDPMScheduler", {"timesteps": [900, 600, 200, 0]}),
        ("EulerDiscreteScheduler", {"timesteps": [999, 500, 20]}),
        ("EulerDiscreteScheduler", {"sigmas": [14.0, 3.0, 0.5, 0.0]}),
        ("HeunDiscreteScheduler", {"timesteps": [999, 500, 20]}),
        ("DPMSolverMultistepScheduler", {"timesteps": [999, 500, 20, 3]}),
        ("DPMSolverSinglestepScheduler", {"timesteps": [999, 500, 20, 3]}),
        ("LCMScheduler", {"timesteps": [999, 499, 19]}),
        ("LCMScheduler", {"num_inference_steps": 4, "strength": 0.6}),
        ("LCMScheduler", {"num_inference_steps": 4, "original_inference_steps": 20}),
        ("LCMScheduler", {"timesteps": [999, 499, 19], "strength": 0.7}),
        ("TCDScheduler", {"num_inference_steps": 4, "original_inference_steps": 20}),
        ("CMStochasticIterativeScheduler", {"timesteps": [30, 12, 0]}),
        ("EDMEulerScheduler", {"sigmas": torch.tensor([0.0, 0.3, 0.9])}),
        ("FlowMatchEulerDiscreteScheduler", {"sigmas": [1.0, 0.6, 0.2]}),
        ("FlowMatchEulerDiscreteScheduler", {"timesteps": [1000.0, 500.0, 100.0]}),
        (
            "FlowMatchEulerDiscreteScheduler",
            {"sigmas": [1.0, 0.6, 0.2], "timesteps": [999.0, 555.0, 111.0]},
        ),
        ("FlowMapEulerDiscreteScheduler", {"sigmas": [1.0, 0.6, 0.2]}),
        ("LTXEulerAncestralRFScheduler", {"sigmas": [1.0, 0.6, 0.2, 0.0]}),
        ("MiniMaxH3Scheduler", {"sigmas": [1.0, 0.6, 0.2, 0.0]}),
        ("SCMScheduler", {"num_inference_steps": 2, "timesteps": [1.5, 0.9, 0.0], "max_timesteps": None}),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_custom_grids_equal(name: str, setting: dict[str, Any]) -> None:
    noisy = "generator" in inspect.signature(peer(name).step).parameters
    runs = []
    for kind in (drop_in(name), peer(name)):
        generator = torch.Generator().manual_seed(0) if noisy else None
        with torch.no_grad():
            runs.append(trajectory(kind(), torch.float32, setting=setting, generator=generator))
    assert relative(runs[0][0], runs[1][0]) <= 1e-6


@pytest.mark.parametrize("kind", ["learned", "learned_range"])
def test_learned_variance_equals(kind: str) -> None:
    results = []
    for cls in (drop_in("DDPMScheduler"), peer("DDPMScheduler")):
        scheduler = cls(variance_type=kind)
        scheduler.set_timesteps(10)
        x = start(scheduler, torch.float32)
        values = torch.rand(x.shape, generator=torch.Generator().manual_seed(4))
        output = torch.cat([0.5 * x, values], dim=1)
        generator = torch.Generator().manual_seed(0)
        results.append(scheduler.step(output, 500, x, generator=generator).prev_sample)
    assert relative(*results) <= 1e-6
    with pytest.raises(ValueError, match="expected 6"):
        scheduler = drop_in("DDPMScheduler")(variance_type=kind)
        scheduler.step(x, 500, x)


def test_learned_range_of_unclip_equals() -> None:
    results = []
    for cls in (drop_in("UnCLIPScheduler"), peer("UnCLIPScheduler")):
        scheduler = cls(variance_type="learned_range")
        scheduler.set_timesteps(10)
        x = start(scheduler, torch.float32)
        output = torch.cat([0.5 * x, 0.2 * x], dim=1)
        generator = torch.Generator().manual_seed(0)
        result = scheduler.step(output, 500, x, prev_timestep=300, generator=generator)
        results.append(result.prev_sample)
    assert relative(*results) <= 1e-6


def test_steps_of_a_batch_equal() -> None:
    x, output = torch.randn(2, 3, 3, 4, 4).unbind(0)
    t = torch.tensor([0, 400, 900])
    for name in ("DDIMParallelScheduler", "DDPMParallelScheduler"):
        schedulers = [drop_in(name)(), peer(name)()]
        for scheduler in schedulers:
            scheduler.set_timesteps(10)
        with torch.no_grad():
            results = [s.batch_step_no_noise(output, t, x) for s in schedulers]
        assert relative(*results) <= 1e-6
    with pytest.raises(ValueError, match="eta is 1"):
        schedulers = [drop_in("DDIMParallelScheduler")()]
        schedulers[0].set_timesteps(10)
        schedulers[0].batch_step_no_noise(output, t, x, eta=1)


@pytest.mark.parametrize("stochastic", [False, True])
def test_timesteps_per_token_equal(stochastic: bool) -> None:
    x, output = torch.randn(2, 2, 5, 3).unbind(0)
    tokens = torch.tensor([[1000.0, 900, 500, 100, 0], [300, 300, 0, 1000, 1000]])
    results = []
    for cls in (drop_in, peer):
        scheduler = cls("FlowMatchEulerDiscreteScheduler")(stochastic_sampling=stochastic)
        scheduler.set_timesteps(10)
        result = scheduler.step(
            output, scheduler.timesteps[0], x, per_token_timesteps=tokens,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        results.append(result.prev_sample)
    assert relative(*results) <= 1e-6
    with pytest.raises(ValueError, match="per_token_timesteps"):
        drop = drop_in("FlowMatchEulerDiscreteScheduler")()
        drop.set_timesteps(10)
        drop.step(output, drop.timesteps[0], x, per_token_timesteps=tokens[:, :2])


def test_cogvideox_dpm_equals() -> None:
    for spacing in ("leading", "trailing"):
        runs = []
        for cls in (drop_in, peer):
            scheduler = cls("CogVideoXDPMScheduler")(
                timestep_spacing=spacing, prediction_type="v_prediction"
            )
            scheduler.set_timesteps(20)
            generator, old, x = (
                torch.Generator().manual_seed(0),
                None,
                start(scheduler, torch.float32),
            )
            times = scheduler.timesteps
            for i, t in enumerate(times):
                x, old = scheduler.step(
                    torch.tanh(x), old, t, times[i - 1] if i > 0 else None, x, generator=generator
                )
            runs.append((x, old, torch.rand((), generator=generator)))
        assert runs[0][2] == runs[1][2]
        assert relative(runs[0][0], runs[1][0]) <= 2e-6
        assert relative(runs[0][1], runs[1][1]) <= 2e-6


@pytest.mark.parametrize("stage", [0, 2])
def test_distilled_helios_equals(stage: int) -> None:
    x, noise = torch.randn(2, 2, 3, 2, 4, 4).unbind(0)
    results: list[list[Any]] = [[], []]
    for cls, kept in zip((drop_in, peer), results, strict=True):
        scheduler = cls("HeliosDMDScheduler")()
        scheduler.set_timesteps(3, stage_index=stage)
        known = {"dmd_sigmas": scheduler.sigmas, "dmd_timesteps": scheduler.timesteps}
        sample, times = x, scheduler.timesteps
        kept += [scheduler.sigmas, times]
        for i, t in enumerate(times):
            sample = scheduler.step(
                torch.tanh(sample), t, sample, cur_sampling_step=i, dmd_noisy_tensor=noise,
                all_timesteps=times, **known,
            ).prev_sample  # fmt: skip
            kept.append(sample)
        table = scheduler.sigmas, scheduler.timesteps
        kept.append(scheduler.add_noise(x, noise, times[[0, 1]], *table))
        kept.append(scheduler.convert_flow_pred_to_x0(noise, x, times[[0, 1]], *table))
        for attribute in ("start_sigmas", "end_sigmas", "ori_start_sigmas"):
            kept.append(torch.tensor([*getattr(scheduler, attribute).values()]))
    for ours, theirs in zip(*results, strict=True):
        assert relative(ours, theirs) <= 1e-6


def test_helios_reports_its_corrected_sample() -> None:
    outputs = []
    for cls in (drop_in, peer):
        scheduler = cls("HeliosScheduler")()
        scheduler.set_timesteps(6, stage_index=1)
        x = start(scheduler, torch.float32)
        for t in scheduler.timesteps[:4]:
            out = scheduler.step(torch.tanh(x), t, x)
            x = out.prev_sample
        outputs.append(out)
    assert relative(outputs[0].last_sample, outputs[1].last_sample) <= 1e-6
    assert outputs[0].this_order == outputs[1].this_order == 2
    with pytest.raises(NotImplementedError, match="cus_step_index"):
        drop_in("HeliosScheduler")().step_unipc(x, None, x, cus_step_index=1)


def test_upscaling_equals() -> None:
    results = []
    for cls in (drop_in, peer):
        scheduler = cls("FlowMatchLCMScheduler")(scale_factors=[1.5, 2.0], upscale_mode="bilinear")
        scheduler.set_timesteps(3)
        generator, x = torch.Generator().manual_seed(0), start(scheduler, torch.float32)
        for t in scheduler.timesteps:
            x = scheduler.step(torch.tanh(x), t, x, generator=generator).prev_sample
        results.append(x)
    assert results[0].shape == (2, 3, 8, 8)
    assert relative(*results) <= 1e-6


def test_proteina_equals() -> None:
    mask = torch.ones(2, 5)
    mask[0, 3:] = 0
    for mode, noise in (("log", "tan"), ("power", "1/t")):
        for begin in (None, 0.3):
            results = []
            for cls in (drop_in, peer):
                scheduler = cls("RFD4ProteinaScheduler")(
                    schedule_mode=mode, noise_mode=noise, tsr_k=2.0, tsr_sigma=0.8
                )
                scheduler.set_timesteps(40, start_time=begin)
                generators = [torch.Generator().manual_seed(i) for i in (1, 2)]
                x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(7))
                for t in scheduler.timesteps:
                    x = scheduler.step(torch.tanh(x) + t, t, x, mask, generators).prev_sample
                results.append(x)
            assert relative(*results) <= 1e-6


def test_repaint_equals() -> None:
    results = []
    for cls in (drop_in, peer):
        scheduler = cls("RePaintScheduler")()
        scheduler.set_timesteps(20, 5, 3)
        scheduler.eta = 0.5
        x = start(scheduler, torch.float32)
        picture, known = 0.1 * x, (x > 0).float()
        generator, before = torch.Generator().manual_seed(0), scheduler.timesteps[0] + 1
        for t in scheduler.timesteps:
            if t < before:
                x = scheduler.step(torch.tanh(x), t, x, picture, known, generator).prev_sample
            else:
                x = scheduler.undo_step(x, before, generator)
            before = t
        results.append(x)
    assert relative(*results) <= 1e-5


def test_score_sdes_equal() -> None:
    x, output = torch.randn(2, 2, 3, 4, 4).unbind(0)
    schedulers = [cls("ScoreSdeVeScheduler")() for cls in (drop_in, peer)]
    for scheduler in schedulers:
        scheduler.set_timesteps(10)
        scheduler.set_sigmas(10)
    for t in schedulers[0].timesteps:
        ours, theirs = (
            s.step_pred(output, t, x, torch.Generator().manual_seed(0), return_dict=False)
            for s in schedulers
        )
        assert relative(ours[0], theirs[0]) <= 1e-6 and relative(ours[1], theirs[1]) <= 1e-6
    corrected = [s.step_correct(output, x, torch.Generator().manual_seed(0))[0] for s in schedulers]
    assert relative(*corrected) <= 1e-6
    noised = [s.add_noise(x, output, torch.tensor([2, 7])) for s in schedulers]
    assert relative(*noised) <= 1e-6
    schedulers = [cls("ScoreSdeVpScheduler")() for cls in (drop_in, peer)]
    for scheduler in schedulers:
        scheduler.set_timesteps(10)
    t = torch.tensor([0.3, 0.9])
    ours, theirs = (s.step_pred(output, x, t, torch.Generator().manual_seed(0)) for s in schedulers)
    assert relative(ours[0], theirs[0]) <= 1e-6 and relative(ours[1], theirs[1]) <= 1e-6


def test_karras_ve_equals() -> None:
    x, output = torch.randn(2, 2, 3, 4, 4).unbind(0)
    schedulers = [cls("KarrasVeScheduler")() for cls in (drop_in, peer)]
    results = []
    for scheduler in schedulers:
        scheduler.set_timesteps(10)
        level, end = scheduler.schedule[5], scheduler.schedule[4] * 0.5
        noisy, raised = scheduler.add_noise_to_input(x, level, torch.Generator().manual_seed(0))
        first = scheduler.step(output, raised, end, noisy)
        second = scheduler.step_correct(output, raised, end, noisy, first[0], first[1])
        results.append([noisy, *(first[k] for k in FIELDS), *(second[k] for k in FIELDS)])
    for ours, theirs in zip(*results, strict=True):
        assert relative(ours, theirs) <= 1e-6


FIELDS = ("prev_sample", "derivative", "pred_original_sample")


def test_consistency_decoder_equals() -> None:
    schedulers = [cls("ConsistencyDecoderScheduler")() for cls in (drop_in, peer)]
    x, output = torch.randn(2, 2, 3, 4, 4).unbind(0)
    for scheduler in schedulers:
        scheduler.set_timesteps(2)
    for t in schedulers[0].timesteps:
        results = [
            s.step(output, t, x, torch.Generator().manual_seed(0)).prev_sample for s in schedulers
        ]
        assert relative(*results) <= 1e-6
        assert relative(*(s.scale_model_input(x, t) for s in schedulers)) <= 1e-6
    assert schedulers[0].init_noise_sigma == schedulers[1].init_noise_sigma


def test_wuerstchen_equals() -> None:
    for scaler in (0.8, 1.0, 1.5):
        schedulers = [cls("DDPMWuerstchenScheduler")(scaler=scaler) for cls in (drop_in, peer)]
        x, output = torch.randn(2, 2, 3, 4, 4).unbind(0)
        for scheduler in schedulers:
            scheduler.set_timesteps(10)
        for t in schedulers[0].timesteps[:-1]:
            results = [
                s.step(output, t.expand(2), x, torch.Generator().manual_seed(0))[0]
                if s is schedulers[0]
                else s.step(output, t.expand(2), x, torch.Generator().manual_seed(0)).prev_sample
                for s in schedulers
            ]
            assert relative(*results) <= 1e-6
        noised = [s.add_noise(x, output, torch.tensor([0.2, 0.7])) for s in schedulers]
        assert relative(*noised) <= 1e-6


def test_generators_one_for_each_sample() -> None:
    results = []
    for cls in (drop_in, peer):
        scheduler = cls("EulerAncestralDiscreteScheduler")()
        generators = [torch.Generator().manual_seed(i) for i in (5, 6)]
        setting = {"num_inference_steps": 5}
        results.append(
            trajectory(scheduler, torch.float32, setting=setting, generator=generators)[0]  # type: ignore[arg-type]
        )
    assert relative(*results) <= 1e-6
    ours = drop_in("DDPMScheduler")()
    ours.set_timesteps(5)
    x = start(ours, torch.float32)
    with pytest.raises(ValueError, match="list of 3"):
        ours.step(x, ours.timesteps[0], x, generator=[torch.Generator()] * 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name",
    ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler",
     "HeunDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"],
)  # fmt: skip
def test_narrow_dtypes(name: str, dtype: torch.dtype) -> None:
    """Results have diffusers' dtype and are no further from the float32 run than its own."""
    whole = trajectory(peer(name)(), torch.float32, setting={"num_inference_steps": 8})[0]
    ours = trajectory(drop_in(name)(), dtype, setting={"num_inference_steps": 8})[0]
    theirs = trajectory(peer(name)(), dtype, setting={"num_inference_steps": 8})[0]
    assert ours.dtype == theirs.dtype == dtype
    assert relative(ours, whole) <= 1.2 * relative(theirs, whole) + 1e-3


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]
)
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float16), (torch.float16, torch.float32)])
def test_mixed_dtypes(name: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    results = []
    for cls in (drop_in, peer):
        scheduler = cls(name)()
        scheduler.set_timesteps(5)
        x = start(scheduler, torch.float32).to(dtypes[0])
        output = (0.3 * start(scheduler, torch.float32)).to(dtypes[1])
        scheduler.scale_model_input(x, scheduler.timesteps[0]) if "Match" not in name else None
        results.append(scheduler.step(output, scheduler.timesteps[0], x).prev_sample)
    assert results[0].dtype == results[1].dtype
    assert relative(*results) <= 2e-3


def test_output_is_a_named_tuple_whose_second_entry_waits() -> None:
    ours, theirs = drop_in("DDIMScheduler")(), peer("DDIMScheduler")()
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(5)
    x = start(ours, torch.float32)
    t = ours.timesteps[1]
    out, expected = ours.step(0.4 * x, t, x), theirs.step(0.4 * x, t, x)
    for entry in (out.pred_original_sample, out[1], out["pred_original_sample"], list(out)[1]):
        assert relative(entry, expected.pred_original_sample) <= 1e-6
    sample, data = ours.step(0.4 * x, t, x, return_dict=False)
    assert sample.equal(out.prev_sample) and data.equal(out[-1])
    assert isinstance(out, tuple) and len(out) == 2 and out.to_tuple()[0].equal(out[0])
    with pytest.raises(AttributeError, match="nothing"):
        _ = out.nothing


def test_gradients_flow_through_a_step() -> None:
    scheduler = drop_in("DPMSolverMultistepScheduler")()
    scheduler.set_timesteps(5)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    output = torch.randn(2, 3, 4, 4, requires_grad=True)
    out = x
    for t in scheduler.timesteps[:2]:
        out = scheduler.step(output, t, out).prev_sample
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(out.sum(), (x, output)))


def test_timesteps_in_any_form() -> None:
    scheduler = drop_in("DDIMScheduler")()
    scheduler.set_timesteps(10)
    x = start(scheduler, torch.float32)
    t = scheduler.timesteps[4]
    expected = scheduler.step(0.3 * x, t, x)[0]
    for form in (int(t), t.clone(), t[None], t.to(torch.int32)):
        assert scheduler.step(0.3 * x, form, x)[0].equal(expected)
    # Between the timesteps too, as DDIM steps from anywhere.
    theirs = peer("DDIMScheduler")()
    theirs.set_timesteps(10)
    results = [s.step(0.3 * x, 777, x).prev_sample for s in (scheduler, theirs)]
    assert relative(*results) <= 1e-6


def test_copies_and_pickles_go_on_where_they_are() -> None:
    scheduler = drop_in("DPMSolverMultistepScheduler")()
    scheduler.set_timesteps(6)
    x = start(scheduler, torch.float32)
    for t in scheduler.timesteps[:3]:
        x = scheduler.step(torch.tanh(x), t, x).prev_sample
    others = [copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))]
    t = scheduler.timesteps[3]
    expected = scheduler.step(torch.tanh(x), t, x).prev_sample
    for other in others:
        assert other.step(torch.tanh(x), t, x).prev_sample.equal(expected)


def test_stored_estimates_can_be_replaced() -> None:
    results = []
    for cls in (drop_in, peer):
        scheduler = cls("UniPCMultistepScheduler")()
        scheduler.set_timesteps(6)
        x = start(scheduler, torch.float32)
        for t in scheduler.timesteps[:3]:
            x = scheduler.step(torch.tanh(x), t, x).prev_sample
        # A pipeline that drops part of the sample on its way.
        for i, stored in enumerate(scheduler.model_outputs):
            scheduler.model_outputs[i] = stored[..., :2]
        scheduler.last_sample = scheduler.last_sample[..., :2]
        x = x[..., :2].contiguous()
        results.append(scheduler.step(torch.tanh(x), scheduler.timesteps[3], x).prev_sample)
    assert relative(*results) <= 1e-6
    fresh = drop_in("UniPCMultistepScheduler")()
    assert list(fresh.model_outputs) == [None, None]
    with pytest.raises(IndexError, match="not None"):
        fresh.model_outputs[0] = x


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("DDIMScheduler", {"beta_schedule": "none"}, "beta_schedule is 'none'"),
        ("UnCLIPScheduler", {"beta_schedule": "linear"}, "beta_schedule"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "use_exponential_sigmas": True}, "at most one"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "rk4"}, "algorithm_type is 'rk4'"),
        ("DPMSolverMultistepScheduler", {"solver_type": "rk4"}, "solver_type is 'rk4'"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "final_sigmas_type"),
        ("DPMSolverMultistepScheduler", {"use_beta_sigmas": True, "use_karras_sigmas": True}, "at most one"),
        ("UniPCMultistepScheduler", {"shift_terminal": 0.1}, "use_flow_sigmas"),
        ("UniPCMultistepScheduler", {"solver_p": "other"}, "solver_p"),
        ("UniPCMultistepScheduler", {"solver_order": 5}, "solver_order is 5"),
        ("EDMEulerScheduler", {"sigma_schedule": "cosine"}, "sigma_schedule"),
        ("FlowMatchEulerDiscreteScheduler", {"time_shift_type": "cubic"}, "time_shift_type"),
        ("MiniMaxH3Scheduler", {"shift": 0.0}, "shift is 0.0"),
        ("RFD4ProteinaScheduler", {"schedule_mode": "none"}, "missing a required"),
        ("SASolverScheduler", {"predictor_order": 9}, "predictor_order"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_configurations_that_are_refused(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, NotImplementedError, TypeError), match=message):
        make_plan(drop_in(name)(**config))


def make_plan(scheduler: Any) -> None:
    scheduler.set_timesteps(5)


@pytest.mark.parametrize(
    ("name", "config", "setting", "message"),
    [
        ("DDIMScheduler", {}, {"num_inference_steps": 2000}, "at most"),
        ("DDIMScheduler", {"timestep_spacing": "odd"}, {"num_inference_steps": 5}, "timestep_spacing is 'odd'"),
        ("DDIMScheduler", {"prediction_type": "odd"}, {"num_inference_steps": 5}, "prediction_type is 'odd'"),
        ("DDIMInverseScheduler", {"timestep_spacing": "linspace"}, {"num_inference_steps": 5}, "linspace"),
        ("DDPMScheduler", {}, {"num_inference_steps": 5, "timesteps": [3, 2]}, "either"),
        ("DDPMScheduler", {}, {"timesteps": [2, 3]}, "falling"),
        ("DDPMScheduler", {}, {"timesteps": [1000, 3]}, "less than 1000"),
        ("DDPMScheduler", {"variance_type": "fixed_large_log"}, {"num_inference_steps": 5}, "variance_type"),
        ("EulerDiscreteScheduler", {}, {}, "exactly one"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, {"timesteps": [5, 3]}, "use_karras_sigmas"),
        ("EulerDiscreteScheduler", {"final_sigmas_type": "odd"}, {"num_inference_steps": 5}, "final_sigmas_type"),
        ("EulerDiscreteScheduler", {"interpolation_type": "odd"}, {"num_inference_steps": 5}, "interpolation_type"),
        ("EulerAncestralDiscreteScheduler", {"prediction_type": "sample"}, {"num_inference_steps": 5}, "sample"),
        ("DPMSolverMultistepScheduler", {}, {}, "either"),
        ("DPMSolverMultistepScheduler", {}, {"num_inference_steps": 5, "mu": 1.0}, "use_dynamic_shifting"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver", "solver_order": 3,
         "final_sigmas_type": "sigma_min"}, {"num_inference_steps": 20}, "solver_order is 3"),
        ("DPMSolverMultistepInverseScheduler", {"algorithm_type": "sde-dpmsolver++"},
         {"num_inference_steps": 5}, "up to"),
        ("UniPCMultistepScheduler", {"use_dynamic_shifting": True, "use_flow_sigmas": True},
         {"num_inference_steps": 5}, "mu is None"),
        ("UniPCMultistepScheduler", {}, {"sigmas": [1.0, 0.5]}, "use_flow_sigmas"),
        ("FlowMatchEulerDiscreteScheduler", {}, {"num_inference_steps": 5, "sigmas": [1.0]}, "one number"),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, {"num_inference_steps": 5}, "mu is None"),
        ("LCMScheduler", {}, {"num_inference_steps": 60}, "at most 50"),
        ("SCMScheduler", {}, {"num_inference_steps": 5}, "intermediate_timesteps"),
        ("ConsistencyDecoderScheduler", {}, {"num_inference_steps": 3}, "expected 2"),
        ("MiniMaxH3Scheduler", {}, {"sigmas": [0.5, 0.7]}, "falling"),
        ("LTXEulerAncestralRFScheduler", {}, {}, "num_inference_steps"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_grids_that_are_refused(
    name: str, config: dict[str, Any], setting: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, NotImplementedError), match=message):
        make(name, **config).set_timesteps(**setting)


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler"]
)  # fmt: skip
def test_step_needs_timesteps(name: str) -> None:
    x = torch.randn(1, 3, 4, 4)
    with pytest.raises(ValueError, match="set_timesteps"):
        make(name).step(x, 10, x)


@pytest.mark.parametrize(
    "name", ["EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"]
)  # fmt: skip
def test_step_refuses_integers_where_diffusers_does(name: str) -> None:
    scheduler = make(name)
    scheduler.set_timesteps(5)
    x = torch.randn(1, 3, 4, 4)
    for wrong in (3, torch.tensor(3)):
        with pytest.raises(ValueError, match="integer"):
            scheduler.step(x, wrong, x)


def test_step_warns_of_an_unscaled_input() -> None:
    scheduler = make("EulerDiscreteScheduler")
    scheduler.set_timesteps(5)
    x = torch.randn(1, 3, 4, 4)
    with pytest.warns(UserWarning, match="scale_model_input"):
        scheduler.step(x, scheduler.timesteps[0], x)


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for the device: values of tensors that are read."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name",
    [*SIGMAS, *LAMBDAS, "IPNDMScheduler", "LCMScheduler", "TCDScheduler", "SCMScheduler",
     "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler",
     "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler", "HeliosScheduler"],
)  # fmt: skip
def test_no_step_reads_a_value(name: str) -> None:
    scheduler = make(name)
    setting = {
        "HeliosScheduler": {"stage_index": 1},
        "SCMScheduler": {"intermediate_timesteps": None},
    }
    scheduler.set_timesteps(6, **setting.get(name, {}))
    # Otherwise the first step looks its timestep up, as in diffusers.
    if name != "DPMSolverMultistepInverseScheduler":
        scheduler.set_begin_index(0)
    x, timesteps = (
        start(scheduler, torch.float32),
        list(scheduler.timesteps)[: 6 * scheduler.order - 1],
    )
    with torch.no_grad(), Reads() as reads:
        for i, t in enumerate(timesteps):
            if i == 1:
                reads.count = 0 if name == "DPMSolverMultistepInverseScheduler" else reads.count
            scheduler.scale_model_input(x, t)
            x = scheduler.step(torch.tanh(x), t, x, return_dict=False)[0]
    assert reads.count == 0


class Elsewhere(torch.Tensor):
    """A timestep on a device: reading its value makes the host wait."""

    is_cpu = False

    def __int__(self) -> int:
        raise AssertionError("the value was read")


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "CogVideoXDDIMScheduler"]
)
def test_timesteps_on_a_device_are_recognised_by_their_address(name: str) -> None:
    results = []
    for elsewhere in (False, True):
        scheduler = make(name)
        scheduler.set_timesteps(10)
        x, generator = start(scheduler, torch.float32), torch.Generator().manual_seed(0)
        options = {"generator": generator} if name == "DDPMScheduler" else {}
        for t in scheduler.timesteps:
            if elsewhere:
                t = t.as_subclass(Elsewhere)
            with torch.no_grad():
                x = scheduler.step(torch.tanh(x), t, x, **options)[0]
        results.append(x)
    assert results[0].equal(results[1])
    with pytest.raises(AssertionError, match="was read"):
        scheduler.step(x, scheduler.timesteps[0].clone().as_subclass(Elsewhere), x)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"]
)
def test_no_step_waits_for_the_device(name: str) -> None:
    scheduler = make(name)
    scheduler.set_timesteps(10, device="cuda")
    scheduler.set_begin_index(0) if hasattr(scheduler, "set_begin_index") else None
    x = torch.randn(2, 3, 8, 8, device="cuda")
    reference = make(name)
    reference.set_timesteps(10)
    expected = x.cpu()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(torch.tanh(x), t, x, return_dict=False)[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for t in reference.timesteps:
        expected = reference.step(torch.tanh(expected), t, expected).prev_sample
    assert relative(x.cpu(), expected) <= 1e-5
