"""WebDataset shards become class folders, once. Skipped without the package."""

import io
import sys
import tarfile
import types

import pytest
import torch
from PIL import Image

import nbs_utils as nbs
from nbs_utils.data import DataNotFound
from nbs_utils.data.shards import unpack_shards


def write_shard(path, samples):
    """Write (key, class, gray level) as a shard; a class of None is left out."""
    with tarfile.open(path, "w") as shard:
        for key, label, level in samples:
            picture = io.BytesIO()
            Image.new("RGB", (40, 40), (level, level, level)).save(picture, "PNG")
            members = [(f"{key}.png", picture.getvalue())]
            if label is not None:
                members.append((f"{key}.cls", str(label).encode()))
            for name, data in members:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                shard.addfile(entry, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path):
    """Two training shards and one for validation; 12 classes, so that 10 follows 9."""
    pytest.importorskip("webdataset")
    for number in (0, 1):
        samples = [(f"a/{number}-{k}", k, 20 * k + number) for k in range(12)]
        write_shard(tmp_path / f"train-{number}.tar", samples)
    write_shard(tmp_path / "val-0.tar", [(f"{k}", k, 20 * k) for k in range(12)])
    return f"{tmp_path}/train-{{0..1}}.tar | {tmp_path}/val-0.tar"


def test_shards_are_read_with_their_classes(shards, tmp_path):
    options = dict(root=tmp_path / "disk", image_size=32, augment="none", val_size=2)
    data = nbs.load_data(f"webdataset:{shards}", device="cpu", **options)
    assert len(data.train) + len(data.val) == 24 and len(data.test) == 12
    assert data.test.labels.tolist() == list(range(12))  # 10 comes after 9
    levels = data.test.images(torch.arange(12))[:, 0, 16, 16]
    assert levels.tolist() == [20 * k for k in range(12)]


def test_shards_are_read_once(shards, tmp_path):
    folder = unpack_shards(shards, tmp_path / "disk")
    (tmp_path / "train-0.tar").unlink()
    assert unpack_shards(shards, tmp_path / "disk") == folder
    assert [p.name for p in (tmp_path / "disk").iterdir()] == [folder.name]


def test_what_is_wrong_with_a_shard_is_said_and_nothing_is_left(tmp_path):
    pytest.importorskip("webdataset")
    write_shard(tmp_path / "bad.tar", [("one", 0, 5), ("two", None, 5)])
    with pytest.raises(DataNotFound, match=r"sample two .* has no class"):
        unpack_shards(str(tmp_path / "bad.tar"), tmp_path / "disk")
    with pytest.raises(DataNotFound, match="cannot be read"):
        unpack_shards(str(tmp_path / "none.tar"), tmp_path / "disk")
    assert list((tmp_path / "disk").iterdir()) == []
    with pytest.raises(ValueError, match="names 3 patterns"):
        unpack_shards("a | b | c", tmp_path)


@pytest.mark.parametrize(
    "label",
    ["../../../escaped", "/tmp/escaped", "..", ".", "", "a/b", "a\\b", "C:", "a\nb"],
)
def test_a_class_cannot_lead_out_of_the_folder(monkeypatch, tmp_path, label):
    """webdataset is replaced: what it reads is what a stranger wrote."""
    sample = {"__key__": "one", "png": b"picture", "cls": label.encode()}
    monkeypatch.setitem(sys.modules, "webdataset", stand_in([sample]))
    root = tmp_path / "a" / "b" / "disk"
    root.mkdir(parents=True)
    with pytest.raises(DataNotFound, match="a class becomes the name of a folder"):
        unpack_shards("x.tar", root)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(root.iterdir()) == []


def test_a_key_cannot_lead_out_of_the_folder(monkeypatch, tmp_path):
    samples = [
        {"__key__": key, "png": b"picture", "cls": b"7"}
        for key in ("../../up", "C:\\up", "/tmp/up")
    ]
    monkeypatch.setitem(sys.modules, "webdataset", stand_in(samples))
    folder = unpack_shards("x.tar", tmp_path / "disk")
    names = sorted(path.name for path in (folder / "train" / "000007").iterdir())
    assert names == [".._.._up.png", "C__up.png", "_tmp_up.png"]


def stand_in(samples):
    """Return a module that reads these samples from any shard."""
    return types.SimpleNamespace(WebDataset=lambda *_, **__: iter(samples))


def test_without_the_package_its_installation_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(DataNotFound, match=r"pip install 'nbs-utils\[shards\]'"):
        unpack_shards("x.tar", tmp_path)
