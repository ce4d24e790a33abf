"""Run cards: what is written, how, and what the leaderboard makes of it."""

import json
import subprocess
from types import SimpleNamespace

import pandas as pd
import pytest
from torch import nn

from nbs_utils.results import (
    commit,
    glance,
    leaderboard,
    load_cards,
    save_card,
    write_json,
)
from nbs_utils.training.recipe import Recipe


@pytest.fixture
def parts(monkeypatch, tmp_path):
    """Everything that a card is made of, with numbers that are easy to check."""
    monkeypatch.delenv("NBS_QUICK", raising=False)
    monkeypatch.setenv("NBS_CARDS", str(tmp_path / "cards"))
    data = SimpleNamespace(
        name="cifar10",
        title="CIFAR-10 (JPEG copy)",
        num_classes=10,
        channels=3,
        image_size=4,
        batch_size=128,
        train=range(45),
        val=range(5),
        test=range(8),
    )
    run = SimpleNamespace(
        recipe=Recipe.load("short"),
        seed=3,
        epochs=2,
        steps=20,
        best_epoch=1,
        best_top1=0.25,
        seconds=12.5,
        images_per_second=900.0,
        peak_memory=2**30,
        device_name="NVIDIA T4",
        precision="float16",
        status="finished",
    )
    scores = SimpleNamespace(
        top1=0.5,
        top5=0.875,
        loss=float("nan"),
        n=8,
        protocol="center",
        precision="float32",
    )
    network = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.Flatten())
    return {"run": run, "scores": scores, "network": network, "data": data}


def test_a_card_holds_what_was_measured(parts, tmp_path):
    card = save_card("tiny", notes="A try.", **parts)
    assert card.path == tmp_path / "cards" / "tiny-cifar10-4px-short-seed3.json"
    record = json.loads(card.path.read_text())
    assert record == card.record
    assert record["parameters"] == 54
    assert record["macs"] == 54 * 4  # 2 × 2 positions
    assert record["data"]["title"] == "CIFAR-10 (JPEG copy)"
    assert [record["data"][s] for s in ("train", "val", "test")] == [45, 5, 8]
    assert record["recipe"]["nesterov"] is True
    assert record["test"]["top5"] == 0.875
    assert record["test"]["loss"] is None  # NaN is no JSON
    assert record["tier"] in ("cpu", "gpu")
    assert "torch" in record["versions"]
    assert "CIFAR-10 (JPEG copy)" in card._repr_html_()
    assert "top-1 50.0 %, top-5 87.5 %" in repr(card)


def test_the_order_of_keys_is_the_documented_one(parts):
    from nbs_utils import results

    card = save_card("tiny", **parts)
    text = results.__doc__
    places = [text.index(f"\n    {key} ") for key in ("schema", "name", "tier", "date")]
    assert places == sorted(places)
    assert list(card.record) == list(results._KEYS)
    for key in results._KEYS:
        assert key in text


def test_quick_runs_write_nothing(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("NBS_QUICK", "1")
    card = save_card("tiny", **parts)
    assert card.path is None
    assert not (tmp_path / "cards").exists()
    assert "not written" in repr(card)


def test_a_folder_that_cannot_be_written_loses_nothing(parts, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NBS_CARDS", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be written .* NBS_CARDS"):
        card = save_card("tiny", **parts)
    assert card.path is None
    assert card["test"]["top1"] == 0.5


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "card.json"
    write_json({"a": 1}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json({"a": 2}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]  # the draft is gone


def test_leaderboard_means_and_spread_over_seeds(parts):
    for seed, top1 in ((0, 0.5), (1, 0.6), (2, 0.7)):
        parts["run"].seed, parts["scores"].top1 = seed, top1
        save_card("tiny", **parts)
    parts["scores"].top1 = 0.9
    card = save_card("better", **parts)
    table = leaderboard(card.path.parent)
    assert list(table["network"]) == ["better", "tiny"]
    row = table.iloc[1]
    assert row["seeds"] == 3
    assert row["top1"] == pytest.approx(0.6)
    assert row["top1_spread"] == pytest.approx(0.1)  # standard deviation, n - 1
    assert pd.isna(table.iloc[0]["top1_spread"])
    assert len(leaderboard([])) == 0


def test_cards_that_are_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_cards(tmp_path / "absent")
    (tmp_path / "a.json").write_text('{"schema": 1, "name": "x"}')
    with pytest.raises(ValueError, match=r"a\.json is no run card .* lacks tier, date"):
        load_cards(tmp_path)
    (tmp_path / "a.json").write_text('{"schema": 1, "na')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        load_cards(tmp_path)


def test_commit_of_the_package_only(tmp_path):
    def git(*words):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert commit(package) is None  # no repository
    git("init", "-q")
    assert commit(package) is None  # a repository that does not track it
    git("add", ".")
    git("commit", "-qm", "first")
    head = commit(package)
    assert len(head) == 40
    (tmp_path / "notebook.ipynb").write_text("{}")
    assert commit(package) == head  # files beside the package do not count
    (package / "__init__.py").write_text("changed = 1")
    assert commit(package) == f"{head}-dirty"


def test_glance_counts_and_escapes():
    table = glance(
        {"Idea": "a < b", "Paper": ("Title & more", "https://example.org/?a=1&b=2")},
        network=nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Flatten()),
        input_size=(3, 5, 7),
    )
    text = table._repr_html_()
    assert "a &lt; b" in text
    assert '<a href="https://example.org/?a=1&amp;b=2">Title &amp; more</a>' in text
    assert text.count('<th scope="row"') == 4
    assert 'aria-label="At a glance"' in text
    assert "<thead>" not in text
    facts = dict(table.to_numpy())
    assert facts["Parameters"] == 12
    assert facts["Multiply-adds at 5 × 7"] == 12 * 35
    assert repr(table).splitlines() == [
        "Idea                    a < b",
        "Paper                   Title & more (https://example.org/?a=1&b=2)",
        "Parameters              12",
        "Multiply-adds at 5 × 7  420",
    ]
