"""enable, disable and status on real pipelines."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import diffusers
import pytest
import torch
from scheduler_peer import relative

from suffuse import compat
from suffuse.compat import diffusers as drop_ins


@pytest.fixture(autouse=True)
def everything_off() -> Any:
    yield
    compat.disable()


def unet() -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 8), down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def pipeline(scheduler: Any = None) -> Any:
    made = diffusers.DDIMPipeline(unet(), scheduler or diffusers.DDIMScheduler())
    made.set_progress_bar_config(disable=True)
    return made


def picture(made: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    result = made(generator=generator, num_inference_steps=6, eta=0.5, output_type="np")
    return torch.from_numpy(result.images)


def test_a_pipeline_gives_the_same_picture_and_comes_back() -> None:
    made = pipeline()
    original, before = made.scheduler, picture(made)
    handle = compat.enable("diffusers", made)
    assert type(made.scheduler) is drop_ins.DDIMScheduler
    assert relative(picture(made), before) <= 1e-5
    assert handle.active and compat.status()["diffusers"]["enabled"]
    assert "DDIMScheduler" in compat.status()["diffusers"]["changes"][0]
    handle.disable()
    handle.disable()
    assert made.scheduler is original and not handle.active
    status = compat.status()["diffusers"]
    assert status == {"installed": diffusers.__version__, "enabled": False, "changes": []}


def test_as_a_context_and_by_name() -> None:
    made = pipeline()
    original = made.scheduler
    with pytest.raises(KeyError), compat.enable("diffusers", made):
        assert made.scheduler is not original
        raise KeyError
    assert made.scheduler is original
    compat.enable("diffusers", made)
    compat.disable("diffusers")
    assert made.scheduler is original


def test_nested_calls_are_undone_in_turn() -> None:
    first, second = pipeline(), pipeline()
    originals = first.scheduler, second.scheduler
    compat.enable("diffusers", first)
    compat.enable("diffusers", second)
    compat.disable()
    assert (first.scheduler, second.scheduler) == originals


def test_every_new_pipeline() -> None:
    original = diffusers.DiffusionPipeline.register_modules
    with compat.enable("diffusers"):
        assert type(pipeline().scheduler) is drop_ins.DDIMScheduler
        with pytest.raises(RuntimeError, match="already patched"):
            compat.enable("diffusers")
    assert diffusers.DiffusionPipeline.register_modules is original
    assert type(pipeline().scheduler) is diffusers.DDIMScheduler


def test_a_later_choice_of_the_user_stays() -> None:
    made = pipeline()
    with compat.enable("diffusers", made):
        mine = made.scheduler = diffusers.DDPMScheduler()
    assert made.scheduler is mine


def test_saved_pipelines_name_diffusers_class(tmp_path: Any) -> None:
    made = pipeline(diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2"))
    compat.enable("diffusers", made)
    made.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    compat.disable()
    loaded = diffusers.DDIMPipeline.from_pretrained(tmp_path)
    assert type(loaded.scheduler) is diffusers.DDIMScheduler
    assert loaded.scheduler.config.beta_schedule == "squaredcos_cap_v2"


class Own(diffusers.DDPMScheduler):
    """A scheduler of the user's."""


def test_what_is_refused() -> None:
    good, own = pipeline(), diffusers.DDPMPipeline(unet(), Own())
    with pytest.raises(TypeError, match="Own"):
        compat.enable("diffusers", good, own)
    # All or nothing.
    assert type(good.scheduler) is diffusers.DDIMScheduler
    with compat.enable("diffusers"):
        assert type(diffusers.DDPMPipeline(unet(), Own()).scheduler) is Own
    with pytest.raises(TypeError, match="expected a pipeline"):
        compat.enable("diffusers", object())
    for function in (compat.enable, compat.disable):
        with pytest.raises(ValueError, match="'numpy'"):
            function("numpy")


def test_the_shift_that_was_set_is_kept() -> None:
    class Holder:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)

    holder = Holder()
    holder.scheduler.set_shift(5.0)
    with compat.enable("diffusers", holder):
        assert type(holder.scheduler) is drop_ins.FlowMatchEulerDiscreteScheduler
        assert holder.scheduler.shift == 5.0 and holder.scheduler.config.shift == 2.0


def test_all_drop_ins_work_without_diffusers(tmp_path: Any) -> None:
    code = """
        import sys
        sys.modules["diffusers"] = None
        import torch
        import suffuse.compat
        from suffuse.compat import diffusers as drop_ins

        required = dict(schedule_mode="log", noise_mode="tan", tsr_k=2.0, tsr_sigma=0.8)
        for name in drop_ins.SCHEDULERS:
            kind = getattr(drop_ins, name)
            assert not any("diffusers." in base.__module__ and "suffuse" not in base.__module__
                           for base in kind.__mro__)
            made = kind(**required) if name == "RFD4ProteinaScheduler" else kind()
            made.save_pretrained(sys.argv[1])
            again = kind.from_pretrained(sys.argv[1])
            assert dict(again.config) == {**made.config, "_use_default_values": [],
                "_class_name": name, "_diffusers_version": again.config["_diffusers_version"]}
        scheduler = drop_ins.DPMSolverMultistepScheduler()
        scheduler.set_timesteps(5)
        x = torch.randn(1, 3, 8, 8)
        for t in scheduler.timesteps:
            x = scheduler.step(torch.tanh(x), t, x).prev_sample
        assert x.isfinite().all() and scheduler.beta_start == 0.0001
        try:
            suffuse.compat.enable("diffusers", None)
        except ImportError as error:
            assert "not installed" in str(error)
        else:
            raise AssertionError
        try:
            drop_ins.DDIMScheduler.from_pretrained("some/model")
        except FileNotFoundError:
            print("done")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True
    )
    assert result.stdout.strip() == "done", result.stderr
