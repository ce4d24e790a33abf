"""Several processes: the same weights, the same counts, and faults that end well."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import distributed_worker
import pytest
import torch
from torch import nn
from toy_data import same

import nbs_utils as nbs
from nbs_utils import distributed, zoo
from nbs_utils.distributed import DistributedError, World, joined
from nbs_utils.syncnorm import SyncBatchNorm, synchronize_batch_norm
from nbs_utils.training.checkpoints import read_checkpoint

HERE = Path(__file__).parent
ROUNDING = dict(rtol=2e-5, atol=2e-6)  # float32, after 12 steps


def torchrun(*words, seconds: int = 300) -> subprocess.CompletedProcess:
    """Run a script in two processes; a hang is a failure, not a wait."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "OMP_NUM_THREADS": "1",
        "NBS_DEVICE": "cpu",
        "NBS_JOIN_TIMEOUT": "60",
        "NBS_TIMEOUT": "20",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", *map(str, words)]
    return subprocess.run(
        command,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@pytest.fixture(scope="module")
def one() -> dict:
    """What one process finds."""
    threads = torch.get_num_threads()
    yield distributed_worker.work(Path())
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> dict:
    """What two processes find, from one launch."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(HERE / "distributed_worker.py", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "results.pt", weights_only=False)


def assert_close(found: dict, wanted: dict, **tolerance) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, **tolerance, msg=name)


# ---- Exactness


@pytest.mark.parametrize("what", ["gradients", "gradients, sync", "gradients, parts"])
def test_half_batches_in_two_processes_give_the_gradients_of_the_whole(one, two, what):
    # in float64, where nothing but the order of sums can differ
    assert_close(two[what][0], one[what][0], rtol=1e-11, atol=1e-14)


def test_synchronous_batch_norm_remembers_what_the_whole_batch_shows(one, two):
    found, wanted = two["gradients, sync"][1], one["gradients, sync"][1]
    assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    assert found["1.num_batches_tracked"] == 1


def test_parts_of_a_batch_are_summed_once(two):
    parameters = sum(p.numel() for p in distributed_worker.small_network().parameters())
    norms = 2 * (8 + 16)
    assert two["gradients"][2] == two["gradients, parts"][2] == parameters - norms


@pytest.mark.parametrize("what", ["trained", "trained, sync", "trained, parts"])
def test_training_in_two_processes_ends_at_the_weights_of_one(one, two, what):
    assert_close(two[what]["weights"], one[what]["weights"], **ROUNDING)


def test_auxiliary_heads_and_unused_weights_train_in_two_processes_as_in_one(one, two):
    assert_close(two["two heads"], one["two heads"], **ROUNDING)


@pytest.mark.parametrize("what", ["trained", "trained, sync"])
def test_the_history_counts_the_images_of_all_processes(one, two, what):
    for column in ("train_top1", "val_top1", "val_top5", "lr", "epoch"):
        assert two[what]["history"][column] == one[what]["history"][column]
    for column in ("train_loss", "val_loss"):
        assert two[what]["history"][column] == pytest.approx(
            one[what]["history"][column], rel=1e-5
        )


def test_all_processes_end_with_the_same_weights(two):
    for weights in (two["all"], two["plain"]):
        first, second = weights
        assert all(torch.equal(first[k], second[k]) for k in first)


def test_evaluation_in_two_processes_counts_what_one_counts(one, two):
    confusion, correct5, n, loss = two["scored"]
    assert [confusion, correct5, n] == one["scored"][:3]
    assert n == len(distributed_worker.digits().test) == sum(map(sum, confusion))
    assert n % 20  # the last batch is short, and one process has a batch more
    assert loss == pytest.approx(one["scored"][3], rel=1e-6)


# ---- Shares of the data


@pytest.mark.parametrize("augment", ["crop-flip", "strong"])
def test_shares_together_are_the_batches_of_one_process(augment):
    data = nbs.load_data("digits", augment=augment, limit=130, device="cpu")
    whole = list(data.train.batches(48, epoch=3, start=1))
    parts = [
        list(World(rank, 3).share(data.train).batches(48, epoch=3, start=1))
        for rank in range(3)
    ]
    assert len(whole) == 1
    for step, (x, y) in enumerate(whole):
        assert [len(part[step][1]) for part in parts] == [16, 16, 16]
        assert torch.equal(torch.cat([part[step][0] for part in parts]), x)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), y)


def test_a_resized_crop_does_not_depend_on_the_number_of_processes(photographs):
    data = nbs.load_data(
        f"imagefolder:{photographs}",
        image_size=96,
        augment="strong",
        memory_budget=0,  # streamed from the files
        workers=0,
        device="cpu",
    )
    assert data.where == "streamed"
    ((x, y),) = data.train.batches(8, epoch=0)
    parts = [next(World(r, 2).share(data.train).batches(8, epoch=0)) for r in (0, 1)]
    assert torch.equal(torch.cat([part[0] for part in parts]), x)
    assert torch.equal(torch.cat([part[1] for part in parts]), y)


def test_no_image_is_lost_or_scored_twice():
    split = nbs.load_data("digits", limit=101, device="cpu").test
    for size in (2, 3, 16):
        labels = [
            y for r in range(size) for _, y in World(r, size).share(split).batches(10)
        ]
        assert sorted(torch.cat(labels).tolist()) == sorted(split.labels.tolist())


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Twenty small photographs of noise in two classes."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 8), ("val", 2)):
        for name in ("a", "b"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (130, 120, 3), generator=generator)
                Image.fromarray(pixels.byte().numpy()).save(folder / f"{i}.jpg")
    return tmp_path / "photos"


def test_unreadable_images_cannot_be_skipped_by_one_process_alone(photographs):
    options = dict(memory_budget=0, workers=0, device="cpu", image_size=96)
    data = nbs.load_data(f"imagefolder:{photographs}", on_bad_image="skip", **options)
    assert World().share(data.train) is data.train
    with pytest.raises(ValueError, match="equal shares"):
        World(0, 2).share(data.train)


def test_a_batch_that_cannot_be_shared_equally_is_refused(two):
    assert two["indivisible"] == (
        "A batch of 9 images cannot be divided into equal shares for 2 processes. "
        "batch_size counts the images of all processes together: take 8 or 10."
    )


# ---- The recipe


def test_the_linear_scaling_rule():
    recipe = nbs.Recipe(lr=0.1, epochs=90, schedule="cosine", lr_batch_size=256)
    large = recipe.scaled_to(8192)
    assert large.lr == pytest.approx(3.2)  # Goyal et al., 2017, section 5.1
    assert large.warmup_epochs == 5
    assert recipe.scaled_to(64).lr == pytest.approx(0.025)
    assert recipe.scaled_to(64).warmup_epochs == 0
    assert recipe.replace(warmup_epochs=2).scaled_to(512).warmup_epochs == 2
    assert recipe.replace(epochs=3).scaled_to(512).warmup_epochs == 3
    plain = nbs.Recipe()
    assert plain.scaled_to(8192) is plain
    assert large.scaled_to(512) is large  # not twice


def test_batch_norm_keeps_names_weights_and_statistics_when_it_is_synchronized():
    network = zoo.create_model("cifar_resnet20", num_classes=10)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    parameters = list(network.parameters())
    synchronize_batch_norm(network, torch.device("cpu"))
    kinds = [type(m) for m in network.modules()]
    assert nn.BatchNorm2d not in kinds and kinds.count(SyncBatchNorm) == 19
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)


# ---- Faults


def test_a_killed_process_is_replaced_and_the_weights_are_those_of_a_whole_run(
    tmp_path,
):
    done = torchrun("--max-restarts", 1, HERE / "killed_worker.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "exitcode: -9" in done.stderr  # SIGKILL
    # killed in step 4 of epoch 2, and going on from the checkpoint after step 2
    assert "going on after 1 of 2 epochs and 2 of 5 steps" in done.stderr
    for name in ("final.pt", "last.pt", "best.pt"):
        whole, killed = (
            read_checkpoint(tmp_path / run / name)["network"]
            for run in ("whole", "killed")
        )
        assert all(torch.equal(whole[k], killed[k]) for k in whole), name
    cards = [
        json.loads((tmp_path / run / "card.json").read_text())
        for run in ("whole", "killed")
    ]
    assert cards[0]["test"]["top1"] == cards[1]["test"]["top1"]


@pytest.fixture
def launched(monkeypatch) -> int:
    """Pretend to be process 0 of 2; return a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 2,
        "LOCAL_RANK": 0,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "NBS_JOIN_TIMEOUT": 1,
        "NBS_DEVICE": "cpu",
    }.items():
        monkeypatch.setenv(name, str(value))
    return port


def test_a_process_that_does_not_come_is_waited_for_and_then_named(launched):
    with pytest.raises(DistributedError, match=f"127.0.0.1:{launched}.*1 s"), joined():
        pass


def test_a_port_in_use_is_said(launched):
    with socket.socket() as other:
        other.bind(("127.0.0.1", launched))
        other.listen()
        said = f":{launched} is in use.*--standalone"
        with pytest.raises(DistributedError, match=said), joined():
            pass


def test_more_processes_than_gpus_is_said(monkeypatch, launched):
    monkeypatch.setenv("NBS_DEVICE", "cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    said = "has 2 GPUs.*--nproc-per-node 2"
    with pytest.raises(DistributedError, match=said), joined():
        pass


def test_a_folder_on_a_disk_that_one_process_does_not_see_is_refused_by_all(two):
    first, second = two["hidden"]
    assert first == second
    assert "not seen by all: not by" in first and "share" in first


def test_a_lost_process_is_told_from_other_errors(monkeypatch):
    monkeypatch.setattr(distributed, "is_launched", lambda: True)
    monkeypatch.setattr(distributed, "_join", lambda: None)
    said = "lost another one.*--max-restarts"
    with pytest.raises(DistributedError, match=said), joined():
        raise RuntimeError("[pair.cc] Connection closed by peer [127.0.0.1]:1")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), joined():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_one_process_is_left_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined() as me:
        assert me == World()
        assert me.gather("x") == ["x"]
        network = distributed_worker.small_network()
        assert distributed.in_parallel(network, torch.device("cpu")) is network
        assert same(network, distributed_worker.small_network())
