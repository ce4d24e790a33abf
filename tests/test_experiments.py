"""Comparisons: the statistics by hand, and that runs are fair, exact and resumable."""

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_data import ToyData, same

import nbs_utils as nbs
from nbs_utils.experiments import (
    compare_values,
    fresh_images,
    holm,
    image_error,
    paired,
    smallest_effect,
)


def build(norm=True):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def plain():
    return build(norm=False)


def part(indices):
    """Return the toy data with some of its training images and all others."""
    data = ToyData()
    data.train.x, data.train.labels = data.train.x[indices], data.train.labels[indices]
    return data


def compare(variants, data=None, **options):
    options = {"epochs": 2, "seeds": 2, "progress": "off", **options}
    return nbs.experiment(variants, data or ToyData(), **options)


# ---- statistics


def test_the_interval_of_three_differences_by_hand():
    found = paired([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # s = 1; t(0.975, 2) from a printed table
    assert found.mean == 2
    assert found.low == pytest.approx(2 - half, abs=1e-5)
    assert found.high == pytest.approx(2 + half, abs=1e-5)
    # t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2)
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-9)


def test_the_interval_of_two_differences_is_wide():
    found = paired([1.0, 2.0])
    assert found.high - 1.5 == pytest.approx(12.7062 * 0.5, abs=1e-4)


def test_equal_differences_have_an_interval_without_width():
    found = paired([0.5, 0.5, 0.5])
    assert (found.low, found.high, found.p) == (0.5, 0.5, 0.0)
    assert paired([0.0, 0.0]).p == 1.0
    assert smallest_effect([0.5, 0.5, 0.5]) == 0


def test_the_smallest_effect_is_seen_in_four_of_five_repetitions():
    differences = [0.3, -1.2, 0.4, 0.9]
    effect = smallest_effect(differences)
    spread = np.std(differences, ddof=1)
    draws = np.random.default_rng(0).normal(effect, spread, size=(20_000, 4))
    t = draws.mean(1) / (draws.std(1, ddof=1) / 2)
    assert np.mean(np.abs(t) > 3.182446) == pytest.approx(0.8, abs=0.01)


def test_the_error_of_images_is_binomial_and_by_mcnemar():
    a = [1, 1, 1, 0, 0, 0, 1, 1]  # 5 of 8
    b = [1, 1, 0, 1, 0, 0, 0, 0]  # only a: 3 images, only b: 1
    assert image_error(a) == pytest.approx(math.sqrt(5 / 8 * 3 / 8 / 8))
    assert image_error(a, b) == pytest.approx(math.sqrt(4 - 4 / 8) / 8)
    # the images of several seeds are the same, so that seeds do not make it smaller
    assert image_error([a, a, a], [b, b, b]) == pytest.approx(image_error(a, b))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])


def test_a_difference_must_exceed_both_errors():
    values = {"a": [0.50, 0.51, 0.52], "b": [0.54, 0.551, 0.56]}
    sure = compare_values(values, n_images=100_000).differences()[0]
    few = compare_values(values, n_images=100).differences()[0]
    assert sure.interval.low > 0 and sure.told_apart
    assert few.interval.low > 0 and not few.told_apart
    assert few.images == pytest.approx(
        1.96 * math.sqrt((0.51 * 0.49 + 0.5503333 * 0.4496667) / 100), abs=1e-6
    )


def test_several_comparisons_are_held_to_a_stricter_level():
    base = [0.50, 0.51, 0.52]
    near = [0.520, 0.525, 0.545]  # p = 0.02: enough alone, not among five
    assert paired(np.subtract(near, base)).p == pytest.approx(0.0202, abs=1e-4)
    alone = compare_values({"base": base, "x": near})
    assert alone.differences()[0].told_apart
    assert "comparisons" not in repr(alone)
    among = {"base": base} | {f"x{i}": near for i in range(5)}
    several = compare_values(among)
    assert not any(one.told_apart for one in several.differences())
    assert "5 comparisons" in repr(several)


def test_the_baseline_can_be_another_one():
    values = {"a": [0.1, 0.2], "b": [0.3, 0.5]}
    (found,) = compare_values(values, against="b").differences()
    assert found.name == "a"
    assert found.by_seed == pytest.approx([-0.2, -0.3])


def test_the_table_holds_what_is_needed_to_judge():
    table = compare_values({"a": [0.431, 0.426], "b": [0.48, 0.47]}, n_images=500)
    row = table.table().iloc[1]
    assert row["seed 0"] == "48.0" and row["mean"] == "47.5"
    assert row["difference"] == "+4.7" or row["difference"] == "+4.6"
    assert row["95 % interval"] == "+1.5 to +7.8"
    text = repr(table)
    assert "500 images, 2 seeds" in text and "paired by seed" in text
    assert "<table" in table._repr_html_() and "paired by seed" in table._repr_html_()


def test_many_seeds_share_a_column():
    table = compare_values({"a": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}).table()
    assert table["by seed"].tolist() == ["10.0 20.0 30.0 40.0 50.0 60.0"]
    assert list(table) == ["variant", "by seed", "mean"]


def test_losses_are_not_shown_in_percent():
    table = compare_values({"a": [2.31, 2.35], "b": [1.8, 1.9]}, metric="loss").table()
    assert table["mean"].tolist() == ["2.330", "1.850"]


def test_one_seed_gets_a_sentence_instead_of_an_interval():
    result = compare_values({"a": [0.4], "b": [0.6]})
    assert "95 % interval" not in result.table()
    assert "one seed has no spread" in repr(result)
    assert not result.differences()[0].told_apart


def test_given_values_are_checked():
    with pytest.raises(ValueError, match="2 for a, 3 for b"):
        compare_values({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(ValueError, match="Divide by 100"):
        compare_values({"a": [43.0], "b": [45.0]})
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_values({})
    with pytest.raises(ValueError, match="one of the variants: a, b"):
        compare_values({"a": [0.1], "b": [0.2]}, against="c")


# ---- training


def test_equal_variants_are_equal_at_every_seed_and_seeds_differ():
    result = compare({"a": build, "b": lambda: build()}, keep=True)
    assert (result.values["a"] == result.values["b"]).all()
    for seed in (0, 1):
        assert same(result.networks["a"][seed], result.networks["b"][seed])
    assert not same(result.networks["a"][0], result.networks["a"][1])
    assert result.differences()[0].interval.p == 1


def test_a_run_is_what_fit_gives_at_that_seed():
    result = compare({"a": build}, keep=True)
    nbs.runtime.seed_everything(1)
    network = build()
    recipe = nbs.Recipe.load("short").replace(keep="last")
    run = nbs.fit(network, ToyData(), recipe, epochs=2, seed=1, progress="off")
    assert result.runs["a"][1].history["train_loss"].equals(run.history["train_loss"])
    assert same(result.networks["a"][1], network)


def test_the_last_epoch_counts_even_where_another_was_better():
    rising = nbs.Recipe.load("short").replace(
        lr=3.0, schedule="constant", warmup_epochs=0, keep="best", precision="float32"
    )
    result = compare({"a": plain}, recipe=rising, epochs=6, seeds=[1])
    history = result.runs["a"][1].history
    assert (
        history["val_top1"].iloc[-1] < history["val_top1"].max()
    )  # or it tests nothing
    assert result.values.loc[1, "a"] == pytest.approx(history["val_top1"].iloc[-1])


def test_recipe_and_data_may_be_what_differs():
    slow = nbs.Recipe.load("short").replace(lr=1e-6)
    result = compare(
        {
            "usual": build,
            "slow": dict(network=build, recipe=slow),
            "few": dict(network=build, data=part(torch.arange(32))),
        },
        seeds=[3],
        epochs=4,
    )
    assert result.runs["slow"][3].recipe.lr == 1e-6
    assert result.runs["few"][3].steps == 4 and result.runs["usual"][3].steps == 32
    assert "32 to 256 training images" in repr(result)
    assert result.values["slow"][3] < result.values["usual"][3]


def test_each_seed_may_have_fresh_training_images():
    made = []

    def fresh(seed):
        made.append(seed)
        order = torch.Generator().manual_seed(seed)
        return part(torch.randperm(256, generator=order)[:64])

    result = compare({"a": build, "b": plain}, fresh)
    assert made == [0, 1]  # made once, and the same for both variants
    assert result.runs["a"][0].steps == 4


def test_other_images_to_score_are_refused():
    with pytest.raises(
        ValueError, match="'b' with seed 0 would be scored on other val"
    ):
        compare({"a": build, "b": dict(network=build, data=ToyData(val=60))})


def test_the_loss_of_each_image_and_a_measure_of_ones_own():
    result = compare({"a": build}, metric="loss", keep=True)
    data, network = ToyData(), result.networks["a"][0]
    with torch.no_grad():
        loss = nn.functional.cross_entropy(network(data.val.x), data.val.labels).item()
    assert result.values["a"][0] == pytest.approx(loss, rel=0.02)  # bfloat16
    assert result.per_image["a"].shape == (2, 70)

    def weight_norm(network, data):
        return network[0].weight.norm().item()

    own = compare({"a": build, "b": plain}, metric=weight_norm)
    assert own.metric == "weight_norm" and own.per_image == {}
    assert "weight_norm" in repr(own) and "Images" not in repr(own)


def test_a_diverged_run_is_told_and_left_out():
    wild = nbs.Recipe.load("short").replace(lr=1e30, clip_norm=None)
    result = compare({"a": build, "wild": dict(network=plain, recipe=wild)})
    assert result.values["wild"].isna().all()
    assert "Training diverged for wild (seed 0), wild (seed 1)" in repr(result)
    assert result.runs["wild"][0] is None
    result.figure()


def test_a_quick_run_is_tiny(monkeypatch):
    monkeypatch.setenv("NBS_QUICK", "1")
    result = compare({"a": build}, seeds=5, epochs=30)
    assert result.seeds == [0, 1] and result.runs["a"][0].epochs == 1


def test_fresh_images_are_disjoint_in_proportion_and_scored_on_the_same():
    data = nbs.load_data("digits", device="cpu")
    parts = [fresh_images(data, 100, seed) for seed in (0, 1)]
    stored = [set(part.train.store.indices.tolist()) for part in parts]
    assert [len(one) for one in stored] == [100, 100] and not stored[0] & stored[1]
    counts = parts[0].train.labels.bincount(minlength=10)
    assert counts.min() >= 8 and counts.max() <= 12
    assert torch.equal(parts[0].val.labels, data.val.labels)
    # images and labels still belong together
    i = parts[1].train.store.indices[7]
    (where,) = (data.train.store.indices == i).nonzero()[:, 0].tolist()
    assert parts[1].train.labels[7] == data.train.labels[where]
    assert torch.equal(parts[1].train.images([7]), data.train.images([where]))
    assert len(data.train) > 1000  # the whole was left alone
    with pytest.raises(ValueError, match="hold 12, counted from 0"):
        fresh_images(data, 100, 12)


def test_what_else_the_last_epoch_reached():
    result = compare({"a": build, "b": plain})
    last = result.last("train_top1")
    assert last.loc[1, "b"] == result.runs["b"][1].history["train_top1"].iloc[-1]
    with pytest.raises(ValueError, match="no history with the column 'top1'"):
        result.last("top1")
    with pytest.raises(ValueError, match="nothing was trained"):
        compare_values({"a": [0.1, 0.2]}).last("train_top1")


def test_what_begins_alike_is_said():
    result = compare({"a": build, "b": lambda: build()}, seeds=1)
    assert "At a seed, all begin with the same weights." in repr(result)

    def wider():  # the first convolution is the same, the last layer is not
        return nn.Sequential(*build()[:-1], nn.Identity(), nn.Linear(512, 10))

    result = compare({"a": build, "b": wider}, seeds=1)
    assert "begin as those of a: b 2 of 4." in repr(result)  # weight and bias


# ---- kept on disk


def test_finished_runs_are_read_back(tmp_path, monkeypatch):
    variants = {"a": build, "b / 2": plain}
    first = compare(variants, folder=tmp_path, keep=True)
    monkeypatch.setattr("nbs_utils.experiments.runs.fit", None)
    again = compare(variants, folder=tmp_path, keep=True)
    assert repr(again) == repr(first)
    assert same(again.networks["a"][1], first.networks["a"][1])
    assert again.runs["b / 2"][0].history.equals(first.runs["b / 2"][0].history)


def test_another_experiment_in_the_folder_is_refused(tmp_path):
    compare({"a": build}, folder=tmp_path, seeds=1)
    with pytest.raises(ValueError, match="holds another run: recipe lr differ"):
        recipe = nbs.Recipe.load("short").replace(lr=0.01)
        compare({"a": build}, folder=tmp_path, seeds=1, recipe=recipe)
    with pytest.raises(ValueError, match="holds another run: network and data differ"):
        compare({"a": plain}, folder=tmp_path, seeds=1)


_KILLED = """
import os, sys
sys.path[:0] = {paths!r}
import test_experiments as t
forward = t.nn.Linear.forward
count = 0
def killing(self, x):
    global count
    count += 1
    if count == 42: os._exit(9)  # in the second epoch of the second run of four
    return forward(self, x)
t.nn.Linear.forward = killing
t.compare({{"a": t.build, "b": t.plain}}, folder={folder!r})
"""


def test_a_killed_experiment_goes_on_and_gives_the_same_table(tmp_path):
    here = Path(__file__).parent
    code = _KILLED.format(paths=[str(here.parent), str(here)], folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], check=False, env=os.environ)
    assert done.returncode == 9
    assert (tmp_path / "a" / "seed-0" / "result.pt").is_file()
    assert (tmp_path / "b" / "seed-0" / "last.pt").is_file()
    assert not (tmp_path / "b" / "seed-0" / "result.pt").is_file()
    variants = {"a": build, "b": plain}
    assert repr(compare(variants, folder=tmp_path)) == repr(compare(variants))


# ---- side by side

# No `if __name__ == "__main__"`, and functions that no other process can import, as in
# a notebook.
_SIDE_BY_SIDE = """
import sys
sys.path[:0] = {paths!r}
import os
os.sched_getaffinity = lambda _: {{0, 1}}
import torch
torch.set_num_threads(1)
from toy_data import ToyData, same
from torch import nn
import nbs_utils as nbs
width = 8
class Flat(nn.Flatten):
    pass
def build(drop=0.0):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), Flat(),
                         nn.Dropout(drop), nn.Linear(36 * width, 10))
variants = {{"a": build, "b": lambda: build(0.5)}}
both = [
    nbs.experiment(variants, ToyData(), epochs=3, keep=True, parallel=way)
    for way in (False, True)
]
one, two = both
assert one.values.equals(two.values)
assert one.values.std().min() > 0
for name in variants:
    for seed in range(3):
        assert same(one.networks[name][seed], two.networks[name][seed])
        columns = ["train_loss", "val_loss", "val_top1"]
        a, b = (r.runs[name][seed].history[columns] for r in both)
        assert a.equals(b)
assert "2 runs side by side, which spoils their timings" in repr(two)
assert "side by side" not in repr(one)
"""


def test_side_by_side_gives_the_same_numbers_as_one_after_another():
    here = Path(__file__).parent
    code = _SIDE_BY_SIDE.format(paths=[str(here.parent), str(here)])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_fails_or_dies_in_another_process_is_done_here(monkeypatch):
    monkeypatch.setattr("nbs_utils.runtime.cpu_cores", lambda: 2)
    here = os.getpid()

    def failing():
        if os.getpid() != here:
            raise ValueError("not here")
        return build()

    def dying():
        if os.getpid() != here:
            os._exit(1)
        return build()

    result = compare({"a": build, "b": failing, "c": dying}, parallel=True)
    assert (result.values["a"] == result.values["b"]).all()
    assert (result.values["a"] == result.values["c"]).all()


def test_what_another_process_cannot_have_is_told(monkeypatch):
    monkeypatch.setattr("nbs_utils.runtime.cpu_cores", lambda: 2)
    lock = threading.Lock()
    variants = {"a": lambda: build() if lock else None}
    with pytest.raises(TypeError, match="Use parallel=False"):
        compare(variants, parallel=True)


# ---- what is wrong is said


@pytest.mark.parametrize(
    ("variants", "options", "error", "words"),
    [
        ({}, {}, ValueError, "with at least one"),
        ({"a": build()}, {}, TypeError, "give a function that builds it"),
        ({"a": lambda x: x}, {}, ValueError, "must take no argument"),
        ({"a": {"net": build}}, {}, ValueError, "has the key 'net'"),
        ({"a": lambda: 3}, {}, TypeError, "returned int"),
        ({"a": build}, {"seeds": 0}, ValueError, "at least 1"),
        ({"a": build}, {"seeds": [1, 1]}, ValueError, "different numbers"),
        ({"a": build}, {"on": "train"}, ValueError, "val or test"),
        ({"a": build}, {"metric": "top2"}, ValueError, "top1 or loss"),
        ({"a": build}, {"against": "b"}, ValueError, "one of the variants: a"),
        ({"a": build}, {"parallel": 3}, TypeError, "True or False"),
    ],
)
def test_errors_are_sentences(variants, options, error, words):
    with pytest.raises(error, match=words):
        compare(variants, **options)


def test_an_experiment_needs_data():
    with pytest.raises(ValueError, match="has no data"):
        nbs.experiment({"a": build})


# ---- the figure


def test_the_figure_shows_every_seed_and_every_interval():
    from nbs_utils.figures.experiments import draw_experiment

    result = compare_values({"a": [0.4, 0.5, 0.45], "b": [0.6, 0.66, 0.62]})
    left, right = draw_experiment(result).axes
    assert len(left.collections) == 3  # seeds
    assert len(left.collections[0].get_offsets()) == 2  # variants
    found = result.differences()[0].interval
    drawn = [line.get_xdata() for line in right.lines]
    assert any(np.allclose(x, [100 * found.low, 100 * found.high]) for x in drawn)
    assert "b minus a: +17.7, interval" in result.describe()


def test_the_footer_names_the_precision_of_every_variant():
    both = {
        name: {"network": plain, "recipe": nbs.Recipe(precision=name)}
        for name in ("float32", "bfloat16")
    }
    assert "float32 and bfloat16" in compare(both, epochs=1, seeds=1).setting
    alone = {"float32": both["float32"]}
    assert "bfloat16" not in compare(alone, epochs=1, seeds=1).setting
