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
from own_photographs import (
    CLASSES,
    DAMAGED,
    LONE,
    make_photographs,
    photograph,
    readable,
)
from PIL import Image

import nbs_utils
from nbs_utils.cli import main as cli
from nbs_utils.parity import reference_network
from nbs_utils.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
QUICK = ("--model", "cifar_resnet20", "--image-size", "32", "--epochs", "3")
SKIP = ("--on-bad-image", "skip")
NAMES = sorted([*CLASSES, LONE])


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


def without_speed(scores: str) -> str:
    """Return what `nbs evaluate` printed, except how fast it was."""
    return re.sub(r"\([\d,.]+ images/s", "(", scores)


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
    (root / "photos" / LONE).mkdir()
    photograph("parachute", 0).save(root / "photos" / LONE / "1.jpg")
    photograph("church", 99).save(root / "photo.jpg")
    first = commands_of_the_readme()[0]
    out, err = in_a_process(root, "-m", "nbs_utils", *first, *QUICK, *SKIP)
    (root / "said.txt").write_text(out + err)
    shutil.copytree(root / "photos", root / "others")
    return root


@pytest.fixture(scope="module")
def moved(place, tmp_path_factory):
    """The run alone and others, where there are no photographs of its training."""
    root = tmp_path_factory.mktemp("moved")
    shutil.copytree(place / "runs" / "mine", root / "run")
    shutil.copy(place / "photo.jpg", root / "photo.jpg")
    shutil.copytree(place / "others", root / "others")
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


def test_the_five_commands_of_the_readme_lead_from_a_folder_to_a_prediction(place):
    train, *others = commands_of_the_readme()
    assert [words[0] for words in (train, *others)] == [
        *("train", "report", "predict", "evaluate", "export-model")
    ]
    said = (place / "said.txt").read_text()
    total = len(readable(place / "photos"))
    counts = re.search(r"on photos: (\d+) tr\w+, (\d+) val\w+ and (\d+) test", said)
    assert sum(map(int, counts.groups())) == total
    assert f"{counts[1]} training images are few: the recipe 'small' takes bat" in said
    assert f"Skipped 3 of {total + 3} images that cannot be read: " in said
    assert all(f"my dog/{name}" in said for name in DAMAGED)
    assert "2 of the" in said and ": 1 .heic, 1 .txt. Convert photographs" in said
    assert "1 of 4 classes have fewer than 10 images, or none in one of the sp" in said
    assert "Report: runs/mine/report.html" in said
    assert "UserWarning" not in said
    written = [path for path in place.rglob("*nbs_cache*") if path.parent == place]
    assert not written  # nothing beside the photographs
    run = [in_a_process(place, "-m", "nbs_utils", *words) for words in others]
    (report, _), (predict, _), (evaluate, _), (export, _) = run
    assert report.strip() == "runs/mine/report.html"
    assert "photo.jpg" in predict
    assert all(name in predict for name in NAMES)
    assert f"on {total} images" in evaluate
    assert "Left out: The image others/my dog/broken.jpg cannot be read" in evaluate
    assert "The image others/my dog/empty.jpg is empty (0 bytes)" in evaluate
    assert "logits differ from the network's by at most" in export


def test_what_stops_the_first_command_is_named(place, nbs, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "soon").mkdir()
    words = (*commands_of_the_readme()[0], *QUICK)
    status, _, err = nbs(tmp_path, *words)
    assert status == 2
    assert "photos/soon has no images; add some or remove the folder" in err
    (tmp_path / "photos" / "soon").rmdir()
    status, _, err = nbs(tmp_path, *words)
    assert status == 2
    assert "my dog/broken.jpg cannot be read" in err
    assert "--on-bad-image skip" in err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_was_moved_is_scored_as_before(place, moved, nbs):
    _, here, _ = nbs(place, "evaluate", "runs/mine", "--data", "others")
    words = ("evaluate", "run", "--data", "others")
    there, _ = in_a_process(moved, "-m", "nbs_utils", *words)
    assert without_speed(there) == without_speed(here)


def test_a_run_of_python_is_used_from_the_shell(place, nbs, tmp_path):
    with pytest.warns(UserWarning):
        data = nbs_utils.load_data(
            place / "photos", image_size=32, on_bad_image="skip", val_size=6
        )
    torch.manual_seed(0)
    network = nbs_utils.create_model("cifar_resnet20", data=data, shortcut="B")
    recipe = Recipe.load("small").replace(precision="float32")
    nbs_utils.fit(
        network, data, recipe, epochs=1, folder=tmp_path / "run", progress="off"
    )
    scores = nbs_utils.evaluate(network, data.test, precision="float32")
    words = ("evaluate", "run", "--precision", "float32")
    out, _ = in_a_process(tmp_path, "-m", "nbs_utils", *words)
    assert without_speed(out) == without_speed(f"{scores}\n")
    status, _, err = nbs(tmp_path, "evaluate", "run", "--split", "val")
    assert (status, "with a val_size or seed of its own" in err) == (2, True)
    words = ("predict", "run", place / "photo.jpg", "--json", "--top", "1")
    status, out, _ = nbs(tmp_path, *words)
    assert status == 0
    ((first,),) = nbs_utils.predict(network, place / "photo.jpg").top(1)
    (found,) = json.loads(out)[0]["classes"]
    assert found["name"] == first[0]
    assert found["probability"] == pytest.approx(first[1], abs=1e-3)


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
    assert {c["name"] for c in row["classes"]} <= set(NAMES)


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
    assert said["classes"] == NAMES
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
    assert without_speed(out) in without_speed(said)
    status, out, err = nbs(place, "evaluate", "runs/mine", "--split", "val")
    assert (status, "validation images" in out) == (0, True), err
    status, _, err = nbs(place, "evaluate", "runs/mine", "--upright")
    assert (status, "are turned upright in training" in err) == (2, True)


def test_photographs_of_training_are_not_taken_for_new_ones(place, nbs, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    shutil.copytree(place / "runs", tmp_path / "runs")
    photograph("church", 77).save(tmp_path / "photos" / "church" / "added.jpg")
    for command in ("evaluate", "report"):
        status, _, err = nbs(tmp_path, command, "runs/mine")
        assert status == 2
        assert "some came, went or have another name" in err
        assert "with --data" in err
    status, _, err = nbs(tmp_path, *commands_of_the_readme()[0], *QUICK, *SKIP)
    assert status == 2
    assert "since then, some came into its folder" in err
    assert "give --fresh to start again" in err


# ---- Going on, beginning again


def test_a_longer_run_is_refused_in_the_words_of_the_shell(place, nbs, tmp_path):
    shutil.copytree(place / "runs" / "mine", tmp_path / "run")
    shutil.copytree(place / "photos", tmp_path / "photos")
    first = (*commands_of_the_readme()[0][:3], *QUICK, *SKIP, "--folder", "run")
    status, _, err = nbs(tmp_path, *first, "--epochs", "1")
    assert status == 2
    assert "recipe epochs is 3 there and 1 here" in err
    assert "give --fresh to start again" in err
    assert "resume=False" not in err
    before = (tmp_path / "run" / "final.pt").read_bytes()
    status, _, err = nbs(tmp_path, *first, "--epochs", "1", "--fresh")
    assert status == 0, err
    assert "epoch 1/1" in err
    assert (tmp_path / "run" / "previous-final.pt").read_bytes() == before
    assert (tmp_path / "run" / "final.pt").read_bytes() != before


# ---- Fine-tuning


def test_fine_tuning_from_the_shell(place, nbs, tmp_path):
    for name in ("church", "Hörner"):
        shutil.copytree(place / "photos" / name, tmp_path / "two" / name)
    words = ("train", "--data", tmp_path / "two", *QUICK, "--epochs", "1")
    words += ("--folder", tmp_path / "tuned", "--weights")
    status, _, err = nbs(place, *words, "runs/mine", "--freeze", "body")
    assert status == 0, err
    assert re.search(r"Begins from runs/mine/final.pt: \d+ tensors, the classif", err)
    assert "tensors are frozen, batch norms included" in err
    assert "images are few: the recipe 'fine-tune' takes batches of 16" in err
    before, after = (
        torch.load(folder / "final.pt", weights_only=True)
        for folder in (place / "runs" / "mine", tmp_path / "tuned")
    )
    for name, value in before["network"].items():
        if not name.startswith("fc."):
            assert torch.equal(after["network"][name], value), name
    assert after["network"]["fc.bias"].shape == (2,)
    assert after["description"]["mean"] == before["description"]["mean"]
    recipe = (tmp_path / "tuned" / "recipe.yml").read_text(encoding="utf-8")
    assert "name: fine-tune" in recipe
    status, out, _ = nbs(place, "predict", tmp_path / "tuned", "photo.jpg")
    assert (status, "Hörner" in out, "my dog" in out) == (0, True, False)
    # a state dict of one's own, with nothing frozen
    torch.save(after["network"], tmp_path / "mine.pth")
    status, _, err = nbs(place, *words, tmp_path / "mine.pth", "--fresh")
    assert status == 0, err
    assert "frozen" not in err
    moved = torch.load(tmp_path / "tuned" / "final.pt", weights_only=True)["network"]
    first = next(iter(moved))
    assert not torch.equal(moved[first], before["network"][first])
    (tmp_path / "text.pth").write_text("no weights")
    for more, said in (
        ([tmp_path / "text.pth"], "It was left as it is"),
        (["runs/mine", "--freeze", "head9"], "No layer of this"),
        ([tmp_path / "nothing.pth"], "There is no file"),
    ):
        status, _, err = nbs(place, *words, *more, "--fresh")
        assert (status, said in err) == (2, True), err


# ---- Classes by name


def test_a_renamed_class_is_no_silent_nonsense(place, nbs, tmp_path):
    shutil.copytree(place / "photos", tmp_path / "photos")
    shutil.copytree(place / "runs", tmp_path / "runs")
    (tmp_path / "photos" / "my dog").rename(tmp_path / "photos" / "zebra")
    status, _, err = nbs(tmp_path, "evaluate", "runs/mine")
    assert status == 2
    assert "'zebra', which the network was not trained on" in err
    assert "It lacks 'my dog': was a folder renamed?" in err
    status, _, err = nbs(tmp_path, *commands_of_the_readme()[0], *QUICK, *SKIP)
    assert status == 2
    assert "'my dog' is not there now and 'zebra' is new" in err
    assert "give --fresh to start again" in err
    assert "resume=False" not in err


def test_a_folder_with_some_of_the_classes_is_scored_on_those(
    moved, place, nbs, tmp_path
):
    for name in ("church", "Hörner"):
        shutil.copytree(place / "photos" / name, tmp_path / "two" / name)
    two = f"imagefolder:{tmp_path / 'two'}"
    status, out, _ = nbs(moved, "evaluate", "run", "--data", two)
    assert status == 0
    assert "on 24 images" in out
    assert "over the split's 2 classes; over all 4 of the network" in out
    assert "there are no photographs of 'my dog', 'one parachute'" in out


def test_bad_files_are_named_and_the_others_predicted(moved, place, nbs):
    argv = ("predict", "run", place / "photos", "nothing.jpg", "none/*.jpg")
    status, out, err = nbs(moved, *argv)
    assert status == 1
    assert "broken.jpg cannot be read" in err
    assert "There is no file nothing.jpg" in err
    assert "no file matches none/*.jpg" in err
    assert len(out.splitlines()) == 1 + len(readable(place / "photos"))
    status, _, err = nbs(moved, "predict", "run", place / "photos/my dog/phone.heic")
    assert status == 2
    assert "phone.heic cannot be read: .heic is not decoded here; convert it" in err
    status, _, err = nbs(moved, "predict", "run")
    assert (status, "No photograph was named" in err) == (2, True)


# ---- Errors in the shell's words, and options that Python has too


def test_what_python_can_the_shell_can(place, nbs, tmp_path):
    words = ("train", "--data", place / "photos", *QUICK)
    gray = ("--channels", "1", "--val-size", "5", "--set", "class_weights=balanced")
    status, _, err = nbs(tmp_path, *words, *SKIP, *gray, "--epochs", "1")
    assert status == 0, err
    (run,) = (tmp_path / "runs").iterdir()
    assert "-photos-small-class_weights=balanced-" in run.name
    assert re.search(r" 5 validation and \d+ test images of 1x32x32", err)
    assert "UserWarning" not in err
    photo = place / "photo.jpg"
    status, *_ = nbs(place, "predict", run, photo)
    assert status == 0
    status, _, err = nbs(place, "predict", run, photo, "--device", "cuda:9")
    assert (status, "--device (or NBS_DEVICE) is 'cuda:9'" in err) == (2, True)
    status, _, err = nbs(place, *words, *SKIP, "--set", "epochs=2")
    assert (status, "say the same; give one" in err) == (2, True)


def test_folds_test_each_photograph_once(place, nbs, tmp_path):
    words = ("train", "--data", place / "photos", *QUICK, *SKIP, "--epochs", "1")
    status, out, err = nbs(place, *words, "--folds", "2", "--folder", tmp_path / "run")
    assert status == 0, err
    total = len(readable(place / "photos"))
    assert f"Over 2 folds, each of {total} photographs tested once: top-1" in out
    assert "95 % interval" in out
    assert (tmp_path / "run" / "fold-2" / "last.pt").is_file()


def test_a_file_of_ones_own_is_scored_with_what_it_knows(place, nbs, tmp_path):
    weights = torch.load(place / "runs/mine/final.pt", weights_only=True)["network"]
    torch.save(weights, tmp_path / "mine.pth")
    shutil.copytree(place / "photos" / "church", tmp_path / "two" / "church")
    shutil.copytree(place / "photos" / "Hörner", tmp_path / "two" / "Hörner")
    words = ("evaluate", "--model", "cifar_resnet20", "--image-size", "32")
    words += ("--weights", tmp_path / "mine.pth", "--data")
    status, _, err = nbs(place, *words, tmp_path / "two")
    assert status == 2
    assert "has 4 outputs and" in err
    assert "has 2 classes" in err
    status, out, err = nbs(place, *words, place / "others")
    assert status == 0, err
    assert "Skipped" in err  # of what cannot be read
    assert "names no classes and no statistics" in out
    status, out, err = nbs(
        place, *words[:5], "--weights", "runs/mine/final.pt", "--data", "others"
    )
    assert status == 0, err
    assert f"on {len(readable(place / 'photos'))} images" in out


def test_a_published_network_names_what_is_on_a_photograph(place, nbs, tmp_path):
    from torchvision.models import ResNet18_Weights

    source = reference_network("resnet18")
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    words = ("predict", "--model", "resnet18", "--weights", tmp_path / "weights.pth")
    photo = place / "photos" / "my dog" / "trip" / "large.png"
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
