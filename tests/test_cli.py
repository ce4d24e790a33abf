"""`nbs`: what it prints, what it keeps, and what it says to input it cannot use."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from a_chapter import make_book
from torch import nn

from nbs_utils.cli import commands
from nbs_utils.cli import main as cli
from nbs_utils.data import DataNotFound
from nbs_utils.zoo import register, registry


class Small(nn.Module):
    """A network of a few weights, with the arguments that `nbs` looks for."""

    def __init__(self, num_classes=1000, stem="imagenet", in_channels=3):
        super().__init__()
        stride = 4 if stem == "imagenet" else 2
        self.conv = nn.Conv2d(in_channels, 4, 3, stride=stride)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


class Fixed(nn.Module):
    """A network that takes color images of 64 px and no others."""

    def __init__(self, num_classes=1000):
        super().__init__()
        self.head = nn.Linear(3 * 64 * 64, num_classes)

    def forward(self, x):
        return self.head(x.flatten(1))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder to work in, and two small networks in the zoo."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    register(Small, {"small": {}, "small_b": {"stem": "cifar"}})
    register(Fixed, {"fixed": {}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nbs(capsys):
    """Run `nbs` in this process: return its status, output and errors."""

    def run(*argv: str) -> tuple[int, str, str]:
        status = cli.main(list(argv))
        done = capsys.readouterr()
        return status, done.out, done.err

    return run


TRAIN = ("train", "--model", "small", "--data", "digits", "--limit", "60")
SHORT = (*TRAIN, "--set", "epochs=2", "--batch-size", "20", "--folder", "run")


# ---- Looking


def test_list_matches_a_pattern_and_says_where_a_network_stands(nbs):
    status, out, _ = nbs("list", "small*")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["small", "small_b"]
    assert nbs("list")[1].count("\n") == len(registry._MODELS)


def test_summary_counts_a_network_stage_by_stage(nbs):
    status, out, _ = nbs("summary", "resnet18")
    assert status == 0
    assert out.startswith("resnet18, 3 x 224 x 224 px")
    assert "11,689,512" in out  # torchvision's count
    assert "1,814,073,344" in out
    assert "11.69 M parameters, 1.814 G multiply-adds" in out


def test_summary_takes_a_network_at_its_native_size_or_the_one_asked_for(nbs):
    assert "3 x 32 x 32 px" in nbs("summary", "small_b")[1]
    assert "3 x 96 x 96 px" in nbs("summary", "small_b", "--image-size", "96")[1]
    out = nbs("summary", "small", "--num-classes", "7", "--model-set", "stem=cifar")[1]
    assert "3 x 32 x 32 px" in out
    # conv 3*4*9 + 4, norm 2*4, head 4*7 + 7
    assert f"{(112 + 8 + 35) / 1e6:.2f} M parameters" in out
    assert " 155 " in out


# ---- Training


def test_train_leaves_a_folder_from_which_evaluate_gives_the_same_scores(nbs, place):
    status, out, err = nbs(*SHORT)
    assert status == 0
    assert "gets its stem for small images (32 px)" in err
    card = json.loads((place / "run" / "card.json").read_text())
    assert (card["name"], card["epochs"], card["data"]["train"]) == ("small", 2, 60)
    assert f"top-1 {100 * card['test']['top1']:.1f} %" in out
    weights = torch.load(place / "run" / "final.pt", weights_only=True)["network"]
    assert weights["conv.weight"].shape == (4, 1, 3, 3)  # gray images, gray network

    status, again, err = nbs("evaluate", "--checkpoint", "run")
    assert status == 0
    assert "final.pt on 60 test images" in err
    assert again.split("(")[0] == out.removeprefix("Test: ").split("(")[0]
    status, val, _ = nbs("evaluate", "--checkpoint", "run/last.pt", "--split", "val")
    assert status == 0
    assert "validation images" in val
    words = ("evaluate", "--checkpoint", "run", "--protocol", "ten_crop")
    status, crops, _ = nbs(*words, "--limit", "20")
    assert status == 0
    assert "on 20 test images" in crops
    assert ", ten_crop)" in crops


def test_a_finished_run_is_not_trained_again_but_fresh_begins_anew(nbs, place):
    nbs(*SHORT)
    before = (place / "run" / "final.pt").read_bytes()
    status, _, err = nbs(*SHORT)
    assert status == 0
    assert "finished: nothing to train" in err
    assert "epoch 1/2" not in err
    assert (place / "run" / "final.pt").read_bytes() == before
    assert "epoch 1/2" in nbs(*SHORT, "--fresh")[2]


def test_settings_reach_the_recipe(nbs, place):
    nbs(*SHORT, "--recipe", "cifar", "--set", "lr=1e-3", "--set", "nesterov=true")
    card = json.loads((place / "run" / "card.json").read_text())
    recipe = card["recipe"]
    assert (recipe["lr"], recipe["nesterov"], recipe["epochs"]) == (0.001, True, 2)
    assert recipe["patience"] < 10  # stretched with the epochs, 200 to 2


def test_the_default_folder_tells_runs_apart(nbs, place):
    nbs(*TRAIN, "--set", "epochs=1")
    nbs(*TRAIN, "--set", "epochs=1", "--seed", "3", "--image-size", "16")
    assert sorted(path.name for path in (place / "runs").iterdir()) == [
        "small-digits-short-epochs=1-16px-limit60-seed3",
        "small-digits-short-epochs=1-limit60",
    ]


def test_the_augmentation_is_chosen_by_name_and_noted(nbs, place):
    nbs(*TRAIN, "--set", "epochs=1", "--augment", "trivialaugment")
    folder = place / "runs" / "small-digits-short-epochs=1-limit60-trivialaugment"
    card = json.loads((folder / "card.json").read_text())
    assert card["data"]["augment"] == "trivialaugment"


def test_the_seed_decides_the_first_weights(nbs, place):
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        nbs(*TRAIN, "--set", "epochs=1", "--seed", seed, "--folder", folder)
    a, b, c = (
        torch.load(place / name / "final.pt", weights_only=True)["network"]
        for name in "abc"
    )
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])


def test_a_network_for_color_gets_gray_images_in_color(nbs, place):
    status, *_ = nbs(
        *("train", "--model", "fixed", "--data", "digits", "--image-size", "64"),
        *("--limit", "40", "--set", "epochs=1", "--folder", "run"),
    )
    assert status == 0
    assert (
        json.loads((place / "run" / "card.json").read_text())["data"]["channels"] == 3
    )


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_weights(nbs, place):
    settings = (
        *("train", "--model", "cifar_resnet20", "--data", "digits", "--limit", "24"),
        *("--image-size", "8", "--batch-size", "8", "--set", "epochs=9"),
        *("--checkpoint-every", "2"),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "nbs_utils", *settings, "--folder", "killed"],
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("epoch 2/9"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.stderr.close()
    assert not (place / "killed" / "final.pt").exists()

    status, _, err = nbs(*settings, "--folder", "killed")
    assert status == 0
    assert "killed: going on after" in err
    assert "epoch 1/9" not in err
    assert nbs(*settings, "--folder", "whole")[0] == 0
    killed, whole = (
        torch.load(place / name / "final.pt", weights_only=True)["network"]
        for name in ("killed", "whole")
    )
    for name, tensor in whole.items():
        assert torch.equal(killed[name], tensor), name


def test_the_stop_button_says_how_to_go_on(nbs, monkeypatch):
    def stopped(*_, **__):
        return type("Run", (), {"status": "interrupted"})

    monkeypatch.setattr("nbs_utils.training.loop.fit", stopped)
    status, _, err = nbs(*SHORT)
    assert status == 130
    assert "The same command goes on from here." in err


# ---- Input that cannot be used

BAD = {
    "model": ((*TRAIN, "--model", "smal"), "No network is called 'smal'. Did you mean"),
    "data": ((*TRAIN, "--data", "digit"), "digits"),
    "no folder": ((*TRAIN, "--data", "imagefolder:nowhere"), "nowhere"),
    "recipe": ((*TRAIN, "--recipe", "shrot"), "There is no recipe 'shrot'"),
    "pair": ((*TRAIN, "--set", "lr"), "--set lr is no pair; write it as KEY=VALUE"),
    "value": ((*TRAIN, "--set", "lr=[1"), "neither a number, a word nor a list"),
    "key": ((*TRAIN, "--set", "lrr=1"), "no key 'lrr'"),
    "augment": ((*TRAIN, "--augment", "crop-flop"), "there are none, flip, crop-flip"),
    "range": ((*TRAIN, "--set", "momentum=2"), "momentum is 2"),
    "epochs": ((*TRAIN, "--set", "epochs=0"), "epochs is 0"),
    "epochs word": ((*TRAIN, "--set", "epochs=many"), "epochs is 'many'"),
    "argument": ((*TRAIN, "--model-set", "width=3"), "no argument 'width'"),
    "batch size": ((*TRAIN, "--batch-size", "-1"), "--batch-size is -1"),
    "no batch": ((*TRAIN, "--batch-size", "0"), "--batch-size is 0"),
    "image size": ((*TRAIN, "--image-size", "0"), "--image-size is 0"),
    "summary size": (("summary", "small", "--image-size", "0"), "--image-size is 0"),
    "wrong size": (("summary", "fixed", "--image-size", "32"), "try --image-size 64"),
    "wrong data": ((*TRAIN, "--model", "fixed"), "cannot take images of 32 x 32 px"),
    "classes": (("summary", "small", "--num-classes", "0"), "num_classes is 0"),
    "list": (("list", "smal"), "Did you mean small"),
    "checkpoint": (("evaluate", "--checkpoint", "."), "There is no checkpoint in ."),
    "no checkpoint": (
        ("evaluate", "--checkpoint", "runs/nowhere"),
        "There is nothing at runs/nowhere; give the folder of a run (nbs train said",
    ),
    "empty folder": (
        (*("evaluate", "--checkpoint", "."), "--model", "small", "--data", "digits"),
        "There is no checkpoint in .",
    ),
    "chapter": (("record", "residual/none"), "No chapter is called 'residual/none'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(nbs, case):
    argv, said = BAD[case]
    status, out, err = nbs(*argv)
    assert status == 2
    assert said in err
    assert err.startswith(f"nbs {argv[0]}: ")
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    "argv", [("trian",), ("train",), ("train", "--seed", "x"), ("new",), ()]
)
def test_words_that_make_no_command_show_the_usage(nbs, capsys, argv):
    with pytest.raises(SystemExit) as caught:
        nbs(*argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: nbs")


def test_checkpoints_that_are_damaged_or_of_another_network_are_refused(nbs, place):
    nbs(*SHORT)
    whole = (place / "run" / "final.pt").read_bytes()
    (place / "run" / "final.pt").write_bytes(whole[: len(whole) // 2])
    status, _, err = nbs("evaluate", "--checkpoint", "run")
    assert (status, "cut off" in err) == (2, True)
    status, _, err = nbs("evaluate", "--checkpoint", "run/last.pt", "--model", "fixed")
    assert (status, "64" in err) == (2, True)  # the images are of 32 px
    status, _, err = nbs(
        "evaluate", "--checkpoint", "run/last.pt", "--model", "cifar_resnet20"
    )
    assert (status, "of another network" in err) == (2, True)
    (place / "run" / "request.json").write_text("{")
    status, _, err = nbs("evaluate", "--checkpoint", "run")
    assert (status, "request.json is damaged" in err) == (2, True)


@pytest.fixture
def asked(monkeypatch):
    """Note which shards would be read, in the place of reading them."""
    patterns = []

    def note(pattern, _):
        patterns.append(pattern)
        raise DataNotFound("None are read in this test.")

    monkeypatch.setattr("nbs_utils.data.shards.unpack_shards", note)
    return patterns


@pytest.mark.parametrize(
    "shards",
    [
        "pipe:touch escaped",
        "a.tar | pipe:touch escaped",
        "https://host/a.tar'; touch escaped; '",
        "list.yaml",
        "-",
    ],
)
def test_a_foreign_run_executes_nothing(nbs, place, asked, shards):
    """Its request is replayed, but shards out of a shell only if they are typed."""
    folder = place / "foreign"
    folder.mkdir()
    torch.save({"network": {}}, folder / "final.pt")
    request = {"model": "small", "data": f"webdataset:{shards}"}
    (folder / "request.json").write_text(json.dumps(request))
    status, out, err = nbs("evaluate", "--checkpoint", "foreign")
    assert (status, out) == (2, "")
    assert "if you trust it, name it yourself with --data." in err
    assert asked == []

    nbs("evaluate", "--checkpoint", "foreign", "--data", request["data"])
    assert asked == [shards]


def test_a_run_on_shards_of_this_machine_is_replayed(nbs, place, asked):
    (place / "request.json").write_text(
        json.dumps({"model": "small", "data": "webdataset:a-{0..2}.tar | b.tgz"})
    )
    torch.save({"network": {}}, place / "final.pt")
    nbs("evaluate", "--checkpoint", ".")
    assert asked == ["a-{0..2}.tar | b.tgz"]


def test_a_folder_keeps_the_run_that_it_holds(nbs, place):
    nbs(*SHORT)
    before = (place / "run" / "last.pt").read_bytes()
    status, _, err = nbs(*SHORT, "--model", "small_b")
    assert (status, "holds a run with model 'small'" in err) == (2, True)
    status, _, err = nbs(*SHORT, "--set", "lr=0.5")
    assert (status, "lr is 0.1 there and 0.5 here" in err) == (2, True)
    assert (place / "run" / "last.pt").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_named(nbs, place):
    (place / "file").write_text("")
    status, _, err = nbs(*SHORT, "--folder", "file/run")
    assert status == 2
    assert "file/run" in err
    assert "Traceback" not in err


def test_an_unreadable_image_is_named(nbs, place):
    for name in ("a", "b"):
        (place / "images" / name).mkdir(parents=True)
        (place / "images" / name / "x.png").write_bytes(b"not an image")
    status, _, err = nbs(*TRAIN, "--data", "imagefolder:images")
    assert status == 2
    assert "x.png" in err


def test_a_fault_of_the_program_is_not_hidden(nbs, monkeypatch):
    def fault(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(commands, "prepare", fault)
    with pytest.raises(KeyError):
        nbs(*SHORT)


# ---- Chapters


def test_export_and_check_speak_through_their_status(nbs, place):
    make_book(place)
    assert nbs("export", "--check") == (1, "The zoo differs from old/tiny.\n", "")
    assert nbs("export") == (0, "Exported old/tiny.\n", "")
    assert nbs("export", "--check")[0] == 0
    status, out, _ = nbs("check")
    assert (status, out.endswith(": 0 to repair.\n")) == (0, True)
    (place / "book" / "references.bib").write_text("")
    status, out, _ = nbs("check", "tiny")
    assert status == 1
    assert "'author2020tiny' is not in book/references.bib" in out


def test_output_that_nobody_reads_any_more_is_no_error(place):
    make_book(place)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "nbs_utils", "export", "--check"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
