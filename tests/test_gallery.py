"""The gallery: evaluation counts, what it writes, and that it covers the solvers."""

import json

import pytest
from PIL import Image

from suffuse import cli
from suffuse.demo import gallery
from suffuse.diffusion import SOLVERS


@pytest.mark.parametrize("evaluations", gallery.EVALUATIONS)
def test_no_sampler_calls_the_model_more_often_than_said(evaluations):
    for name, solver in gallery.SAMPLERS:
        calls = gallery.plan_with(solver, evaluations).calls
        assert evaluations - 2 <= calls <= evaluations, name


def test_every_solver_is_shown():
    shown = {solver.name for _, solver in gallery.SAMPLERS}
    # These need hundreds of calls, or a known part of the picture.
    assert set(SOLVERS) - shown == {"langevin", "repaint"}


def test_picture_and_distances_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "SAMPLERS", gallery.SAMPLERS[:2])
    lines = []
    options = gallery.GalleryOptions(tmp_path / "out", steps=3, per_class=3)
    report = gallery.run_gallery(options, lines.append)
    assert report == json.loads((tmp_path / "out" / "gallery.json").read_text()) | {
        "evaluations": gallery.EVALUATIONS
    }
    for entry in report["samplers"]:
        assert entry["calls"] == [5, 10, 20]
        assert all(distance > 0 for distance in entry["distance"])
    with Image.open(tmp_path / "out" / "gallery.png") as picture:
        assert picture.width > 600
    assert lines[-1].startswith("wrote")


def test_the_command_reads_its_options(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(gallery, "run_gallery", seen.append)
    options = ["--output", str(tmp_path), "--steps", "7", "--per-class", "2", "--seed", "5"]
    assert cli.main(["gallery", *options]) == 0
    assert seen == [gallery.GalleryOptions(tmp_path, None, 7, 2, 5)]
