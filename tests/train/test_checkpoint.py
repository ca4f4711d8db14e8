"""A process killed at any line of the checkpoint code leaves a loadable checkpoint."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from suffuse.train import checkpoint
from suffuse.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint


def store(folder, step, **options):
    tensors = {"value": torch.full((3,), float(step))}
    export = lambda path: (path / "extra").write_text("more")  # noqa: E731
    return save_checkpoint(folder, step, tensors, {"n": step}, keep=2, export=export, **options)


def steps_in(folder):
    """The steps of all complete checkpoints; every one of them must load and be right."""
    steps = []
    for path in checkpoints(folder):
        tensors, state = load_checkpoint(path)
        assert tensors["value"].tolist() == [state["step"]] * 3
        assert state["n"] == state["step"]
        assert (path / "extra").read_text() == "more"
        steps.append(state["step"])
    return steps


def run_killed(action, line):
    """Run `action` in a child that kills itself as it reaches its `line`-th line of checkpoint.py
    and of the deletion of folders; True if it got that far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status)
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename not in (checkpoint.__file__, shutil.__file__):
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        action()
    finally:
        os._exit(0)


def test_killed_at_every_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # for time: a kill loses no page
    start = tmp_path / "start"
    store(start, 1)
    store(start, 2)
    outcomes = set()
    for line in range(1, 10_000):
        folder = tmp_path / str(line)
        shutil.copytree(start, folder)
        if not run_killed(lambda folder=folder: store(folder, 3), line):
            break
        left = steps_in(folder)
        outcomes.add(tuple(left))
        assert left in ([1, 2], [1, 2, 3], [2, 3])
        store(folder, 4)  # the next process goes on, and clears up
        assert steps_in(folder) == [left[-1], 4]
        assert sorted(path.name for path in folder.iterdir()) == [
            path.name for path in checkpoints(folder)
        ]
    assert line > 40
    assert outcomes == {(1, 2), (1, 2, 3), (2, 3)}


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events = []
    paths = {}
    real_open, real_rename = os.open, Path.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(paths[descriptor]))

    def recording_open(path, *arguments, **options):
        descriptor = real_open(path, *arguments, **options)
        paths[descriptor] = Path(path).name
        return descriptor

    def recording_rename(path, target):
        events.append(f"rename to {target.name}")
        return real_rename(path, target)

    monkeypatch.setattr(os, "open", recording_open)
    monkeypatch.setattr(Path, "rename", recording_rename)
    store(tmp_path, 1)
    files = {"state.json", "state.safetensors", "extra"}
    assert set(events[:3]) == files
    assert events[3:] == [".unfinished-step-00000001", "rename to step-00000001", tmp_path.name]


def test_keeps_the_latest(tmp_path):
    for step in (1, 5, 30, 200):
        store(tmp_path, step)
    assert steps_in(tmp_path) == [30, 200]


def test_never_writes_over_a_complete_checkpoint(tmp_path):
    store(tmp_path, 1)
    with pytest.raises(FileExistsError, match="step-00000001 is there already"):
        store(tmp_path, 1)


def test_no_checkpoints_in_a_folder_that_is_not_there(tmp_path):
    assert checkpoints(tmp_path / "nothing") == []


@pytest.mark.parametrize("name", ["state.json", "state.safetensors", "extra"])
def test_missing_file_makes_it_incomplete(tmp_path, name):
    path = store(tmp_path, 1)
    (path / name).unlink()
    assert checkpoints(tmp_path) == []


def test_stored_tensors_are_copies(tmp_path):
    shared = torch.arange(6.0)
    tensors = {"a": shared, "b": shared, "c": shared.view(2, 3).t()}
    path = save_checkpoint(tmp_path, 1, tensors, {}, keep=1)
    loaded = load_checkpoint(path)[0]
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
