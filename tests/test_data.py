"""Data by name: what is found, how it is split, and what a batch holds."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch
from class_folders import leave_alone, load_folder, write_image, write_pets
from PIL import Image

from nbs_utils.data import DataNotFound, datasets, load_data
from nbs_utils.data.folders import IMAGENETTE
from nbs_utils.data.parts import stratified
from nbs_utils.data.storage import parse_bytes


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    leave_alone(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path):
    return write_pets(tmp_path / "pets")


# --- data sets by name


def test_digits_are_split_by_class_and_normalized():
    data = load_data("digits", batch_size=100)
    assert (len(data.train), len(data.val), len(data.test)) == (1294, 143, 360)
    assert data.classes == [str(k) for k in range(10)]
    x = torch.cat([x for x, _ in data.train.batches()])
    y = torch.cat([y for _, y in data.train.batches()])
    assert x.shape == (1294, 1, 32, 32) and x.dtype == torch.float32
    assert abs(x.mean()) < 1e-4 and abs(x.std(correction=0) - 1) < 1e-4
    assert torch.equal(y, data.train.labels) and y.dtype == torch.int64
    counts = data.test.labels.bincount()
    assert counts.min() >= 34 and counts.max() <= 37


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="'cifar-10'.*Did you mean cifar10"):
        load_data("cifar-10")
    with pytest.raises(ValueError, match="'quux'.*There are mnist"):
        load_data("quux")


def test_quick_mode_serves_digits_and_says_so(monkeypatch, capsys):
    monkeypatch.setenv("NBS_QUICK", "1")
    data = load_data("imagenette", image_size=48)
    assert "Imagenette is replaced" in capsys.readouterr().out
    x, _ = next(data.train.batches(16, epoch=0))
    assert x.shape == (16, 3, 48, 48)
    assert len(data.train) <= 256 and "quick" in data.title
    assert load_data("cifar10").train.augment.name == "crop-flip"
    with pytest.raises(ValueError, match="Did you mean"):
        load_data("imagenete")
    digits = load_data("digits")
    assert len(digits.train) == 1294  # served as asked


def write_cifar10(root):
    """Write a data set in CIFAR-10's own format; return its pixels."""
    generator = np.random.default_rng(0)
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    pixels = {}
    for file in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        rows = generator.integers(0, 256, (20, 3072), dtype=np.uint8)
        labels = [k % 10 for k in range(20)]
        with open(base / file, "wb") as f:
            pickle.dump({"data": rows, "labels": labels}, f)
        pixels[file] = rows
    names = [f"class_{k}" for k in range(10)]
    with open(base / "batches.meta", "wb") as f:
        pickle.dump({"label_names": names}, f)
    return pixels


def _is_there(path, md5=None):
    return os.path.isfile(path)  # the files written above have other checksums


def test_cifar_is_read_in_torchvisions_format(tmp_path, monkeypatch):
    import torchvision

    pixels = write_cifar10(tmp_path / "store")
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", _is_there)
    data = load_data("cifar10", root=tmp_path / "store", val_size=0.1)
    assert data.title == "CIFAR-10" and data.classes[3] == "class 3"
    assert (len(data.train), len(data.val), len(data.test)) == (90, 10, 20)
    first = torch.from_numpy(pixels["test_batch"][0]).view(3, 32, 32)
    assert torch.equal(data.test.images([0])[0], first)
    assert data.val.labels.bincount().tolist() == [1] * 10  # stratified


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">I", 0x0800 + array.ndim)
    head += b"".join(struct.pack(">I", n) for n in array.shape)
    path.write_bytes(head + array.tobytes())


@pytest.mark.parametrize("name, kind", [("mnist", "MNIST"),
                                        ("fashion_mnist", "FashionMNIST")])  # fmt: skip
def test_mnist_is_read_and_its_labels_checked(tmp_path, name, kind, monkeypatch):
    raw = tmp_path / ".data" / kind / "raw"  # found in a parent of the working folder
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    generator = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    data = load_data(name, image_size=32, channels=3, batch_size=10)
    x, _ = next(data.train.batches(epoch=0))
    assert x.shape == (10, 3, 32, 32) and len(data.train) == 36
    assert data.train.augment.name == ("none" if name == "mnist" else "crop-flip")
    labels[3] = 12
    write_idx(raw / "t10k-labels-idx1-ubyte", labels)
    with pytest.raises(ValueError, match=r"label 12 .*test split.*0 to 9"):
        load_data(name)


def test_class_folders_of_a_known_set_say_what_they_are(tmp_path, monkeypatch):
    for part in ("train", "test"):
        for kind in IMAGENETTE:
            for i in range(2):
                name = f"{part}/{kind}/{i}"
                write_image(tmp_path / f"d/cifar10/{name}.jpg", (32, 32), i)
                part_ = part.replace("test", "val")
                name = f"{part_}/{kind}/{i}.JPEG"
                write_image(tmp_path / f"d/imagenette2-160/{name}", (160, 160), i)
    monkeypatch.setenv("NBS_DATA", str(tmp_path / "d"))
    data = load_data("cifar10", val_size=2)
    assert data.title == "CIFAR-10 (JPEG copy)" and data.image_size == 32
    data = load_data("imagenette", val_size=2)
    assert data.title == "Imagenette (160 px squares)"
    assert data.classes[1] == "English springer"
    assert data.test.images([0]).shape == (1, 3, 128, 128)
    assert data.train.augment.name == "resized-crop-flip"


def test_a_download_that_fails_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "_download", refuse)
    with pytest.raises(DataNotFound, match="CIFAR-100 was not found in .*no route"):
        load_data("cifar100", root=tmp_path)


def test_a_download_goes_through_torchvision(tmp_path, monkeypatch):
    import torchvision

    asked = []

    class Fake(torchvision.datasets.CIFAR10):
        def download(self):
            asked.append(self.root)
            write_cifar10(tmp_path / "target")

    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", _is_there)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    data = load_data("cifar10", root=tmp_path / "target", val_size=10)
    assert asked == [str(tmp_path / "target")] and len(data.train) == 90


# --- splits


def test_the_validation_split_is_fixed_by_the_seed_and_disjoint():
    def training_images(seed, **settings):
        data = load_data("digits", seed=seed, **settings)
        return {bytes(x.numpy()) for x in data.train.images(range(len(data.train)))}

    first = training_images(0)
    assert first == training_images(0, augment="none")
    assert first != training_images(1)
    data = load_data("digits", seed=0)
    val = {bytes(x.numpy()) for x in data.val.images(range(len(data.val)))}
    assert len(first & val) < 5  # a few digits are drawn twice in the original


def test_stratified_takes_each_class_in_proportion():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    chosen, rest = stratified(labels, 10, seed=0)
    assert labels[chosen].bincount().tolist() == [6, 3, 1]
    assert sorted(chosen.tolist() + rest.tolist()) == list(range(100))
    chosen, _ = stratified(labels, 7, seed=0)
    assert labels[chosen].bincount().tolist() == [4, 2, 1]  # 4.2, 2.1, 0.7


def test_sizes_out_of_range_are_refused():
    for settings, words in [
        ({"val_size": 1437}, "val_size is 1437.*1437 training"),
        ({"val_size": -1}, "val_size is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"image_size": -3}, "image_size is -3"),
        ({"channels": 2}, "channels is 2.*1 .gray. or 3"),
        ({"limit": 0}, "limit is 0"),
        ({"on_bad_image": "ignore"}, "on_bad_image is 'ignore'"),
        ({"memory_budget": "4 apples"}, "memory_budget is '4 apples'"),
    ]:
        with pytest.raises(ValueError, match=words):
            load_data("digits", **settings)


def test_an_empty_split_is_a_sentence():
    data = load_data("digits", val_size=0)
    assert len(data.val) == 0 and len(data.train) == 1437
    with pytest.raises(ValueError, match="validation split.*empty"):
        data.val.batches()


def test_limit_keeps_the_classes_in_proportion():
    data = load_data("digits", limit=50)
    assert len(data.train) == len(data.val) == len(data.test) == 50
    assert data.train.labels.bincount(minlength=10).tolist() == [5] * 10


# --- batches


def test_training_epochs_shuffle_all_images_and_drop_the_short_batch():
    data = load_data("digits", augment="none", batch_size=128)
    epochs = [torch.cat([y for _, y in data.train.batches(epoch=e)]) for e in (0, 1)]
    assert data.train.num_batches() == 10 and len(epochs[0]) == 1280
    assert not torch.equal(epochs[0], epochs[1])
    assert data.train.num_batches(training=False) == 11
    x = torch.cat([x for x, _ in data.train.batches(1294, epoch=3)])
    plain = torch.cat([x for x, _ in data.train.batches()])
    assert torch.equal(x.flatten(1).sum(1).sort()[0], plain.flatten(1).sum(1).sort()[0])
    assert len(next(data.train.batches(5000, epoch=0))[1]) == 1294  # the only batch


def test_an_epoch_resumes_at_any_step_bit_for_bit():
    data = load_data("digits", augment="strong", batch_size=64)
    torch.manual_seed(1)
    whole = list(data.train.batches(epoch=2))
    torch.manual_seed(2)  # the global generator has no say
    rest = list(data.train.batches(epoch=2, start=13))
    assert len(rest) == len(whole) - 13
    for (a, b), (c, d) in zip(whole[13:], rest):
        assert torch.equal(a, c) and torch.equal(b, d)
    state = torch.get_rng_state()
    next(data.train.batches(epoch=0))
    assert torch.equal(torch.get_rng_state(), state)


def test_normalize_and_back():
    data = load_data("digits", channels=3, image_size=16)
    raw = data.test.images([5, 0])
    x = next(data.test.batches(6))[0][[5, 0]]
    assert torch.allclose(data.test.normalize(raw), x, atol=1e-5)
    back = (data.test.denormalize(x) * 255).round().byte()
    assert torch.equal(back, raw)
    with pytest.raises(IndexError, match="images 0 to 359"):
        data.test.images([360])


def test_a_function_augments_bytes_or_floats():
    plain = next(load_data("digits", augment="none").train.batches(epoch=0))[0]
    for function in (lambda x, _: 255 - x, lambda x, _: 1 - x.float() / 255):
        data = load_data("digits", augment=function)
        x = next(data.train.batches(epoch=0))[0]
        inverted = data.train.normalize(1 - data.train.denormalize(plain))
        assert torch.allclose(x, inverted, atol=1e-5)
        assert torch.equal(next(data.val.batches())[1], data.val.labels[:128])


# --- statistics


def test_mean_and_deviation_are_those_of_the_training_pixels(folder):
    data = load_folder(folder, val_size=6)
    pixels = torch.stack(
        [torch.from_numpy(np.array(Image.open(p))) for p in
         sorted(folder.glob("train/*/*.png"))]
    ).double()  # fmt: skip
    val = data.val.images(range(6)).permute(0, 2, 3, 1)
    train = [p for p in pixels if not any(torch.equal(p, v.double()) for v in val)]
    train = torch.stack(train).flatten(0, 2) / 255
    assert len(train) == 18 * 1600
    assert torch.allclose(data.mean.double(), train.mean(0), atol=1e-6)
    assert torch.allclose(data.std.double(), train.std(0, correction=0), atol=1e-6)


def test_one_color_does_not_divide_by_zero(tmp_path):
    for kind in "ab":
        for i in range(4):
            path = tmp_path / "flat" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (9, 9, 9)).save(path)
    data = load_folder(tmp_path / "flat", val_size=0)
    assert next(data.train.batches(epoch=0))[0].isfinite().all()


def test_budgets_are_read():
    assert parse_bytes("4 GB") == 4 * 10**9
    assert parse_bytes("1.5GiB") == 3 * 2**29
    assert parse_bytes(77) == 77


def test_photographs_for_figures():
    from nbs_utils.data import sample_photographs

    assert sample_photographs().shape == (2, 3, 427, 640)
    photographs = sample_photographs(96)
    assert photographs.shape == (2, 3, 96, 96) and photographs.dtype == torch.uint8
    assert photographs.float().std() > 30
