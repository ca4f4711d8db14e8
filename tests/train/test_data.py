"""Data: the digits, picture files, and the order of batches."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import save_file

from suffuse.data import Batches, load_digits
from suffuse.data.files import load_pictures


def test_digits():
    pytest.importorskip("sklearn")
    train, test = load_digits()
    assert train.images.shape == (1437, 1, 8, 8)
    assert test.images.shape == (360, 1, 8, 8)
    assert train.images.dtype == torch.float32
    assert train.images.min() == -1
    assert train.images.max() == 1
    assert set(train.labels.tolist()) == set(test.labels.tolist()) == set(range(10))
    rows = {tuple(image.flatten().tolist()) for image in train.images}
    assert all(tuple(image.flatten().tolist()) not in rows for image in test.images)


def test_digits_split_depends_on_the_seed_alone():
    pytest.importorskip("sklearn")
    first, again, other = load_digits(seed=3), load_digits(seed=3), load_digits(seed=4)
    assert torch.equal(first[1].images, again[1].images)
    assert not torch.equal(first[1].images, other[1].images)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'suffuse\[demo\]'"):
        load_digits()


@pytest.mark.parametrize("size", [0, 1797])
def test_digits_bad_test_size(size):
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=f"test_size is {size}, expected 1 to 1796"):
        load_digits(test_size=size)


def test_batches_cover_each_epoch_once_in_a_new_order():
    batches = Batches((torch.arange(10), torch.arange(10) * 2), batch_size=3, seed=0)
    epochs = []
    for _ in range(2):
        rows = [batches.next() for _ in range(3)]
        assert all(torch.equal(b, a * 2) for a, b in rows)
        epochs.append(torch.cat([a for a, _ in rows]).tolist())
        assert len(set(epochs[-1])) == 9
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("taken", [0, 2, 3, 7])
def test_batches_go_on_from_a_stored_place(taken):
    data = (torch.arange(10),)
    batches = Batches(data, batch_size=3, seed=5)
    for _ in range(taken):
        batches.next()
    state = batches.state_dict()
    expected = [batches.next()[0].tolist() for _ in range(5)]
    other = Batches(data, batch_size=3, seed=5)
    other.load_state_dict(state)
    assert [other.next()[0].tolist() for _ in range(5)] == expected


def test_batches_refuse():
    with pytest.raises(ValueError, match="batch_size is 11, expected 1 to 10"):
        Batches((torch.arange(10),), batch_size=11, seed=0)
    with pytest.raises(ValueError, match="batch_size is 0, expected 1 to 10"):
        Batches((torch.arange(10),), batch_size=0, seed=0)
    with pytest.raises(ValueError, match=r"lengths \[10, 9\], expected one common length"):
        Batches((torch.arange(10), torch.arange(9)), batch_size=2, seed=0)
    with pytest.raises(ValueError, match=r"lengths \[\], expected one common length"):
        Batches((), batch_size=2, seed=0)


def test_picture_file(tmp_path):
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 1, 0])
    save_file({"images": images, "labels": labels}, tmp_path / "a.safetensors")
    loaded = load_pictures(tmp_path / "a.safetensors")
    torch.testing.assert_close(loaded.images, images / 127.5 - 1)
    assert torch.equal(loaded.labels, labels)
    save_file({"images": loaded.images, "labels": labels}, tmp_path / "b.safetensors")
    assert torch.equal(load_pictures(tmp_path / "b.safetensors").images, loaded.images)


GOOD = {"images": torch.zeros(2, 1, 4, 4), "labels": torch.tensor([0, 1])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "has no tensor labels"),
        ({"images": torch.zeros(2, 4, 4)}, r"images has shape \(2, 4, 4\)"),
        ({"labels": torch.tensor([0, 1, 2])}, r"labels must be int64 of shape \(2,\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels must be int64"),
        ({"labels": torch.tensor([0, -1])}, "none negative"),
        ({"images": torch.full((2, 1, 4, 4), 2.0)}, r"images are outside \[-1, 1\]"),
        ({"images": torch.full((2, 1, 4, 4), float("nan"))}, r"images are outside \[-1, 1\]"),
    ],
)
def test_bad_picture_file(tmp_path, change, message):
    tensors = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        load_pictures(tmp_path / "a.safetensors")


def test_missing_and_damaged_picture_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_pictures(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"text")
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        load_pictures(tmp_path / "a.safetensors")
