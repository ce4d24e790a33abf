"""The loop: what it computes, what it keeps, and what it says when things go wrong."""

import math
import os
import re
import signal
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy_data import ToyData, same, toy_network

import nbs_utils as nbs
from nbs_utils.training import loop as train
from nbs_utils.training.checkpoints import load_weights
from nbs_utils.training.errors import OutOfMemory, TrainingDiverged
from nbs_utils.training.loop import fit
from nbs_utils.training.preparing import prepare
from nbs_utils.training.recipe import Recipe
from nbs_utils.training.schedule import learning_rate
from nbs_utils.training.state import Average

PLAIN = Recipe(
    name="plain", epochs=2, lr=0.05, schedule="constant", precision="float32"
)


def quiet(network, data, recipe, **kw):
    return fit(network, data, recipe, progress="off", **kw)


@pytest.mark.parametrize("channels_last", [False, True])
def test_fit_is_the_loop_one_would_write_by_hand(channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    data, recipe = (
        ToyData(),
        Recipe.load("short").replace(
            epochs=2,
            precision="float32",
            channels_last=channels_last,
            decay_norm_and_bias=True,
            keep="last",
        ),
    )
    network = toy_network(dropout=0.3)
    quiet(network, data, recipe, seed=3)

    hand = toy_network(dropout=0.3).to(memory_format=layout)
    optimizer = torch.optim.SGD(
        hand.parameters(),
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        fused=True,
    )
    data.train.seed = 3
    torch.manual_seed(3)
    for step in range(16):
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step, 8)
        if step % 8 == 0:
            batches = data.train.batches(32, epoch=step // 8)
        x, y = next(batches)
        x = x.contiguous(memory_format=layout)
        F.cross_entropy(hand(x), y, label_smoothing=0.1).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert same(network, hand)


def test_a_network_learns_and_the_run_says_so(capsys):
    network = toy_network()
    run = fit(network, ToyData(512), PLAIN.replace(epochs=6, momentum=0.9))
    table = run.history
    assert list(table["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert table["train_top1"].iloc[-1] > 0.8
    assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[0] / 2
    assert run.best_top1 == table["val_top1"].max()
    assert run.best_epoch == table["val_top1"].idxmax() + 1
    assert (run.epochs, run.steps, run.status) == (6, 96, "finished")
    assert not network.training
    assert repr(run) in capsys.readouterr().err
    assert re.match(r"Trained 6 epochs in [\d.]+ s: best validation top-1", repr(run))


def test_the_network_holds_the_weights_of_the_best_epoch():
    data = ToyData()
    # so large a learning rate that the last epochs are not the best
    recipe = PLAIN.replace(lr=0.6, epochs=5)
    for keep in ("best", "last"):
        network = toy_network()
        run = quiet(network, data, recipe.replace(keep=keep))
        top1 = (network(data.val.x).argmax(1) == data.val.labels).float().mean().item()
        expected = run.history["val_top1"]
        assert run.best_epoch < 5
        assert expected.max() > expected.iloc[-1]
        wanted = expected.max() if keep == "best" else expected.iloc[-1]
        assert top1 == pytest.approx(wanted)


def test_validation_counts_a_short_last_batch_for_what_it_holds():
    data = ToyData(val=70)  # batches of 32, 32 and 6
    network = toy_network()
    run = quiet(network, data, PLAIN.replace(epochs=1))
    network.eval()
    with torch.no_grad():
        logits = network(data.val.x)
    row = run.history.iloc[0]
    assert row["val_loss"] == pytest.approx(
        F.cross_entropy(logits, data.val.labels).item(), rel=1e-5
    )
    hits = (logits.argmax(1) == data.val.labels).sum().item()
    assert row["val_top1"] == pytest.approx(hits / 70)
    top5 = (logits.topk(5).indices == data.val.labels[:, None]).any(1).sum().item()
    assert row["val_top5"] == pytest.approx(top5 / 70)


def test_training_scores_are_those_of_the_steps():
    data, network = ToyData(), toy_network()
    data.val = data.train
    run = quiet(network, data, PLAIN.replace(epochs=1, lr=1e-12))
    # with a learning rate of nearly nothing, all steps see the first weights
    network = toy_network().train()
    losses, hits = [], 0
    for x, y in data.train.batches(32, epoch=0):
        logits = network(x)
        losses.append(F.cross_entropy(logits, y).item())
        hits += (logits.argmax(1) == y).sum().item()
    row = run.history.iloc[0]
    assert row["train_loss"] == pytest.approx(sum(losses) / 8, rel=1e-5)
    assert row["train_top1"] == pytest.approx(hits / 256)


def test_seeds_change_the_order_and_repeat_themselves():
    results = []
    for seed in (1, 1, 2):
        network = toy_network()
        quiet(network, ToyData(), PLAIN.replace(epochs=1), seed=seed)
        results.append(network)
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


@pytest.mark.parametrize("parts", [2, 3, 32])
def test_accumulation_takes_the_step_of_the_whole_batch(parts):
    whole, divided = toy_network(norm=False), toy_network(norm=False)
    recipe = PLAIN.replace(epochs=1, label_smoothing=0.1, clip_norm=0.5)
    one = quiet(whole, ToyData(), recipe)
    more = quiet(divided, ToyData(), recipe.replace(accumulate=parts))
    for a, b in zip(whole.parameters(), divided.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert one.history["train_top1"][0] == more.history["train_top1"][0]
    assert one.history["train_loss"][0] == pytest.approx(more.history["train_loss"][0])


def test_clipping_limits_the_step():
    network = toy_network(norm=False)
    before = [p.detach().clone() for p in network.parameters()]
    data = ToyData(train=32)  # one step
    quiet(
        network,
        data,
        PLAIN.replace(epochs=1, lr=1.0, momentum=0, clip_norm=0.25, keep="last"),
    )
    moved = zip(network.parameters(), before, strict=True)
    length = math.sqrt(sum((a - b).pow(2).sum().item() for a, b in moved))
    assert length == pytest.approx(0.25, rel=1e-3)


def test_the_moving_average_by_hand():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = Average(network, decay=0.15)
    network.weight.data.fill_(2.0)
    average.update(network)  # decay 1/10
    assert average.network.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    network.weight.data.fill_(4.0)
    average.update(network)  # (1 + 1) / (10 + 1) = 0.18, but at most 0.15
    assert average.network.weight.item() == pytest.approx(0.15 * 1.9 + 0.85 * 4)


def test_the_average_is_validated_and_kept():
    data, network = ToyData(), toy_network()
    recipe = PLAIN.replace(lr=0.5, ema=0.98, keep="last")
    run = quiet(network, data, recipe)
    with torch.no_grad():
        loss = F.cross_entropy(network(data.val.x), data.val.labels).item()
    assert run.history["val_loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)
    without = toy_network()
    quiet(without, data, recipe.replace(ema=0))
    assert not same(network, without)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_come_with_mixed_targets(kind, monkeypatch):
    seen = []

    def spy(state, setup, x, y, step=train.train_step):
        seen.append((x.clone(), y.clone()))
        return step(state, setup, x, y)

    monkeypatch.setattr(train, "train_step", spy)
    data = ToyData()
    quiet(toy_network(), data, PLAIN.replace(epochs=1, **{kind: 1.0}))
    plain = list(data.train.batches(32, epoch=0))
    assert len(seen) == 8
    shares = []
    for (x, y), (clean, labels) in zip(seen, plain, strict=True):
        assert y.shape == (32, 10)
        torch.testing.assert_close(y.sum(1), torch.ones(32))
        assert not torch.equal(x, clean)
        shares += y.gather(1, labels[:, None]).flatten().tolist()
    assert min(shares) < 0.3  # Beta(1, 1) is uniform
    assert max(shares) > 0.7


def test_mixup_and_cutmix_take_turns(monkeypatch):
    taken = []
    for name in ("mixup", "cutmix"):
        real = getattr(nbs.augment, name)

        def spy(*args, name=name, real=real):
            taken.append(name)
            return real(*args)

        monkeypatch.setattr(nbs.augment, name, spy)
    quiet(toy_network(), ToyData(), PLAIN.replace(epochs=2, mixup=0.2, cutmix=1))
    assert len(taken) == 16
    assert 2 < taken.count("mixup") < 14


def test_channels_last_is_used_and_undone():
    seen = []
    network = toy_network()
    network[0].register_forward_pre_hook(
        lambda module, args: seen.append(
            (module.weight.stride(), args[0].stride(), module.training)
        )
    )
    # with more than one channel, so that the layouts differ
    data = ToyData()
    for split in (data.train, data.val):
        split.x = split.x.expand(-1, 2, -1, -1).contiguous()
    network[0] = nn.Conv2d(2, 8, 3, padding=1)
    network[0].register_forward_pre_hook(
        lambda module, args: seen.append(
            (module.weight.stride()[1], args[0].stride()[1])
        )
    )
    quiet(network, data, PLAIN.replace(epochs=1, channels_last=True))
    assert set(seen) == {(1, 1)}  # also in the look before the training
    assert network[0].weight.is_contiguous()


@pytest.mark.parametrize(("wanted", "last"), [("auto", True), (False, False)])
def test_on_a_cpu_auto_is_channels_last_in_float32_too(wanted, last):
    data = ToyData()
    for split in (data.train, data.val):
        split.x = split.x.expand(-1, 2, -1, -1).contiguous()
    network, seen = toy_network(), set()
    network[0] = nn.Conv2d(2, 8, 3, padding=1)

    def look(module, args):
        if module.training:
            seen.add(args[0].stride()[1] == 1)

    network[0].register_forward_pre_hook(look)
    quiet(network, data, PLAIN.replace(epochs=1, channels_last=wanted))
    assert seen == {last}


def test_auto_precision_is_the_devices_own(monkeypatch):
    types = []
    network = toy_network()
    network[4].register_forward_hook(lambda m, i, out: types.append(out.dtype))
    wanted = nbs.runtime.Precision(torch.bfloat16, False, "for this test")
    monkeypatch.setattr(
        nbs.runtime, "precision", lambda name, device: {"auto": wanted}[name]
    )
    run = quiet(network, ToyData(), PLAIN.replace(epochs=1, precision="auto"))
    assert run.precision == "bfloat16"
    assert set(types[1:]) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert math.isfinite(run.history["train_loss"][0])


def test_compile_trains_the_same_weights(monkeypatch):
    compiled = []

    def with_the_eager_backend(network, real=torch.compile):
        compiled.append(network)
        return real(network, backend="eager")

    monkeypatch.setattr(torch, "compile", with_the_eager_backend)
    a, b = toy_network(), toy_network()
    quiet(a, ToyData(), PLAIN.replace(epochs=1, compile=True))
    quiet(b, ToyData(), PLAIN.replace(epochs=1))
    assert compiled == [a]
    assert same(a, b)


# What goes wrong


class Bomb(nn.Module):
    """Hands images through, and does something else at one training step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action, self.calls = step, action, 0

    def forward(self, x):
        if self.training and torch.is_grad_enabled():  # not while `fit` only looks
            self.calls += 1
            if self.calls == self.step:
                return self.action(x)
        return x


def with_bomb(step, action, **kw):
    return nn.Sequential(Bomb(step, action), *toy_network(**kw))


def test_nan_stops_with_epoch_step_rate_causes_and_checkpoint(tmp_path):
    network = with_bomb(8 + 3, lambda x: x * math.nan)
    with pytest.raises(TrainingDiverged) as error:
        quiet(network, ToyData(), PLAIN.replace(epochs=3), folder=tmp_path)
    e = error.value
    assert (e.epoch, e.step, e.lr) == (2, 3, 0.05)
    assert e.checkpoint == tmp_path / "last.pt"
    for part in ("nan", "epoch 2, step 3", "0.05", "lr=0.005", "warmup", "last.pt"):
        assert part in str(e)
    # what is kept is from before
    saved = load_weights(with_bomb(0, None), e.checkpoint)
    assert saved["epoch"] == 1
    assert all(v.isfinite().all() for v in saved["network"].values())


def test_nan_is_noticed_before_the_epoch_ends(monkeypatch):
    monkeypatch.setattr("nbs_utils.training.progress._SECONDS", 0)
    network = with_bomb(3, lambda x: x * math.inf)
    with pytest.raises(TrainingDiverged, match="epoch 1, step 3"):
        quiet(network, ToyData(), PLAIN)
    assert network[0].calls == 3


def test_nan_after_the_last_step_is_noticed_in_validation():
    network = toy_network(norm=False)
    data = ToyData(train=32)
    with pytest.raises(TrainingDiverged, match=r"validation loss is .*step 1"):
        quiet(network, data, PLAIN.replace(epochs=1, lr=1e30))


def test_nan_in_the_images_is_told_from_a_high_learning_rate():
    data = ToyData()
    data.train.x[5] = math.nan
    with pytest.raises(TrainingDiverged) as error:
        quiet(toy_network(), data, PLAIN)
    assert "images of this batch hold NaN" in str(error.value)
    assert "learning rate is too high" not in str(error.value)


class Overflow(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * math.inf


def overflowing(at_step):
    """Return a network whose gradients are infinite in one step, or in all (None)."""

    class Edge(nn.Module):
        calls = 0

        def forward(self, x):
            if not (self.training and torch.is_grad_enabled()):
                return x
            self.calls += 1
            hit = at_step is None or self.calls == at_step
            return Overflow.apply(x) if hit else x

    return nn.Sequential(*toy_network(), Edge())


def test_a_step_that_overflows_float16_leaves_no_trace(monkeypatch):
    norms, skipped = [], []

    def spy(state, setup, x, y, step=train.careful_step):
        before = [v.clone() for v in state.network.state_dict().values()]
        result = step(state, setup, x, y)
        after = state.network.state_dict().values()
        norms.append([torch.equal(a, b) for a, b in zip(before, after, strict=True)])
        skipped.append(state.skipped)
        return result

    monkeypatch.setattr(train, "careful_step", spy)
    recipe = PLAIN.replace(epochs=1, precision="float16", lr=1e-3)
    quiet(overflowing(4), ToyData(), recipe)
    assert skipped.index(1) == 3  # it was this step that was left out
    assert all(norms[3])  # weights, running mean and variance, their counter
    assert not any(norms[2])
    assert not any(norms[4])


def test_float16_that_always_overflows_does_not_stand_still_for_ever():
    recipe = PLAIN.replace(epochs=9, precision="float16")
    with pytest.raises(TrainingDiverged, match=r"in a row overflowed.*epoch 4") as e:
        quiet(overflowing(None), ToyData(), recipe)
    assert "precision='float32'" in str(e.value)


def out_of_memory_above(images):
    """Return a network for whose training more than so many images are too many."""

    class Memory(nn.Module):
        def forward(self, x):
            if self.training and len(x) > images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return x

    layers = list(toy_network())
    return nn.Sequential(*layers[:2], Memory(), *layers[2:])


def test_out_of_memory_names_the_batch_and_what_to_try():
    network = out_of_memory_above(8)
    with pytest.raises(OutOfMemory) as error:
        quiet(network, ToyData(), PLAIN)
    text = str(error.value)
    for part in ("batch size of 32", "1 x 8 x 8", "accumulate=2", "batch_size=16"):
        assert part in text
    # the traceback of the failed step, which held its activations, is gone
    assert error.value.__context__ is None
    assert all(p.grad is None for p in network.parameters())


def test_out_of_memory_halves_and_accumulates_on_request(capsys):
    network, data = out_of_memory_above(8), ToyData()
    recipe = PLAIN.replace(epochs=1)
    fit(network, data, recipe, on_out_of_memory="halve", progress="lines")
    said = capsys.readouterr().err
    assert "in 4 parts" in said
    assert "batch norm sees batches of 8 only" in said
    asked = toy_network()
    quiet(asked, data, recipe.replace(accumulate=4))
    for a, b in zip(
        network.state_dict().values(), asked.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)  # the failed attempts left no trace


def test_out_of_memory_gives_up_on_single_images():
    with pytest.raises(OutOfMemory, match="1 at a time"):
        quiet(out_of_memory_above(0), ToyData(), PLAIN, on_out_of_memory="halve")


def press_stop(x):
    os.kill(os.getpid(), signal.SIGINT)
    return x


def test_the_stop_button_finishes_the_step_and_returns(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    network = with_bomb(8 + 3, press_stop)
    run = quiet(network, ToyData(), PLAIN.replace(epochs=4), folder=tmp_path)
    assert run.status == "interrupted"
    assert (run.epochs, run.steps) == (1, 11)
    assert "Interrupted after 1 epoch" in repr(run)
    assert (tmp_path / "last.pt").is_file()
    assert signal.getsignal(signal.SIGINT) is before
    again = quiet(
        with_bomb(0, None), ToyData(), PLAIN.replace(epochs=4), folder=tmp_path
    )
    assert (again.status, again.epochs) == ("finished", 4)


def test_a_second_press_interrupts_at_once_and_keeps_the_last_checkpoint(tmp_path):
    def twice(x):
        press_stop(x)
        return press_stop(x)

    run = quiet(with_bomb(8 + 3, twice), ToyData(), PLAIN, folder=tmp_path)
    assert run.status == "interrupted"
    saved = load_weights(with_bomb(0, None), tmp_path / "last.pt")
    assert (saved["epoch"], saved["step"]) == (1, 0)


def test_an_interrupt_before_the_first_epoch_ends_returns_a_run():
    run = quiet(with_bomb(2, press_stop), ToyData(), PLAIN)
    assert (run.epochs, run.best_epoch, run.steps) == (0, 0, 2)
    assert math.isnan(run.best_top1)
    assert len(run.history) == 0
    assert "Interrupted after 0 epochs" in repr(run)


def test_the_stop_button_may_end_the_processes_that_read_images(tmp_path):
    data = ToyData()

    def batches(*args, real=data.train.batches, **kw):
        for step, batch in enumerate(real(*args, **kw)):
            if step == 5:
                press_stop(None)
                raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly")
            yield batch

    data.train.batches = batches
    run = quiet(toy_network(), data, PLAIN, folder=tmp_path)
    assert (run.status, run.steps) == ("interrupted", 5)
    again = quiet(toy_network(), ToyData(), PLAIN, folder=tmp_path)
    assert again.status == "finished"


def test_fit_works_outside_the_main_thread():
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(quiet(toy_network(), ToyData(), PLAIN))
    )
    thread.start()
    thread.join()
    assert runs[0].status == "finished"


def test_a_network_that_does_not_fit_is_refused_before_training():
    data = ToyData()
    with pytest.raises(ValueError, match=r"\(2, 7\).*10 classes.*num_classes=10"):
        quiet(toy_network(classes=7), data, PLAIN)
    with pytest.raises(ValueError, match=r"returned tuple"):

        class Two(nn.Module):
            def forward(self, x):
                return x, x

        quiet(Two(), data, PLAIN)
    wide = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10))
    with pytest.raises(ValueError, match=r"Toy, a batch of shape \(2, 1, 8, 8\)"):
        quiet(wide, data, PLAIN)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"recipe": "shrt"}, "no recipe 'shrt'"),
        ({"epochs": 0}, "epochs is 0; it must be a whole number from 1"),
        ({"on_out_of_memory": "pray"}, "'pray'; it must be raise or halve"),
        ({"progress": "loud"}, "'loud'; it must be one of auto, curve, lines, off"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0; it must be at least 1"),
    ],
)
def test_a_wrong_argument_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        fit(toy_network(), ToyData(), **arguments)


def test_an_empty_validation_split_is_refused():
    with pytest.raises(ValueError, match="validation split of Toy is empty"):
        quiet(toy_network(), ToyData(val=0), PLAIN)


# What a person sees


def test_one_line_for_each_epoch_goes_to_stderr(capsys):
    fit(toy_network(), ToyData(), PLAIN)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3  # two epochs and the summary
    assert re.match(r"epoch 1/2   train \d\.\d{3} +[\d.]+ %   val .* best ", lines[0])
    assert "images/s" in lines[1]


def test_the_screen_is_redrawn_four_times_a_second_at_most(monkeypatch):
    from nbs_utils.training.progress import Progress

    times = iter(i / 100 for i in range(1000))  # a step takes 10 ms
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    progress = Progress("off", "", 1)
    assert sum(progress.due() for _ in range(800)) == 32  # in 8 seconds


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "clip_norm": 1.0, "accumulate": 2},
        {"precision": "float16", "ema": 0.9, "clip_norm": 1.0},
        {"precision": "float16", "optimizer": "adamw"},
    ],
)
def test_nothing_waits_for_the_device_between_two_steps(changes, monkeypatch):
    network = toy_network()
    state, setup = prepare(network, ToyData(), PLAIN.replace(**changes), progress="off")
    setup.progress.due = lambda: False
    for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *args: pytest.fail("a transfer")
        )
    train.train_epoch(state, setup)
    monkeypatch.undo()
    assert state.step == 8
    assert state.scores[:, 0].isfinite().all()


def test_real_images_are_learned():
    data = nbs.load_data("digits", batch_size=32, limit=400)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(data.image_size**2 * data.channels, 10)
    )
    run = quiet(network, data, "short-adamw", epochs=4)
    assert run.best_top1 > 0.6
    scores = nbs.evaluate(network, data.val)
    assert scores.top1 == pytest.approx(run.best_top1, abs=0.03)


NOTEBOOK = [
    """
import os, signal, sys, threading
sys.path.insert(0, {tests!r})
from toy_data import ToyData, toy_network
from nbs_utils.training.loop import fit
from nbs_utils.training.preparing import prepare
run = fit(toy_network(), ToyData(), epochs=3)
""",
    """
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
run = fit(toy_network(), ToyData(), epochs=20_000)
print(run.status, "and the rest of the cell runs")
""",
]


def test_a_notebook_keeps_one_figure_and_one_line(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.delenv("NBS_QUICK", raising=False)
    book = nbformat.v4.new_notebook()
    tests = os.path.dirname(__file__)
    book.cells = [nbformat.v4.new_code_cell(c.format(tests=tests)) for c in NOTEBOOK]
    client.NotebookClient(book, coalesce_streams=True).execute(cwd=str(tmp_path))

    figure, line = book.cells[0].outputs
    assert figure.output_type == "display_data"
    assert "image/svg+xml" in figure.data
    assert (line.output_type, line.name) == ("stream", "stdout")
    assert re.fullmatch(r"Trained 3 epochs in .*\n", line.text)
    assert "widgets" not in book.metadata

    figure, line = book.cells[1].outputs
    assert re.match(r"Interrupted after \d+ epochs", line.text)
    assert line.text.endswith("interrupted and the rest of the cell runs\n")
