"""The command line: every command, its exit codes, and one line instead of a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from suffuse.cli import main
from suffuse.recipe import load_model
from suffuse.train.checkpoint import checkpoints

CONFIG = {
    "data": "digits",
    "output": "run",
    "batch_size": 16,
    "model": {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 1,
        "patch_size": 4,
        "shared_embedding": True,
    },
    "train": {"steps": 4, "log_every": 1},
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_config(name="config.json", **changes):
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    with open(name, "w") as file:
        json.dump(config, file)
    return name


@pytest.fixture
def trained(own_folder):
    assert main(["train", write_config()]) == 0
    return "run"


def expect_mistake(capsys, arguments, message):
    """Exit code 2 and one line on stderr that says what is wrong."""
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "it/s]" not in line and "step" not in line[:4]]
    assert len(lines) == 1
    assert lines[0].startswith("suffuse: error: ")
    assert message in lines[0]


def expect_usage_error(capsys, arguments, message):
    """argparse's own way: exit code 2, usage and one line."""
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: suffuse")
    assert message in error.splitlines()[-1]


@pytest.mark.parametrize("command", [[], ["info"], ["demo"], ["train"], ["sample"]])
def test_help(capsys, command):
    with pytest.raises(SystemExit) as exit:
        main([*command, "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {' '.join(['suffuse', *command])} ")
    assert len(text.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["paint"], "invalid choice: 'paint'"),
        (["train"], "the following arguments are required: CONFIG"),
        (["info", "extra"], "unrecognized arguments: extra"),
        (["demo", "--steps", "0"], "'0' is not a whole number of at least 1"),
        (["demo", "--steps", "many"], "'many' is not a whole number of at least 1"),
        (["demo", "--seconds", "-3"], "'-3' is not a number above 0"),
        (["demo", "--seconds", "5", "--steps", "5"], "not allowed with argument"),
        (["demo", "--seed", "-1"], "'-1' is not a whole number from 0"),
        (["sample", "x", "--classes", "a"], "'a' is not a list such as 0,3,7 or 2-5"),
        (["sample", "x", "--classes", "5-2"], "'5-2' names no class"),
        (["sample", "x", "--guidance", "nan"], "'nan' is not a number"),
        (["sample", "x", "--count", "1.5"], "'1.5' is not a whole number of at least 1"),
    ],
)
def test_usage_errors(capsys, arguments, message):
    expect_usage_error(capsys, arguments, message)


def test_info(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"torch: {torch.__version__}" in text
    assert "  attention:\n    cpu: " in text


def test_info_as_json(capsys):
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torch"] == torch.__version__


def test_train_then_sample(capsys, trained):
    output = capsys.readouterr().out
    assert "trained 4 steps; the latest checkpoint is run/step-00000004" in output
    assert main(["sample", "run", "--classes", "1,3-5", "--count", "3", "--steps", "2"]) == 0
    assert "wrote samples.png" in capsys.readouterr().out
    with Image.open("samples.png") as image:
        assert image.format == "PNG"
        width, height = image.size
    assert main(["sample", "run/step-00000004", "--count", "4", "--steps", "2"]) == 0
    with Image.open("samples.png") as image:
        assert image.size[0] > width
        assert image.size[1] > height


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ddim"])
def test_sampling_depends_on_the_seed_alone(trained, solver):
    eta = ["--eta", "0.5"] if solver == "ddim" else []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        arguments = ["sample", "run", "--solver", solver, *eta, "--steps", "3", "--count", "1"]
        assert main([*arguments, "--seed", seed, "--output", f"new/{name}.png"]) == 0
    pixels = {
        name: Image.open(f"new/{name}.png").crop((0, 110, 500, 170)).tobytes() for name in "abc"
    }
    assert pixels["a"] == pixels["b"] != pixels["c"]


def test_train_resumes(capsys, trained):
    expect_mistake(capsys, ["train", "config.json"], "run has checkpoints: use --resume")
    write_config(output="whole", train={"steps": 6, "checkpoint_every": 3})
    assert main(["train", "config.json"]) == 0
    latest = checkpoints_of("whole")[-1]
    expected = load_file(latest / "state.safetensors")
    for file in latest.iterdir():
        file.unlink()
    latest.rmdir()
    assert main(["train", "config.json", "--resume"]) == 0
    assert "resuming after step 3" in capsys.readouterr().out
    actual = load_file(latest / "state.safetensors")
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    expect_mistake(
        capsys,
        ["train", write_config(output="whole", train={"steps": 7}), "--resume"],
        "steps is 7, expected 6 as in whole/step-00000006",
    )


def checkpoints_of(folder):
    from pathlib import Path

    return checkpoints(Path(folder))


def test_train_on_a_file(capsys):
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    save_file({"images": images, "labels": torch.arange(40) % 4}, "data.safetensors")
    assert main(["train", write_config(data="data.safetensors")]) == 0
    assert load_model("run").config.num_embeds_ada_norm == 4
    assert main(["sample", "run", "--steps", "2"]) == 0
    expect_mistake(
        capsys, ["sample", "run", "--classes", "4"], "--classes has 4, expected classes 0 to 3"
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML needs Python 3.11")
def test_train_with_toml():
    with open("config.toml", "w") as file:
        file.write('data = "digits"\noutput = "run"\n[train]\nsteps = 1\n[model]\n')
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in CONFIG["model"].items())
    assert main(["train", "config.toml"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"color": 1}, "Recipe: unknown key 'color', expected one of data, output"),
        ({"output": None}, "Recipe: missing output"),
        ({"data": 3}, "Recipe: data is 3, expected str"),
        ({"data": "faces.safetensors"}, "faces.safetensors: no such file"),
        ({"model": {"layers": 1}}, "DiTConfig: unknown key 'layers'"),
        ({"model": 1}, "Recipe: model is 1, expected a table"),
        ({"train": [1]}, "TrainConfig: got [1], expected a table"),
        (
            {"model": {**CONFIG["model"], "in_channels": 2}},
            "model in_channels is 2, but data has 1",
        ),
        ({"model": {**CONFIG["model"], "patch_size": 3}}, "expected a multiple of patch_size 3"),
        ({"model": {**CONFIG["model"], "activation_fn": "relu"}}, "activation_fn is 'relu'"),
        ({"train": {"steps": -1}}, "TrainConfig: steps is -1, expected at least 1"),
        ({"train": {"stesp": 1}}, "TrainConfig: unknown key 'stesp'"),
        ({"train": {"steps": 1, "accumulate": 3}}, "batch of 16, expected a multiple"),
        ({"batch_size": 5000}, "batch_size is 5000, expected 1 to 1437"),
        ({"class_dropout": 1.0}, "Recipe: class_dropout is 1.0"),
        ({"seed": -1}, "Recipe: seed is -1"),
    ],
)
def test_bad_config(capsys, changes, message):
    expect_mistake(capsys, ["train", write_config(**changes)], message)


def test_bad_config_file(capsys):
    expect_mistake(capsys, ["train", "missing.json"], "missing.json: no such file")
    with open("bad.json", "w") as file:
        file.write('{"data": ')
    expect_mistake(capsys, ["train", "bad.json"], "bad.json is not valid JSON")
    expect_mistake(capsys, ["train", "bad.txt"], "ends in .json or .toml")


def test_output_that_cannot_be_written(capsys):
    with open("taken", "w") as file:
        file.write("a file")
    expect_mistake(capsys, ["train", write_config(output="taken/run")], "taken")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["."], "has no sampling.json: it was not written by"),
        (["run", "--solver", "magic"], "--solver is 'magic', expected one of euler"),
        (["run", "--eta", "0.5"], "--eta is for ddim alone, not for heun"),
        (["run", "--solver", "ddim", "--eta", "2"], "eta is 2.0"),
        (["run", "--classes", "9-11"], "--classes has 11, expected classes 0 to 9"),
    ],
)
def test_bad_sampling(capsys, trained, arguments, message):
    expect_mistake(capsys, ["sample", *arguments], message)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "config.json is not valid JSON"),
        ("sampling.json", b"{}", "sampling.json is damaged"),
        ("sampling.json", b'{"process": "vp", "prediction": "eps"}', "are ('vp', 'eps'), expected"),
        ("diffusion_pytorch_model.safetensors", b"text", "damaged or no safetensors file"),
        ("diffusion_pytorch_model.safetensors", None, "has no diffusion_pytorch_model.safetensors"),
    ],
)
def test_damaged_model(capsys, trained, file, content, message):
    model = checkpoints_of("run")[-1].rename("model")
    (model / file).unlink()
    if content is not None:
        (model / file).write_bytes(content)
    expect_mistake(capsys, ["sample", "model"], message)


def test_weights_of_another_model(capsys, trained):
    model = checkpoints_of("run")[-1].rename("model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_layers": 2}))
    expect_mistake(capsys, ["sample", "model"], "weights do not fit the config: Error")


def test_debug_shows_the_traceback():
    with pytest.raises(FileNotFoundError, match="no such file"):
        main(["--debug", "train", "missing.json"])


def test_reader_that_goes_away():
    process = subprocess.Popen(
        [sys.executable, "-m", "suffuse", "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("module", ["sklearn.datasets", "PIL"])
def test_demo_names_the_extra_it_needs(capsys, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    expect_mistake(capsys, ["demo"], "pip install 'suffuse[demo]'")


def test_ctrl_c_leaves_checkpoints_and_exit_code_130(own_folder):
    write_config(train={"steps": 1_000_000, "checkpoint_every": 1})
    process = subprocess.Popen(
        [sys.executable, "-m", "suffuse", "train", "config.json"],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    deadline = time.monotonic() + 60
    while not checkpoints_of("run"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert error.splitlines()[-1] == "suffuse: stopped"
    assert "Traceback" not in error
    assert load_model("run").config.num_layers == 1
