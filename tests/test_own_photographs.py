"""The user's way: from a folder of photographs to names, and on, mostly in the shell.

What must hold in a process of its own (a fresh one that loads, the README's commands)
is run in one; the rest goes the same way inside this process, which is faster.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from own_photographs import CLASSES, make_photographs, photograph
from PIL import Image

from nbs_utils.cli import main as cli
from nbs_utils.parity import reference_network

ROOT = Path(__file__).parents[1]
QUICK = ("--model", "cifar_resnet20", "--image-size", "32", "--epochs", "3")
SKIP = ("--on-bad-image", "skip")


def in_a_process(place, *words):
    """Run Python in a process of its own; return its output and its errors."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def commands_of_the_readme() -> list[list[str]]:
    """Return the words of the README's five commands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Your own photographs")[1]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]
    lines = [line.partition("#")[0].split() for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["nbs"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs, a run trained on them by the README's first command, and others."""
    root = tmp_path_factory.mktemp("place")
    make_photographs(root / "photos")
    photograph(CLASSES["tree"], 99).save(root / "photo.jpg")
    first = commands_of_the_readme()[0]
    out, err = in_a_process(root, "-m", "nbs_utils", *first, *QUICK, *SKIP)
    (root / "said.txt").write_text(out + err)
    shutil.copytree(root / "photos", root / "others")
    return root


@pytest.fixture(scope="module")
def moved(place, tmp_path_factory):
    """The run alone, where there are no photographs of its training."""
    root = tmp_path_factory.mktemp("moved")
    shutil.copytree(place / "runs" / "mine", root / "run")
    shutil.copy(place / "photo.jpg", root / "photo.jpg")
    return root


@pytest.fixture
def nbs(capsys, monkeypatch, tmp_path):
    """Run `nbs` in a folder, in this process: return its status, output and errors."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(place, *argv) -> tuple[int, str, str]:
        monkeypatch.chdir(place)
        status = cli.main([str(word) for word in argv])
        done = capsys.readouterr()
        return status, done.out, done.err

    return run


# ---- In processes of their own


def test_the_five_commands_of_the_readme_lead_from_a_folder_to_a_prediction(place, nbs):
    commands = commands_of_the_readme()
    assert [words[0] for words in commands] == [
        *("train", "report", "predict", "evaluate", "export-model")
    ]
    said = (place / "said.txt").read_text()
    count = re.search(r"on photos: (\d+) training", said)[1]
    assert f"{count} training images are few: the recipe 'small' takes batches" in said
    assert "broken.jpg" in said  # left out, and named
    assert "1 .txt" in said
    assert "Report: runs/mine/report.html" in said
    assert "UserWarning" not in said
    out, _ = in_a_process(place, "-m", "nbs_utils", *commands[2])
    assert "photo.jpg" in out
    assert all(name in out for name in CLASSES)
    for words in (commands[1], commands[3], commands[4]):
        status, out, err = nbs(place, *words)
        assert status == 0, err
        if words[0] == "evaluate":
            assert "on 39 images" in out  # of 40: not the broken one
            assert "Left out: The image others/my cat/broken.jpg cannot be read" in out
        if words[0] == "export-model":
            assert "logits differ from the network's by at most" in out


def test_python_in_a_fresh_process_says_what_the_shell_says(moved, nbs):
    out, _ = in_a_process(
        moved,
        "-c",
        "import json, nbs_utils as nbs\n"
        "found = nbs.predict(nbs.load('run'), 'photo.jpg')\n"
        "print(json.dumps(found.top(2)[0]))",
    )
    status, shell, _ = nbs(moved, "predict", "run", "photo.jpg", "--json", "--top", "2")
    assert status == 0
    (row,) = json.loads(shell)
    assert row["file"] == "photo.jpg"
    assert json.loads(out) == [[c["name"], c["probability"]] for c in row["classes"]]
    assert {c["name"] for c in row["classes"]} <= set(CLASSES)


# ---- What a run's folder holds


def test_a_run_is_used_where_its_photographs_are_not(moved, nbs, tmp_path):
    status, _, err = nbs(moved, "evaluate", "run")
    assert status == 2
    assert "are not in photos any more. Name others with --data" in err
    shutil.copy(moved / "run" / "best.pt", tmp_path / "best.pt")  # alone
    status, out, _ = nbs(tmp_path, "predict", "best.pt", moved / "photo.jpg")
    assert (status, "photo.jpg" in out) == (0, True)


def test_the_folder_shows_what_happened(place):
    run = place / "runs" / "mine"
    for name in ("curve.svg", "confusion.svg", "report.html", "per_class.csv"):
        assert (run / name).stat().st_size > 80, name
    with open(run / "mistakes.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert (place / row["file"]).is_file()
            assert Path(row["file"]).parts[1] == row["truth"] != row["guess"]
    said = json.loads((run / "description.json").read_text(encoding="utf-8"))
    assert said["classes"] == sorted(CLASSES)
    assert (said["model"], said["image_size"]) == ("cifar_resnet20", 32)
    of_all = [
        torch.load(run / name, weights_only=True)["description"]
        for name in ("best.pt", "last.pt", "final.pt")
    ]
    assert of_all == [said] * 3


def test_evaluation_of_its_own_folder_repeats_the_test(place, nbs):
    status, out, _ = nbs(place, "evaluate", "runs/mine")
    assert status == 0
    said = (place / "said.txt").read_text()
    assert out.split("(")[0] in said  # the scores, not the speed
    status, _, err = nbs(place, "evaluate", "runs/mine", "--upright")
    assert (status, "are turned upright in training" in err) == (2, True)


# ---- Classes by name


def test_a_renamed_class_is_no_silent_nonsense(place, nbs, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    shutil.copytree(place / "runs", tmp_path / "runs")
    (tmp_path / "photos" / "my cat").rename(tmp_path / "photos" / "zebra")
    status, _, err = nbs(tmp_path, "evaluate", "runs/mine")
    assert status == 2
    assert "'zebra', which the network was not trained on" in err
    assert "It lacks 'my cat': was a folder renamed?" in err
    status, _, err = nbs(tmp_path, *commands_of_the_readme()[0], *QUICK, *SKIP)
    assert status == 2
    assert "'my cat' is not there now and 'zebra' is new" in err
    assert "give --fresh to start again" in err
    assert "resume=False" not in err


def test_a_folder_with_some_of_the_classes_is_scored_on_those(
    moved, place, nbs, tmp_path
):
    for name in ("tree", "Fußball"):
        shutil.copytree(place / "photos" / name, tmp_path / "two" / name)
    two = f"imagefolder:{tmp_path / 'two'}"
    status, out, _ = nbs(moved, "evaluate", "run", "--data", two)
    assert status == 0
    assert "on 22 images" in out
    assert "over the split's 2 classes; over all 3 of the network" in out
    assert "there are no photographs of 'my cat'" in out


def test_bad_files_are_named_and_the_others_predicted(moved, place, nbs):
    argv = ("predict", "run", place / "photos", "nothing.jpg", "none/*.jpg")
    status, out, err = nbs(moved, *argv)
    assert status == 1
    assert "broken.jpg cannot be read" in err
    assert "There is no file nothing.jpg" in err
    assert "no file matches none/*.jpg" in err
    assert len(out.splitlines()) == 1 + 39  # not notes.txt, .DS_Store, broken.jpg
    status, _, err = nbs(moved, "predict", "run")
    assert (status, "No photograph was named" in err) == (2, True)


# ---- Errors in the shell's words, and options that Python has too


def test_what_python_can_the_shell_can(place, nbs, tmp_path):
    words = ("train", "--data", place / "photos", *QUICK, "--folder", tmp_path / "run")
    status, _, err = nbs(place, *words)
    assert status == 2
    assert "broken.jpg cannot be read" in err
    assert "--on-bad-image skip" in err
    gray = ("--channels", "1", "--val-size", "5", "--set", "class_weights=balanced")
    status, _, err = nbs(place, *words, *SKIP, *gray, "--epochs", "1")
    assert status == 0, err
    assert " 5 validation and 4 test images of 1x32x32" in err
    photo = place / "photo.jpg"
    status, *_ = nbs(place, "predict", tmp_path / "run", photo)
    assert status == 0
    status, _, err = nbs(
        place, "predict", tmp_path / "run", photo, "--device", "cuda:9"
    )
    assert (status, "--device (or NBS_DEVICE) is 'cuda:9'" in err) == (2, True)
    status, _, err = nbs(place, *words, *SKIP, "--set", "epochs=2")
    assert (status, "say the same; give one" in err) == (2, True)


def test_folds_test_each_photograph_once(place, nbs, tmp_path):
    words = ("train", "--data", place / "photos", *QUICK, *SKIP, "--epochs", "1")
    status, out, err = nbs(place, *words, "--folds", "2", "--folder", tmp_path / "run")
    assert status == 0, err
    assert "Over 2 folds, each of 39 photographs tested once: top-1" in out
    assert "95 % interval" in out
    assert (tmp_path / "run" / "fold-2" / "last.pt").is_file()


def test_a_file_of_ones_own_is_scored_with_what_it_knows(place, nbs, tmp_path):
    weights = torch.load(place / "runs/mine/final.pt", weights_only=True)["network"]
    torch.save(weights, tmp_path / "mine.pth")
    shutil.copytree(place / "photos" / "tree", tmp_path / "two" / "tree")
    shutil.copytree(place / "photos" / "Fußball", tmp_path / "two" / "Fußball")
    words = ("evaluate", "--model", "cifar_resnet20", "--image-size", "32")
    words += ("--weights", tmp_path / "mine.pth", "--data")
    status, _, err = nbs(place, *words, tmp_path / "two")
    assert status == 2
    assert "has 3 outputs and" in err
    assert "has 2 classes" in err
    (place / "others" / "my cat" / "broken.jpg").unlink(missing_ok=True)
    status, out, err = nbs(place, *words, "others")
    assert status == 0, err
    assert "names no classes and no statistics" in out
    status, out, err = nbs(
        place, *words[:5], "--weights", "runs/mine/final.pt", "--data", "others"
    )
    assert status == 0, err
    assert "on 39 images" in out


def test_a_published_network_names_what_is_on_a_photograph(place, nbs, tmp_path):
    from torchvision.models import ResNet18_Weights

    source = reference_network("resnet18")
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    words = ("predict", "--model", "resnet18", "--weights", tmp_path / "weights.pth")
    photo = place / "photos" / "my cat" / "trip" / "large.png"
    status, out, err = nbs(place, *words, photo, "--json", "--top", "3")
    assert status == 0, err
    preset = ResNet18_Weights.IMAGENET1K_V1
    x = preset.transforms()(Image.open(photo).convert("RGB"))
    with torch.no_grad():
        wanted = source(x[None]).softmax(1).max(1)
    first = json.loads(out)[0]["classes"][0]
    assert first["name"] == preset.meta["categories"][wanted.indices[0]]
    assert first["probability"] == pytest.approx(float(wanted.values[0]), rel=0.05)
    status, _, err = nbs(place, "predict", "--model", "resnet18", photo)
    assert (status, "--weights is missing" in err) == (2, True)
