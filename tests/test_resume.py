"""An interrupted run that is resumed ends as if it had not been interrupted."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_data import ToyData, same, toy_network

import nbs_utils as nbs
from nbs_utils.training import checkpoints as checkpoint
from nbs_utils.training import resuming as resume
from nbs_utils.training.checkpoints import (
    CheckpointError,
    load_weights,
    read_checkpoint,
    write_checkpoint,
)
from nbs_utils.training.identity import data_identity
from nbs_utils.training.loop import fit
from nbs_utils.training.recipe import Recipe

# Everything that has a memory: momentum, dropout, the average, the plateau, the best
# epoch. So large a learning rate makes the plateau come and the best epoch early.
RECIPE = Recipe(
    name="everything",
    epochs=5,
    lr=0.3,
    nesterov=True,
    weight_decay=1e-3,
    schedule="plateau",
    patience=0,
    warmup_epochs=0.5,
    label_smoothing=0.1,
    ema=0.9,
    clip_norm=1.0,
    accumulate=2,
    precision="float32",
)
PLAIN_EPOCH = Recipe(epochs=1, precision="float32")
# what depends on the clock
CLOCK = ["seconds", "images_per_second", "waiting"]


@pytest.fixture(autouse=True)
def one_thread():
    """Add in the same order here and in the other process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network():
    return toy_network(dropout=0.3)


def train(net, folder=None, recipe=RECIPE, **kw):
    kw = {"progress": "off", "seed": 5, **kw}
    return fit(net, ToyData(), recipe, folder=folder, **kw)


@pytest.fixture(scope="module")
def whole():
    """Return an uninterrupted run and its network."""
    net = network()
    return train(net), net


def assert_same_end(run, net, whole):
    expected, expected_net = whole
    assert same(net, expected_net)
    assert (run.best_epoch, run.best_top1) == (
        expected.best_epoch,
        expected.best_top1,
    )
    assert run.history.drop(columns=CLOCK).equals(expected.history.drop(columns=CLOCK))
    assert (run.epochs, run.steps, run.status) == (5, 40, "finished")


class Stop(Exception):
    pass


def stop_at(step, monkeypatch):
    """Let training fail, as by a crash, at a step of the whole run."""
    from nbs_utils.training import loop

    calls = []

    def step_or_crash(*args, real=loop.train_step):
        calls.append(1)
        if len(calls) == step:
            raise Stop
        return real(*args)

    monkeypatch.setattr(loop, "train_step", step_or_crash)


def test_the_plateau_and_the_best_epoch_are_put_to_the_test(whole):
    run, _ = whole
    assert run.history["lr"].nunique() > 1  # the plateau has spoken
    assert run.best_epoch < 5


@pytest.mark.parametrize("at", [1, 8, 9, 21, 30, 40])
def test_a_crash_at_any_step(at, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(at, patch)
        with pytest.raises(Stop):
            train(network(), tmp_path, checkpoint_every=3)
    net = network()
    run = train(net, tmp_path)
    assert_same_end(run, net, whole)


def test_the_stop_button_twice_and_other_random_numbers_between(whole, tmp_path):
    class Press(nn.Module):
        def __init__(self, at):
            super().__init__()
            self.left = at

        def forward(self, x):
            if self.training and torch.is_grad_enabled():
                self.left -= 1
                if self.left == 0:
                    os.kill(os.getpid(), signal.SIGINT)
            return x

    for at in (5, 18):
        net = network()
        net.insert(6, Press(2 * at))  # each step has two parts
        assert train(net, tmp_path).status == "interrupted"
        random.random(), np.random.rand(), torch.rand(3)
    net = network()
    assert_same_end(train(net, tmp_path), net, whole)


# A process that is killed: at a random moment, and while it writes.

CHILD = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_resume
test_resume.child(sys.argv[2], sys.argv[3])
"""


def child(folder, kind):
    """Train slowly in a process of its own; `kind` says what is slow."""
    from nbs_utils.training import loop

    def slowly(seconds, real):
        def call(*args):
            time.sleep(seconds)
            return real(*args)

        return call

    if kind == "writing":
        os.fsync = slowly(0.3, os.fsync)  # the file is there, but has no name yet
    loop.train_step = slowly(0.01, loop.train_step)
    train(network(), folder, checkpoint_every=2)
    print("finished before it was killed")


def test_kill_9(whole, tmp_path):
    folders = {kind: tmp_path / kind for kind in ("training", "writing")}
    processes = {kind: start(folder, kind) for kind, folder in folders.items()}
    for kind, process in processes.items():
        last, beside = folders[kind] / "last.pt", folders[kind] / "last.pt.tmp"
        wait_for(last, process)
        time.sleep(random.uniform(0, 0.08))
        if kind == "writing":
            wait_for(beside, process)
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        assert beside.exists() or kind == "training"
        started = read_checkpoint(last)
        assert 0 < 8 * started["epoch"] + started["step"] < 40

        net = network()
        assert_same_end(train(net, folders[kind]), net, whole)
        assert not beside.exists()


def start(folder, kind):
    tests = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, tests, str(folder), kind],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(path, process):
    deadline = time.monotonic() + 240
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.001)


def test_killed_between_the_last_and_the_best(whole, tmp_path, monkeypatch):
    def dies(state, setup):
        if state.epoch == 1:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("nbs_utils.training.loop.save_best", dies)
        with pytest.raises(Stop):
            train(network(), tmp_path)
    assert not (tmp_path / "best.pt").exists()
    net = network()
    assert_same_end(train(net, tmp_path), net, whole)
    assert (tmp_path / "best.pt").is_file()


def test_a_lost_best_is_said_and_sought_anew(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_at(21, patch)  # in the third epoch
        with pytest.raises(Stop):
            train(network(), tmp_path, checkpoint_every=1)
    (tmp_path / "best.pt").unlink()
    net = network()
    run = train(net, tmp_path, progress="lines")
    assert "best weights of the epochs so far are lost" in capsys.readouterr().err
    late = run.history["val_top1"].iloc[2:]
    assert run.best_top1 == late.max()
    assert run.best_epoch == late.idxmax() + 1


def test_a_finished_run_is_not_trained_again(whole, tmp_path):
    train(network(), tmp_path)
    before = (tmp_path / "last.pt").stat().st_mtime_ns
    net = network()
    run = train(net, tmp_path)
    assert_same_end(run, net, whole)
    assert (tmp_path / "last.pt").stat().st_mtime_ns == before


def test_resume_false_starts_again(whole, tmp_path):
    train(toy_network(seed=1), tmp_path, RECIPE.replace(epochs=1, ema=0))
    net = network()
    other = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "final.pt").write_bytes(b"of the first")
    assert_same_end(train(net, tmp_path, resume=False), net, whole)
    assert (tmp_path / "previous-last.pt").read_bytes() == other
    # a network that `nbs train` left is not taken for that of the new start
    assert (tmp_path / "previous-final.pt").read_bytes() == b"of the first"
    assert not (tmp_path / "final.pt").exists()


def test_float16_mixup_and_adamw_are_resumed(tmp_path, monkeypatch):
    pytest.importorskip("nbs_utils.augment")
    recipe = Recipe(
        epochs=2,
        optimizer="adamw",
        lr=1e-3,
        precision="float16",
        channels_last=True,
        mixup=0.4,
        cutmix=1.0,
    )
    expected = network()
    train(expected, recipe=recipe)
    with monkeypatch.context() as patch:
        stop_at(13, patch)
        with pytest.raises(Stop):
            train(network(), tmp_path, recipe, checkpoint_every=5)
    net = network()
    train(net, tmp_path, recipe)
    assert same(net, expected)


class TwoHeads(nn.Module):
    """A network with dropout and an auxiliary head."""

    def __init__(self):
        super().__init__()
        self.network = network()
        self.aux = nn.Linear(64, 10)

    def forward(self, x):
        logits = self.network(x)
        return (logits, self.aux(x.flatten(1))) if self.training else logits


def test_rmsprop_an_auxiliary_head_and_an_average_are_resumed(tmp_path, monkeypatch):
    recipe = Recipe(
        epochs=2,
        optimizer="rmsprop",
        lr=1e-3,
        alpha=0.9,
        eps=1e-3,
        schedule="linear",
        aux_weight=0.4,
        ema=0.9,
        precision="float16",
    )
    expected = TwoHeads()
    train(expected, recipe=recipe)
    with monkeypatch.context() as patch:
        stop_at(13, patch)
        with pytest.raises(Stop):
            train(TwoHeads(), tmp_path, recipe, checkpoint_every=5)
    net = TwoHeads()
    run = train(net, tmp_path, recipe)
    assert same(net, expected)
    assert (run.epochs, run.steps) == (2, 16)


def test_best_pt_holds_what_the_network_holds(whole, tmp_path):
    run = train(network(), tmp_path)
    net = network()
    saved = load_weights(net, tmp_path / "best.pt")
    assert same(net, whole[1])
    assert (saved["epoch"], saved["top1"]) == (run.best_epoch, run.best_top1)
    assert Recipe.load(tmp_path / "recipe.yml") == RECIPE


# What does not fit, and what cannot be written


@pytest.fixture
def one_epoch(tmp_path):
    train(network(), tmp_path, RECIPE.replace(epochs=1))
    return tmp_path


def refused(folder, words, net=None, recipe=None, **kw):
    before = (folder / "last.pt").read_bytes()
    net, recipe = net or network(), recipe or RECIPE.replace(epochs=1)
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        train(net, folder, recipe, **kw)
    for word in (words,) if isinstance(words, str) else words:
        assert word in str(error.value)
    assert (folder / "last.pt").read_bytes() == before
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())


def test_a_checkpoint_that_is_cut_off_is_named_and_left_alone(one_epoch):
    last = one_epoch / "last.pt"
    data = last.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        last.write_bytes(data[:length])
        refused(one_epoch, [f"last.pt ({length:,} bytes) is cut off", "resume=False"])


def test_a_flipped_bit_is_noticed(one_epoch):
    last = one_epoch / "last.pt"
    data = bytearray(last.read_bytes())
    where = data.find(b"last/data/") + 5000  # within a tensor
    data[where] ^= 1
    last.write_bytes(bytes(data))
    refused(one_epoch, ["last.pt", "checksum"])


def test_a_file_that_would_execute_code_is_refused(one_epoch, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "was here").touch, ())

    torch.save({"network": Evil()}, one_epoch / "last.pt")
    refused(one_epoch, "no checkpoint")
    assert not (tmp_path / "was here").exists()


def test_another_file_is_told_from_a_checkpoint(one_epoch):
    torch.save({"weights": 1}, one_epoch / "last.pt")
    refused(one_epoch, "'network' is missing")


def test_a_checkpoint_of_another_network_names_the_first_difference(one_epoch):
    wider = network()
    wider[0] = nn.Conv2d(1, 16, 3, padding=1)
    wider[1] = nn.BatchNorm2d(16)
    wider[5] = nn.Linear(1024, 10)
    refused(one_epoch, "'0.weight' is (8, 1, 3, 3) in the checkpoint and (16, 1", wider)
    refused(one_epoch, "has '1.weight', this network does not", toy_network(norm=False))
    more = network().append(nn.Linear(10, 10))
    refused(one_epoch, "this network has '6.weight', the checkpoint", more)


def test_a_checkpoint_of_another_recipe_or_seed_names_both_values(one_epoch):
    recipe = RECIPE.replace(epochs=1, lr=0.2, patience=3)
    refused(
        one_epoch,
        ["recipe lr is 0.3 there and 0.2 here", "recipe patience is 0 there"],
        recipe=recipe,
    )
    refused(one_epoch, "seed is 5 there and 6 here", seed=6)


def digits(**changes):
    options = {"limit": 60, "batch_size": 30, "device": "cpu", **changes}
    return nbs.load_data("digits", **options)


def small(channels=1, side=32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, 10))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"augment": "crop-flip"}, "augmentation is 'none' there and 'crop-flip' here"),
        ({"seed": 1}, "choice of training images (hash) is"),
        ({"val_size": 40}, "validation images is 60 there and 40 here"),
        ({"limit": 50}, "training images is 60 there and 50 here"),
        ({"channels": 3}, "channels is 1 there and 3 here"),
        ({"image_size": 16}, "image size is 32 there and 16 here"),
    ],
)
def test_other_data_is_refused_by_name(changes, words, tmp_path):
    recipe = PLAIN_EPOCH
    data, other = digits(), digits(**changes)
    fit(small(side=data.image_size), data, recipe, folder=tmp_path, progress="off")
    # another split may have other statistics; the refusal must not depend on shapes
    net = small(other.channels, other.image_size)
    if same_shapes(net, small(side=data.image_size)):
        with pytest.raises(CheckpointError) as error:
            fit(net, other, recipe, folder=tmp_path, progress="off")
        assert words in str(error.value)
    problem = differences(data, other)
    assert words in problem
    run = fit(small(), digits(), recipe, folder=tmp_path, progress="off")
    assert run.epochs == 1  # the same data, loaded anew


def same_shapes(a, b):
    return [p.shape for p in a.parameters()] == [p.shape for p in b.parameters()]


def differences(data, other):
    with pytest.raises(CheckpointError) as error:
        checkpoint.check_identity(data_identity(data), data_identity(other), "last.pt")
    return str(error.value)


def test_streamed_images_are_the_same_data_as_those_in_memory(tmp_path):
    from PIL import Image

    for split, count in (("train", 12), ("val", 4)):
        for name in ("a", "b"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(256, size=(20, 20, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    found = [
        data_identity(
            nbs.load_data(
                f"imagefolder:{tmp_path}", image_size=16, device="cpu", **options
            )
        )
        for options in ({}, {"memory_budget": 0, "workers": 0}, {"seed": 3})
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_checkpoint_that_does_not_know_its_data_is_refused(one_epoch):
    last = one_epoch / "last.pt"
    saved = read_checkpoint(last)
    del saved["identity"]["augmentation"]
    write_checkpoint(saved, last)
    refused(one_epoch, "before checkpoints noted the split and the augmentation")


def test_a_folder_that_cannot_be_written_to_is_said_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    net = network()
    with pytest.raises(CheckpointError, match="cannot be written to .*Nothing was"):
        train(net, tmp_path / "file" / "run")
    assert same(net, network())


def test_a_full_disk_does_not_end_training_nor_hurt_the_last_checkpoint(
    whole, tmp_path, monkeypatch, capsys
):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    real = checkpoint.write_checkpoint

    def small_disk(state, path):
        full = state["epoch"] in (2, 3)
        if full:  # the system refuses to write more than 4 KiB into a file
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            return real(state, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(checkpoint, "write_checkpoint", small_disk)
    kept = []

    def note(state, setup, save=resume.save):
        save(state, setup)
        kept.append(read_checkpoint(tmp_path / "last.pt")["epoch"])

    monkeypatch.setattr("nbs_utils.training.loop.save", note)
    net = network()
    run = train(net, tmp_path, progress="lines")
    assert kept == [1, 1, 1, 4, 5]
    said = capsys.readouterr().err
    assert "last.pt could not be written" in said
    assert "File too large" in said
    assert "The one before it is whole. Training goes on" in said
    assert not list(tmp_path.glob("*.tmp"))
    assert_same_end(run, net, whole)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = write_checkpoint({"network": {}, "epoch": 1}, tmp_path / "a.pt")

    def no_space(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match=r"a\.pt could not .*No space left"):
        write_checkpoint({"network": {}, "epoch": 2}, path)
    assert read_checkpoint(path)["epoch"] == 1
    assert os.listdir(tmp_path) == ["a.pt"]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint .*best.pt"):
        load_weights(network(), tmp_path / "best.pt")
