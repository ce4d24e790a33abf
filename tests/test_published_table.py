"""The table of published networks: a row at a time, killed and continued."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from photo_folders import flat_imagenet

from nbs_utils.cli import main as cli
from nbs_utils.parity import reference_network
from nbs_utils.scoring import published_table
from nbs_utils.scoring.published_table import ROWS, markdown, read_rows, write_table
from nbs_utils.tables import Table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in ImageNet's layout, and files of random weights."""
    root = tmp_path_factory.mktemp("table")
    flat_imagenet(root / "imagenet")
    (root / "weights").mkdir()
    for model in ("resnet18", "resnet34"):
        state = reference_network(model, vary=False).state_dict()
        torch.save(state, root / "weights" / f"{model}.pth")
    return root


def argv(place, folder):
    return [
        *("evaluate", "--all", "--data", f"imagefolder:{place / 'imagenet'}"),
        *("--models", "resnet[13][84]", "--image-size", "64"),
        *("--weights-folder", str(place / "weights"), "--folder", str(folder)),
    ]


def test_a_killed_table_goes_on_after_its_last_row(
    place, tmp_path, capsys, monkeypatch
):
    words = argv(place, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "nbs_utils", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / ROWS).exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (first,) = read_rows(tmp_path)
    assert first["model"] == "resnet18"
    with (tmp_path / ROWS).open("a") as file:  # what no rename can leave: half a line
        file.write('{"model": "resnet34", "wei')

    loaded = []
    load = published_table.load_published
    monkeypatch.setattr(
        published_table,
        "load_published",
        lambda model, **options: loaded.append(model) or load(model, **options),
    )
    assert cli.main(words) == 0
    done = capsys.readouterr()
    assert loaded == ["resnet34"]
    assert "resnet18: finished before" in done.err
    assert [row["model"] for row in read_rows(tmp_path)] == ["resnet18", "resnet34"]
    assert read_rows(tmp_path)[0] == first
    head, *body = (tmp_path / "table.csv").read_text().splitlines()
    assert head.startswith("model,weights,parameters,multiply-adds,top-1 %")
    # parameters as torchvision counts them; published top-1 and top-5
    assert body[0].startswith("resnet18,resnet18.pth,11689512,")
    assert ",69.758,89.078," in body[0]
    assert "73.314" in body[1]
    assert "11,689,512" in (tmp_path / "table.txt").read_text()
    assert "| 11,689,512 |" in (tmp_path / "table.md").read_text()
    assert cli.main(words) == 0  # nothing is left to do
    assert loaded == ["resnet34"]


def test_weights_that_cannot_be_had_leave_a_sentence(place, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no"))

    def nowhere(url, *args, **options):
        raise OSError("no connection")

    monkeypatch.setattr(torch.hub, "download_url_to_file", nowhere)
    table = published_table.evaluate_all(
        ["alexnet", "resnet18"],
        place / "imagenet",
        tmp_path,
        image_size=64,
        weights_folder=place / "weights",
        limit=2,
        say=lambda text: None,
    )
    assert table["model"].tolist() == ["alexnet", "resnet18"]
    assert table["top-1 %"].isna().tolist() == [True, False]
    assert [row["model"] for row in read_rows(tmp_path)] == ["resnet18"]
    assert "cannot be reached; connect once" in (tmp_path / "table.txt").read_text()


def test_other_requests_do_not_share_rows(place, tmp_path):
    def scored(**options):
        said = []
        published_table.evaluate_all(
            ["resnet18"],
            place / "imagenet",
            tmp_path,
            image_size=32,
            weights_folder=place / "weights",
            say=said.append,
            **options,
        )
        return "finished before" not in said[0]

    assert scored(limit=1)
    assert not scored(limit=1)
    assert scored(limit=2)
    assert scored(limit=2, protocol="ten_crop")
    assert not scored(limit=2)
    lines = (tmp_path / ROWS).read_text().splitlines()
    assert [json.loads(line)["images"] for line in lines] == [1, 2, 2]


def test_a_folder_of_few_classes_is_scored_both_ways(tmp_path):
    row = {"model": "a", "images": 20, "protocol": "center", "precision": "float32"}
    row |= {"classes": 10, "top1": 0.5, "top5": 0.75, "top1_own": 0.9, "top5_own": 1.0}
    table = write_table(tmp_path, [row])
    assert table["top-1 %"].tolist() == [50.0]
    assert table["top-1 % of these"].tolist() == [90.0]
    assert "over the 10 of the folder" in (tmp_path / "table.txt").read_text()


def test_markdown_by_hand():
    table = Table({"model": ["a", "b"], "parameters": [1234, 5]})
    assert markdown(table, "T").splitlines() == [
        "T",
        "",
        "| model | parameters |",
        "|---|---:|",
        "| a | 1,234 |",
        "| b | 5 |",
    ]
