"""The demo end to end in few steps, and its judge."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from suffuse import cli
from suffuse.data import Pictures, load_digits
from suffuse.demo import DemoOptions, run, run_demo
from suffuse.demo.judge import Judge, frechet_distance
from suffuse.demo.timing import interleaved_medians, torch_attention
from suffuse.diffusion import DDIM
from suffuse.ops import attention
from suffuse.picture import INK, PAPER, Row, draw_grid, enlarged
from suffuse.recipe import load_model

pytest.importorskip("sklearn")


def short_demo(folder, **changes):
    options = {"steps": 12, "per_class": 3, "timing_rounds": 1, **changes}
    lines = []
    report = run_demo(DemoOptions(output=folder, **options), say=lines.append)
    return report, "\n".join(lines)


def without_times(report):
    timed = ("train_seconds", "step_milliseconds")
    report = {key: value for key, value in report.items() if key not in timed}
    report["solvers"] = [{**row, "seconds": 0} for row in report["solvers"]]
    return report


def test_demo_end_to_end_is_the_same_for_the_same_seed(tmp_path):
    report, text = short_demo(tmp_path / "a")
    again, _ = short_demo(tmp_path / "b")
    other, _ = short_demo(tmp_path / "c", seed=1)
    assert without_times(report) == without_times(again)
    assert without_times(report)["solvers"] != without_times(other)["solvers"]
    models = [load_model(tmp_path / name / "model").state_dict() for name in "ab"]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])

    assert json.loads((tmp_path / "a" / "demo.json").read_text()) == report
    assert report["steps"] == 12
    assert 240_000 < report["parameters"] < 260_000
    assert len(report["solvers"]) == len(run.SOLVERS) + 1
    assert report["step_milliseconds"].keys() == {"suffuse", "torch"}
    assert not report["passed"]  # nobody learns to write in 12 steps
    assert "FAILED" in text
    assert all(name in text for name, _, _ in run.SOLVERS)
    with Image.open(tmp_path / "a" / "demo.png") as image:
        assert image.size[0] > 1000
        assert image.size[1] > 300


@pytest.mark.parametrize("function", [attention, torch_attention], ids=["suffuse", "torch"])
def test_first_losses(function):
    # Stored numbers: a change of model, loss, data, optimizer or draws shows here first.
    expected = [1.64232, 1.71259, 1.68949, 1.71689, 1.64456]
    expected += [1.62239, 1.6162, 1.59146, 1.55209, 1.52428]
    recipe = run.demo_recipe(100, seed=0)
    trainer = recipe.make_trainer(folder=None, data=load_digits()[0], attention=function)
    losses = [float(trainer.train_step().loss) for _ in range(10)]
    assert losses == pytest.approx(expected, abs=1e-4)


def test_time_budget_sets_the_number_of_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "time_steps", lambda *_: {"suffuse": 0.25, "torch": 0.5})
    report, text = short_demo(tmp_path, seconds=1.0)
    assert report["steps"] == 4
    assert "repeat exactly with --steps 4" in text


@pytest.mark.parametrize(("check", "code"), [([], 0), (["--check"], 1)])
def test_exit_code_of_failed_gates(tmp_path, monkeypatch, check, code):
    monkeypatch.setattr("suffuse.demo.run_demo", lambda options: {"passed": False})
    assert cli.main(["demo", "--output", str(tmp_path), *check]) == code


@pytest.mark.parametrize(
    ("accuracy", "distance", "guidance", "passed"),
    [(0.95, 1.5, 2.0, True), (0.949, 1.0, 2.0, False), (1.0, 1.51, 2.0, False), (0, 9, 1.0, True)],
)
def test_gates(accuracy, distance, guidance, passed):
    good = {"accuracy": 1.0, "distance": 0.1, "guidance": 2.0}
    row = {"accuracy": accuracy, "distance": distance, "guidance": guidance}
    assert run.gates_pass({"solvers": [good, row]}) is passed


def test_frechet_distance_of_normal_distributions():
    # For diagonal covariances it is sum (m - n)^2 + sum (s - t)^2 of means and deviations.
    generator = np.random.default_rng(0)
    z = generator.standard_normal((200_000, 3))
    s, t = np.array([1.0, 2.0, 0.5]), np.array([1.5, 0.5, 0.5])
    shift = np.array([0.3, -0.2, 1.0])
    expected = (shift**2).sum() + ((s - t) ** 2).sum()
    assert frechet_distance(z * s, z[::-1] * t + shift) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(z, z) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_correlations():
    # tr sqrt(A^1/2 B A^1/2) of 2 x 2 matrices is sqrt(tr(AB) + 2 sqrt(det(AB))).
    generator = np.random.default_rng(0)
    a = generator.standard_normal((500, 2)) @ np.array([[1.0, 0.8], [0.0, 0.5]])
    b = generator.standard_normal((400, 2)) @ np.array([[0.4, -0.9], [0.3, 1.0]])
    A, B = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.trace(A @ B) + 2 * np.sqrt(np.linalg.det(A @ B)))
    shift = a.mean(0) - b.mean(0)
    expected = shift @ shift + np.trace(A) + np.trace(B) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_judge_knows_digits_from_noise():
    train, test = load_digits()
    judge = Judge(train)
    assert judge.accuracy(test) >= 0.97
    assert judge.accuracy(Pictures(test.images, (test.labels + 1) % 10)) < 0.03
    assert 0.2 < judge.distance(test.images) < 0.5
    assert judge.distance(torch.rand_like(test.images) * 2 - 1) > 5
    ones = test.images[test.labels == 1].repeat(12, 1, 1, 1)
    assert judge.distance(ones) > 5
    features = judge.features(train.images)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(features.var(0, ddof=1), 1, atol=1e-5)


def test_judge_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    Judge(load_digits()[0], epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_torch_attention_is_the_same_function():
    q, k, v = torch.randn(3, 2, 16, 4, 16)
    torch.testing.assert_close(torch_attention(q, k, v), attention(q, k, v))


def test_interleaved_medians():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    medians = interleaved_medians(steps, rounds=2, warmup=1)
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert medians.keys() == {"a", "b"}
    assert all(0 <= value < 0.1 for value in medians.values())


def test_ink_on_paper():
    picture = torch.full((1, 8, 8), -1.0)
    picture[:, 2:6, 2:6] = 1.0
    image = enlarged(picture, 50)
    assert image.size == (50, 50)
    assert image.getpixel((0, 0)) == image.getpixel((8, 8)) == PAPER
    assert image.getpixel((25, 25)) == INK


def test_colours():
    picture = torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1).expand(3, 4, 4)
    assert enlarged(picture, 16).getpixel((8, 8)) == (255, 128, 0)


def test_grid_refuses_what_does_not_fit():
    images = torch.zeros(5, 1, 8, 8)
    with pytest.raises(ValueError, match="row 'a' has 5 images, expected 2 for each of 2 columns"):
        draw_grid([Row("a", "", images)], ["0", "1"], title="", subtitle="")
    with pytest.raises(ValueError, match="pictures have 4 channels, expected 1 or 3"):
        draw_grid([Row("a", "", torch.zeros(1, 4, 8, 8))], ["0"], title="", subtitle="")


def test_demo_uses_a_solver_with_noise():
    assert DDIM(eta=1.0) in [solver for _, solver, _ in run.SOLVERS]
