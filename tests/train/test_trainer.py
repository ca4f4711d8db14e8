"""The trainer: exact resume, accumulation, averages, schedule, precision, refusals."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from suffuse.data import Batches
from suffuse.train import TrainConfig, Trainer
from suffuse.train.checkpoint import TENSORS_FILE, checkpoints, load_checkpoint
from suffuse.train.config import read_table
from suffuse.train.schedule import cosine_factor


def noisy_loss(model, batch, generator):
    """Draws from the loss generator; the model's dropout draws from torch's own."""
    x, y = batch
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return (model(x + 0.1 * noise) - y).square().mean()


def plain_loss(model, batch, generator):
    x, y = batch
    return (model(x) - y).square().mean()


def make_trainer(
    folder=None, *, loss=noisy_loss, dtype=torch.float32, dropout=0.2, seed=0, rows=50, **config
):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(dropout), nn.Linear(16, 2)).to(dtype)
    x = torch.randn(rows, 6, dtype=dtype)
    data = (x, x[:, :2] * x[:, 2:3])
    batches = Batches(data, batch_size=12, seed=seed)
    settings = {"steps": 20, "log_every": 1, "learning_rate": 1e-2, "ema_decay": 0.9, **config}
    return Trainer(model, loss, batches, TrainConfig(**settings), folder=folder)


def everything(trainer):
    """All tensors that training leaves behind, by name."""
    moments = trainer.optimizer.state_dict()["state"]
    return {
        **trainer.averaged.state_dict(),
        **{f"raw {name}": value for name, value in trainer.model.state_dict().items()},
        **{f"{i} {name}": v for i, values in moments.items() for name, v in values.items()},
        "generator": trainer.generator.get_state(),
        "cpu": torch.get_rng_state(),
    }


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def log_lines(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


VARIANTS = [{}, {"precision": "bf16"}, {"accumulate": 3, "weight_decay": 0.1, "warmup_steps": 10}]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_resume_is_exact(tmp_path, config):
    whole = make_trainer(tmp_path / "whole", **config)
    whole.fit()
    expected, lines = everything(whole), log_lines(tmp_path / "whole")
    assert [line["step"] for line in lines] == list(range(1, 21))

    make_trainer(tmp_path / "parts", **config).fit(until=7)
    torch.manual_seed(99)  # what another process would have drawn by now
    resumed = make_trainer(tmp_path / "parts", **config)
    torch.rand(5)
    assert resumed.resume()
    assert resumed.step == 7
    resumed.fit()
    assert_same_bits(everything(resumed), expected)
    assert log_lines(tmp_path / "parts") == lines


def test_resume_drops_log_lines_after_the_checkpoint(tmp_path):
    first = make_trainer(tmp_path, checkpoint_every=4)
    first.fit(until=10)  # checkpoints at 4, 8 and, as it ends there, 10
    complete = log_lines(tmp_path)
    (checkpoints(tmp_path)[-1] / TENSORS_FILE).unlink()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')
    resumed = make_trainer(tmp_path, checkpoint_every=4)
    assert resumed.resume()
    assert resumed.step == 8
    resumed.fit(until=10)
    assert log_lines(tmp_path) == complete
    assert [path.name for path in checkpoints(tmp_path)] == [f"step-{n:08d}" for n in (4, 8, 10)]


def test_resume_without_a_checkpoint(tmp_path):
    assert not make_trainer(tmp_path).resume()
    assert not make_trainer(None).resume()


def test_killed_training_resumes_exactly(tmp_path):
    """A process that stores every step is killed with SIGKILL, mostly while it writes."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "import torch; torch.set_num_threads(1); torch.use_deterministic_algorithms(True)\n"
        "from test_trainer import make_trainer\n"
        "make_trainer(Path(sys.argv[1]), steps=2000, checkpoint_every=1).fit()"
    )
    here = str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "killed"), here])
    deadline = time.monotonic() + 60
    while len(checkpoints(tmp_path / "killed")) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()

    resumed = make_trainer(tmp_path / "killed", steps=2000, checkpoint_every=1)
    assert resumed.resume()
    assert 3 <= resumed.step < 2000
    until = resumed.step + 3
    resumed.fit(until=until)
    actual = everything(resumed)
    whole = make_trainer(tmp_path / "whole", steps=2000)
    whole.fit(until=until)
    assert_same_bits(actual, everything(whole))
    assert log_lines(tmp_path / "killed") == log_lines(tmp_path / "whole")


def test_accumulation_equals_one_big_batch():
    results = []
    for accumulate in (1, 4):
        trainer = make_trainer(
            loss=plain_loss, dtype=torch.float64, dropout=0.0, accumulate=accumulate
        )
        losses = [float(trainer.train_step().loss) for _ in range(5)]
        results.append((losses, everything(trainer)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for name, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][name], rtol=1e-10, atol=1e-12)


def test_accumulation_must_divide_the_batch():
    with pytest.raises(ValueError, match="batch of 12, expected a multiple of accumulate 5"):
        make_trainer(accumulate=5).train_step()


def test_average_of_the_weights():
    trainer = make_trainer()
    trainer.train_step()
    expected = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for _ in range(6):
        trainer.train_step()
        for name, parameter in trainer.model.named_parameters():
            expected[name].mul_(0.9).add_(parameter.detach(), alpha=0.1)
    for name, parameter in trainer.averaged.module.named_parameters():
        torch.testing.assert_close(parameter, expected[name])
        assert not torch.equal(parameter, dict(trainer.model.named_parameters())[name])
    assert not trainer.averaged.module.training


def test_schedule_shape():
    config = TrainConfig(steps=110, warmup_steps=10, final_fraction=0.2)
    factors = [cosine_factor(step, config) for step in range(111)]
    assert factors[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert factors[10] == 1.0
    assert factors[60] == pytest.approx(0.6)
    assert factors[110] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))


def test_optimizer_follows_the_schedule():
    trainer = make_trainer(warmup_steps=3, learning_rate=0.5)
    for step in range(20):
        expected = 0.5 * cosine_factor(step, trainer.config)
        assert [group["lr"] for group in trainer.optimizer.param_groups] == [expected] * 2
        trainer.train_step()


@pytest.mark.parametrize("limit", [0.01, 0.0])
def test_clipping(limit):
    seen = []
    trainer = make_trainer(clip_norm=limit)
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in trainer.parameters]).norm())
    )
    norm = float(trainer.train_step().gradient_norm)
    assert norm > 0.1
    assert float(seen[0]) == pytest.approx(limit or norm, rel=1e-3)


def test_weight_decay_leaves_vectors_alone():
    trainer = make_trainer(weight_decay=0.3)
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.ndim == 2 else 0.0)


def test_bf16_computes_in_bf16_and_keeps_fp32_weights():
    seen = []

    def loss(model, batch, generator):
        out = model(batch[0])
        seen.append(out.dtype)
        return (out.float() - batch[1]).square().mean()

    results = {}
    for precision in ("fp32", "bf16"):
        trainer = make_trainer(loss=loss, dropout=0.0, precision=precision)
        results[precision] = float(trainer.train_step().loss)
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert seen == [torch.float32, torch.bfloat16]
    assert results["bf16"] != results["fp32"]
    assert results["bf16"] == pytest.approx(results["fp32"], rel=2e-2)


def test_training_stops_at_a_loss_that_is_not_finite(tmp_path):
    def loss(model, batch, generator):
        return plain_loss(model, batch, generator) * (math.nan if trainer.step == 5 else 1.0)

    trainer = make_trainer(tmp_path, loss=loss, checkpoint_every=3)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 6"):
        trainer.fit()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]


def test_damaged_checkpoint_is_passed_over(tmp_path):
    make_trainer(tmp_path, checkpoint_every=5).fit()
    latest = checkpoints(tmp_path)[-1]
    data = (latest / TENSORS_FILE).read_bytes()
    (latest / TENSORS_FILE).write_bytes(data[:-1])
    with pytest.raises(ValueError, match="no complete checkpoint"):
        load_checkpoint(latest)
    trainer = make_trainer(tmp_path, checkpoint_every=5)
    assert trainer.resume()
    assert trainer.step == 15
    trainer.fit()  # writes over the damaged one
    assert load_checkpoint(latest)[1]["step"] == 20


def test_export_sees_the_averaged_model(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.export = lambda model, folder: (folder / "note").write_text(str(model is averaged))
    averaged = trainer.averaged.module
    trainer.fit(until=2)
    assert (checkpoints(tmp_path)[0] / "note").read_text() == "True"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "learning_rate is 0.5, expected 0.01 as in"),
        ({"steps": 21}, "steps is 21, expected 20 as in"),
        ({"rows": 40}, "rows is 40, expected 50 as stored"),
        ({"seed": 1}, "seed is 1, expected 0 as stored"),
        ({"dtype": torch.float64}, None),
    ],
)
def test_resume_refuses_another_training(tmp_path, change, message):
    make_trainer(tmp_path).fit(until=2)
    trainer = make_trainer(tmp_path, **change)
    if message is None:  # the dtype of the weights is the caller's choice
        assert trainer.resume()
        return
    with pytest.raises(ValueError, match=message):
        trainer.resume()


def test_resume_refuses_another_model(tmp_path):
    make_trainer(tmp_path).fit(until=2)
    trainer = make_trainer(tmp_path)
    trainer.model.add_module("more", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="is of another model"):
        trainer.resume()


def test_free_fields_may_change(tmp_path):
    make_trainer(tmp_path).fit(until=2)
    assert make_trainer(tmp_path, log_every=7, checkpoint_every=3, keep_checkpoints=9).resume()


def test_save_needs_a_folder():
    with pytest.raises(ValueError, match="folder is None"):
        make_trainer(None).save()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"steps": 1.5}, "steps is 1.5, expected int"),
        ({"learning_rate": 0}, "learning_rate is 0, expected more than 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": "1e-3"}, "learning_rate is '1e-3', expected float"),
        ({"warmup_steps": 10}, "warmup_steps is 10, expected less than steps 10"),
        ({"warmup_steps": -1}, "warmup_steps is -1, expected at least 0"),
        ({"final_fraction": 1.1}, "final_fraction is 1.1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"beta2": 1.0}, "beta2 is 1.0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"clip_norm": math.inf}, "clip_norm is inf"),
        ({"ema_decay": 1}, "ema_decay is 1"),
        ({"precision": "fp16"}, "precision is 'fp16', expected one of"),
        ({"seed": -1}, "seed is -1"),
        ({"log_every": 0}, "log_every is 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=f"TrainConfig: {re.escape(message)}"):
        TrainConfig(**{"steps": 10, **change})


def test_read_table(tmp_path):
    (tmp_path / "a.json").write_text('{"steps": 3, "model": {"x": 1}}')
    assert read_table(tmp_path / "a.json") == {"steps": 3, "model": {"x": 1}}
    (tmp_path / "a.toml").write_text("steps = 3\n[model]\nx = 1\n")
    if sys.version_info >= (3, 11):
        assert read_table(tmp_path / "a.toml") == read_table(tmp_path / "a.json")
    else:
        with pytest.raises(NotImplementedError, match="TOML files need Python 3"):
            read_table(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.json", "{", ValueError, "not valid JSON"),
        ("a.json", "[]", ValueError, "holds a JSON list"),
        ("a.yaml", "a: 1", ValueError, "ends in .json or .toml"),
        ("a.json", None, FileNotFoundError, "no such file"),
    ],
)
def test_read_table_refuses(tmp_path, name, text, error, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        read_table(tmp_path / name)
