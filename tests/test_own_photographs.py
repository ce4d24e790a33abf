"""The user's way, in the shell: from a folder of photographs to names, and on."""

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

ROOT = Path(__file__).parents[1]
QUICK = ("--model", "cifar_resnet20", "--image-size", "32", "--epochs", "3")


def nbs(place, *argv, ok=True):
    """Run `nbs` in a process of its own; return its output and its errors."""
    done = subprocess.run(
        [sys.executable, "-m", "nbs_utils", *map(str, argv)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert (done.returncode == 0) == ok, done.stderr
    return done.stdout, done.stderr


def python(place, code):
    """Run Python in a process of its own; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    root = tmp_path_factory.mktemp("photos")
    make_photographs(root / "photos")
    photograph(CLASSES["tree"], 99).save(root / "photo.jpg")
    first = commands_of_the_readme()[0]
    out, err = nbs(root, *first, *QUICK, "--on-bad-image", "skip")
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


def test_the_five_commands_of_the_readme_lead_from_a_folder_to_a_prediction(place):
    first, *rest = commands_of_the_readme()
    assert [words[0] for words in (first, *rest)] == [
        *("train", "report", "predict", "evaluate", "export-model")
    ]
    said = (place / "said.txt").read_text()
    assert "33 training images are few" in said or "training images are few" in said
    assert "report.html" in said
    shown = [nbs(place, *words)[0] for words in rest if words[0] != "evaluate"]
    assert "photo.jpg" in shown[1]
    assert any(name in shown[1] for name in CLASSES)
    assert "logits differ from the network's by at most" in shown[2]
    out, _ = nbs(place, *rest[2], ok=False)  # others/ holds a truncated file
    (place / "others" / "my cat" / "broken.jpg").unlink()
    out, _ = nbs(place, *rest[2])
    assert "on 38 images" in out


def test_a_run_predicts_where_its_photographs_are_not(moved):
    out, _ = nbs(moved, "predict", "run", "photo.jpg", "--json", "--top", "2")
    (row,) = json.loads(out)
    assert row["file"] == "photo.jpg"
    assert len(row["classes"]) == 2
    assert {c["name"] for c in row["classes"]} <= set(CLASSES)
    _, err = nbs(moved, "evaluate", "run", ok=False)
    assert "are not in photos any more. Name others with --data" in err


def test_python_in_a_fresh_process_says_what_the_shell_says(moved):
    out = python(
        moved,
        "import json, nbs_utils as nbs\n"
        "found = nbs.predict(nbs.load('run'), 'photo.jpg')\n"
        "print(json.dumps(found.top(2)[0]))",
    )
    shell, _ = nbs(moved, "predict", "run", "photo.jpg", "--json", "--top", "2")
    names = [[c["name"], c["probability"]] for c in json.loads(shell)[0]["classes"]]
    assert json.loads(out) == names


def test_best_alone_is_enough(moved, tmp_path):
    shutil.copy(moved / "run" / "best.pt", tmp_path / "best.pt")
    shutil.copy(moved / "photo.jpg", tmp_path / "photo.jpg")
    out, _ = nbs(tmp_path, "predict", "best.pt", "photo.jpg")
    assert "photo.jpg" in out


def test_the_folder_shows_what_happened(place):
    run = place / "runs" / "mine"
    for name in ("curve.svg", "confusion.svg", "report.html", "description.json"):
        assert (run / name).stat().st_size > 200, name
    with open(run / "mistakes.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert (place / row["file"]).is_file()
            assert row["truth"] != row["guess"]
    said = json.loads((run / "description.json").read_text(encoding="utf-8"))
    assert said["classes"] == sorted(CLASSES)
    assert (said["model"], said["image_size"]) == ("cifar_resnet20", 32)


def test_a_renamed_class_is_no_silent_nonsense(place, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    shutil.copytree(place / "runs", tmp_path / "runs")
    (tmp_path / "photos" / "my cat").rename(tmp_path / "photos" / "zebra")
    _, err = nbs(tmp_path, "evaluate", "runs/mine", ok=False)
    assert "'zebra', which the network was not trained on" in err
    assert "It lacks 'my cat': was a folder renamed?" in err
    words = commands_of_the_readme()[0]
    bad = ("--on-bad-image", "skip")
    _, err = nbs(tmp_path, *words, *QUICK, *bad, ok=False)
    assert "'my cat' is not there now and 'zebra' is new" in err
    assert "--fresh" in err
    assert "resume=False" not in err


def test_a_folder_with_some_of_the_classes_is_scored_on_those(moved, place, tmp_path):
    for name in ("tree", "Fußball"):
        shutil.copytree(place / "photos" / name, tmp_path / "two" / name)
    out, _ = nbs(moved, "evaluate", "run", "--data", f"imagefolder:{tmp_path / 'two'}")
    assert "on 22 images" in out
    assert "over the split's 2 classes; over all 3 of the network" in out
    assert "there are no photographs of 'my cat'" in out


def test_bad_files_are_named_and_the_others_predicted(moved, place):
    out, err = nbs(moved, "predict", "run", place / "photos", "nothing.jpg", ok=False)
    assert "broken.jpg cannot be read" in err
    assert "There is no file nothing.jpg" in err
    assert out.count("photos") == 39  # 14 + 10 + 8 + 7, without notes and .DS_Store


def test_all_checkpoints_say_the_same_of_their_network(moved):
    said = [
        torch.load(moved / "run" / name, weights_only=True)["description"]
        for name in ("best.pt", "last.pt", "final.pt")
    ]
    assert said[0] == said[1] == said[2]
    assert len(said[0]["mean"]) == len(said[0]["std"]) == 3
