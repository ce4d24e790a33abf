"""Images that are decoded in every epoch, or once and kept in a cache."""

import os
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from class_folders import leave_alone, load_folder, write_image, write_pets

from nbs_utils.data import BadImage, decoding, load_data
from nbs_utils.data.folders import IMAGENETTE
from nbs_utils.data.reading import in_order


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    leave_alone(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path):
    return write_pets(tmp_path / "pets")


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_the_resident_ones(folder, workers):
    settings = {"augment": "resized-crop-flip", "image_size": 32, "val_size": 4}
    held = load_folder(folder, **settings)
    streamed = load_folder(folder, memory_budget=1000, workers=workers, **settings)
    assert (held.where, streamed.where) == ("device memory", "streamed")
    assert torch.equal(held.mean, streamed.mean)
    pairs = [(held.train.batches(epoch=1, start=2),
              streamed.train.batches(epoch=1, start=2)),
             (held.test.batches(), streamed.test.batches())]  # fmt: skip
    for ours, theirs in pairs:
        ours, theirs = list(ours), list(theirs)
        assert len(ours) == len(theirs) > 1
        for (a, b), (c, d) in zip(ours, theirs):
            assert torch.equal(a, c) and torch.equal(b, d)
    assert torch.equal(held.val.images([1, 3]), streamed.val.images([1, 3]))


def test_arrays_over_the_budget_are_streamed_from_host_memory():
    held = load_data("digits")
    streamed = load_data("digits", memory_budget="10 KiB")
    assert streamed.where == "streamed"
    for (a, _), (b, _) in zip(held.test.batches(), streamed.test.batches()):
        assert torch.equal(a, b)


def test_images_are_decoded_once(folder, monkeypatch, tmp_path):
    first = load_folder(folder)

    def refuse(*_, **__):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode_files", refuse)
        again = load_folder(folder)
        assert torch.equal(again.train.images([0, 5]), first.train.images([0, 5]))
        with pytest.raises(AssertionError):
            load_folder(folder, channels=1)
        write_image(folder / "train/cat/00.png", seed=5)  # a changed file
        with pytest.raises(AssertionError):
            load_folder(folder)
    load_folder(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["test", "train"]
    assert sorted(p.name for p in folder.parent.iterdir()) == ["home", "pets"]
    (kept,) = (tmp_path / "home/.cache/nbs_utils/decoded").glob("pets-*")
    assert len(list(kept.glob("train-40x3-*"))) == 1  # the outdated one is gone


@pytest.mark.parametrize("file", ["images.npy", "sums.npy", "skipped.json"])
def test_a_damaged_cache_is_made_anew(folder, file, tmp_path):
    first = load_folder(folder)
    found = list((tmp_path / "home").rglob(file))
    assert len(found) == 2  # of the training and the test images
    for path in found:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = load_folder(folder)
    assert torch.equal(again.train.images([3]), first.train.images([3]))
    (path,) = (tmp_path / "home").rglob("train-*/images.npy")
    assert np.load(path).shape == (24, 40, 40, 3)


def test_folders_of_one_name_do_not_share_a_cache(tmp_path):
    for place, seed in (("a", 1), ("b", 2)):
        for kind in ("cat", "dog"):
            for i in range(5):
                write_image(tmp_path / place / "photos" / kind / f"{i}.png", seed=seed)
    a, b = (load_folder(tmp_path / place / "photos", val_size=0) for place in "ab")
    again = load_folder(tmp_path / "a/photos", val_size=0)
    assert torch.equal(a.train.images([0]), again.train.images([0]))
    assert not torch.equal(a.train.images([0]), b.train.images([0]))
    assert len(list((tmp_path / "home/.cache/nbs_utils/decoded").iterdir())) == 2


def refuse_to_write(monkeypatch, *names):
    """Let no folder be made whose path holds one of these words."""
    real = os.mkdir

    def mkdir(path, *args, **settings):
        if any(name in str(path) for name in names):
            raise PermissionError(13, "Read-only file system", str(path))
        return real(path, *args, **settings)

    monkeypatch.setattr(os, "mkdir", mkdir)


def test_a_cache_that_cannot_be_written(folder, monkeypatch):
    refuse_to_write(monkeypatch, "decoded")
    with pytest.warns(UserWarning, match="could not be kept: .*decoded.* cannot be"):
        data = load_folder(folder)
    assert len(data.train) == 22


def test_a_known_data_set_keeps_its_cache_beside_it(monkeypatch, tmp_path):
    for part in ("train", "val"):
        for kind in IMAGENETTE:
            for i in range(2):
                path = tmp_path / f"d/imagenette2-160/{part}/{kind}/{i}.JPEG"
                write_image(path, (160, 160), i)
    monkeypatch.setenv("NBS_DATA", str(tmp_path / "d"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data("imagenette", val_size=2)
        beside = tmp_path / "d/.imagenette2-160.nbs_cache"
        assert len(list(beside.glob("*/images.npy"))) == 2
        refuse_to_write(monkeypatch, ".nbs_cache")
        load_data("imagenette", val_size=2, image_size=32)  # in the home folder then
    assert len(list((tmp_path / "home").rglob("images.npy"))) == 2
    refuse_to_write(monkeypatch, ".nbs_cache", "decoded")
    with pytest.warns(UserWarning, match="nbs_cache or .*decoded.* cannot be written"):
        load_data("imagenette", val_size=2, image_size=48)


def test_two_writers_leave_one_whole_entry(folder):
    paths = sorted(folder.glob("train/*/*.png"))
    images, bad = decoding.decode_files(paths, 40)
    entry = folder / ".x" / "train-40x3-abc"
    sums = decoding.image_sums(images)
    real = decoding.json.dumps

    def slow(value):  # the other writer finishes while this one is at work
        decoding.json.dumps = real
        assert decoding._write_entry(entry, images, sums, bad)
        return real(value)

    decoding.json.dumps = slow
    try:
        assert decoding._write_entry(entry, images, sums, bad)
    finally:
        decoding.json.dumps = real
    assert [p.name for p in entry.parent.iterdir()] == [entry.name]
    found = decoding._read_entry(entry, (24, 40, 40, 3))
    assert torch.equal(found[0], images)


# --- threads that read ahead


def readers() -> list[str]:
    """Return the names of the threads that read at this moment."""
    return [t.name for t in threading.enumerate() if t.name.startswith("nbs-reader")]


@pytest.fixture
def busy():
    """Threads that compute, as beside any training."""
    stop = threading.Event()

    def multiply():
        x = torch.rand(100, 100)
        while not stop.is_set():
            x @ x

    threads = [threading.Thread(target=multiply) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()


def test_two_hundred_short_streams_beside_busy_threads(folder, busy):
    data = load_folder(folder, memory_budget=0, workers=2, image_size=32)
    expected = [x for x, _ in data.train.batches(epoch=0)]
    started = time.monotonic()
    for turn in range(200):
        seen = 0
        for x, _ in data.train.batches(epoch=0):
            assert torch.equal(x, expected[seen])
            seen += 1
            if turn % 2:
                break  # half of them are left early
        assert seen == (1 if turn % 2 else len(expected))
        assert not readers()
    assert time.monotonic() - started < 60


def test_reading_forks_no_process(folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", refuse, raising=False)
    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
    data = load_folder(folder, memory_budget=0, workers=2)
    assert sum(len(y) for _, y in data.train.batches(epoch=0)) == 20


def test_what_goes_wrong_in_a_thread_is_raised_at_its_place():
    def work(i):
        if i == 5:
            raise BadImage("The image 5 cannot be read.")
        return i

    results = in_order(work, range(100), threads=2, ahead=8)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(BadImage, match="image 5"):
        next(results)
    assert not readers()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_loop_leaves_no_thread(folder, error):
    data = load_folder(folder, memory_budget=0, workers=2)
    try:
        for _ in data.train.batches(epoch=0):
            assert readers()
            raise error
    except error:
        pass
    assert not readers()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_no_more_is_read_ahead_than_allowed(threads):
    begun = []

    def items():
        for i in range(40):
            begun.append(i)
            yield i

    results = in_order(lambda i: i * i, items(), threads, ahead=6)
    assert not begun  # nothing is read before it is asked for
    for i, result in enumerate(results):
        assert result == i * i and len(begun) <= i + 6
    assert len(begun) == 40 and not readers()


def test_a_reader_computes_alone_and_the_caller_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        inside = list(in_order(lambda _: torch.get_num_threads(), range(20), 2, 4))
        assert inside == [1] * 20 and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_unreadable_files_leave_a_batch_in_order(folder):
    for i in (0, 3, 4, 5, 6, 7, 20):  # positions 4 to 7 are a whole batch
        kind, number = ("cat", i) if i < 12 else ("guinea_pig", i - 12)
        (folder / f"train/{kind}/{number:02}.png").write_bytes(b"no image")
    settings = {"val_size": 0, "memory_budget": 0, "on_bad_image": "skip"}
    data = load_folder(folder, workers=2, **settings)
    with pytest.warns(UserWarning, match=r"Skipped: .*cat/03\.png cannot be read"):
        batches = [y.tolist() for _, y in data.train.batches()]
    assert batches == [[0, 0], [0] * 4, [1] * 4, [1] * 4, [1] * 3]
