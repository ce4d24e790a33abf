"""The training loop of the book.

`fit` prepares, then goes round in epochs: `train_epoch` takes the steps, `validate`
scores the network on images it does not learn from, and a checkpoint keeps what was
reached. `train_step` is the heart: forward, backward, step. What changes on the way is
kept in a `State`, what stays the same in a `Setup`; `preparing` makes both.

Several processes meet in three places: before a step (`world.begin_step`), in the sums
of a validation (`world.sum`) and at the end of an epoch (`world.end_epoch`). With one
process these do nothing.
"""

import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import augment, runtime
from ..data.adapting import as_data
from .checks import diverged, fetch_scores, make_room
from .depth import training_mode
from .description import describe
from .errors import is_out_of_memory, was_stopped
from .losses import all_logits, count_correct, mixed_targets
from .preparing import prepare
from .recipe import Recipe
from .resuming import save, save_best
from .run import Run, make_run
from .schedule import learning_rate
from .state import Setup, Snapshot, State


def fit(
    network: nn.Module,
    data,
    recipe: "str | Recipe" = "short",
    *,
    epochs: int | None = None,
    folder: str | Path | None = None,
    resume: bool = True,
    seed: int = 0,
    device: torch.device | str | None = None,
    loss: nn.Module | None = None,
    checkpoint_every: int | None = None,
    on_out_of_memory: str = "raise",
    progress: str = "auto",
) -> Run:
    """Train a network on the training split, watched on the validation split.

    The test split is not touched. Afterwards the network holds the weights of the best
    epoch by validation top-1 (of the last one, with `keep: last`) and is in evaluation
    mode. In several processes (see `nbs_utils.distributed`) each calls this in the
    same way, and all take the same steps.

    Args:
        network: takes images (B, C, H, W) and returns logits (B, K); in training mode
            it may return a tuple, (logits, auxiliary logits, ...), whose losses are
            weighted by the recipe's `aux_weight`.
        data: what `load_data` returned; or a `Dataset` or `DataLoader` of
            (image, label), of which a tenth becomes the validation split, or a pair
            (training, validation) of these.
        recipe: a name (see `list_recipes`), the path of a YAML file, or a `Recipe`.
        epochs: another length for the recipe; its schedule is stretched to it.
        folder: keeps `last.pt` after each epoch, `best.pt` and `recipe.yml`; None
            keeps nothing on disk.
        resume: go on where the folder's run stopped, exactly as if it had not. False
            starts again and keeps what was there as `previous-last.pt` and so on.
        seed: of all that is drawn while training: order, augmentation, mixup, dropout.
        device: by default where the data is.
        loss: a module of logits (B, K) and targets, (B,) or after mixup and CutMix
            (B, K), that returns a mean over the images, instead of the recipe's.
        checkpoint_every: also write a checkpoint after every so many steps.
        on_out_of_memory: "raise", or "halve": halve the part of a batch that is worked
            on at a time, and add the gradients up.
        progress: "auto", "curve", "lines" or "off".

    Raises:
        ValueError: an argument is wrong, or network and data do not fit together.
        TrainingDiverged: the loss is NaN or infinite.
        OutOfMemory: a batch does not fit into memory.
        CheckpointError: the folder cannot be written to, or holds another run.
    """
    data = as_data(data)
    state, setup = prepare(
        network,
        data,
        recipe,
        epochs=epochs,
        folder=folder,
        resume=resume,
        seed=seed,
        device=device,
        loss=loss,
        checkpoint_every=checkpoint_every,
        on_out_of_memory=on_out_of_memory,
        progress=progress,
    )
    with left_as_found(state):
        status = train(state, setup)
    if setup.recipe.keep == "best" and state.best_weights is not None:
        state.network.load_state_dict(state.best_weights)
    elif state.average:
        state.network.load_state_dict(state.average.network.state_dict())
    network.description = describe(network, data)  # for `predict`
    run = make_run(state, setup, status)
    setup.progress.finish(state.history, run)
    return run


@contextmanager
def left_as_found(state: State) -> Iterator[None]:
    """Let cuDNN choose its kernels by trying, and undo this and more after training.

    The network ends in evaluation mode and in the usual layout in memory.
    """
    tried = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # shapes stay the same: try kernels once
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = tried
        state.optimizer.zero_grad(set_to_none=True)
        state.network.to(memory_format=torch.contiguous_format)
        state.network.eval()


def train(state: State, setup: Setup) -> str:
    """Go round in epochs to the end, or until stopped; return the run's status."""
    try:
        with setup.stop as stop:
            while state.epoch < setup.recipe.epochs:
                train_epoch(state, setup)
                if not stop.pressed:
                    finish_epoch(state, setup)
                if stop.pressed and state.epoch < setup.recipe.epochs:
                    save(state, setup)
                    return "interrupted"
        return "finished"
    except (KeyboardInterrupt, RuntimeError) as error:
        if not was_stopped(error, state, setup):
            raise
        # In the middle of a step the weights are half old, half new: the checkpoint
        # written before is the one to keep.
        if not state.busy:
            save(state, setup)
        return "interrupted"


def train_epoch(state: State, setup: Setup) -> None:
    """Take the steps of an epoch, or those that are left of it.

    Numbers stay on the device: fetching one waits until the device has caught up. They
    are looked at four times a second, and when the epoch ends.
    """
    training_mode(state.network)
    started = time.perf_counter() - state.seconds
    batches = setup.train.batches(
        setup.batch_size, epoch=state.epoch, start=state.step, device=setup.device
    )
    for x, y in state.wait_for(batches) if state.step < setup.steps else ():
        state.busy = True
        setup.world.begin_step(
            setup.forward,
            len(y.chunk(state.accumulate)),
            *(setup.seed, state.epoch, state.step),
        )
        lr = current_lr(state, setup)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1)
        x, y = mix(x, y, state, setup)
        loss, correct = careful_step(state, setup, x, y)
        state.scores[state.step] = torch.stack([loss, correct, state.skipped])
        state.images += len(y) * setup.world.size
        state.step += 1
        state.seconds = time.perf_counter() - started
        state.busy = False
        if setup.progress.due():
            setup.progress.step(
                state.history,
                state.step,
                setup.steps,
                fetch_scores(state, setup)[0],
                state.images / state.seconds,
            )
        if setup.checkpoint_every and state.step % setup.checkpoint_every == 0:
            save(state, setup)
        if setup.stop.pressed:
            return


def train_step(
    state: State, setup: Setup, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward, backward, step.

    Args:
        x: images (B, C, H, W).
        y: classes (B,), or probabilities (B, K) after mixup and CutMix.

    Returns:
        The mean loss and the number of correct images, both on the device.
    """
    total, correct = 0.0, 0
    parts = state.accumulate
    for part_x, part_y in zip(x.chunk(parts), y.chunk(parts), strict=True):
        with setup.autocast():
            logits, *auxiliary = all_logits(setup.forward(setup.place(part_x)))
        # The mean over the batch is the mean of the parts, each by its share.
        share = len(part_x) / len(x)
        loss = setup.loss(logits.float(), part_y) * share
        total = total + loss.detach()
        for more in auxiliary:  # classifiers on the way, as in GoogLeNet
            more = setup.loss(more.float(), part_y) * share
            loss = loss + setup.recipe.aux_weight * more
        # Small gradients vanish in float16; the scaler multiplies them out of the
        # danger and divides them again before the step.
        state.scaler.scale(loss).backward()
        correct = correct + count_correct(logits, part_y)
    if setup.recipe.clip_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), setup.recipe.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    return total, correct


def careful_step(
    state: State, setup: Setup, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Take a step that may overflow float16 or run out of memory.

    Nothing here waits for the device, float16 or not. (RMSProp does: PyTorch's asks
    whether a gradient overflowed before it steps.)
    """
    # A forward pass moves batch norm's statistics even if the step is then not taken.
    careful = setup.halve or setup.precision.scaler
    before = Snapshot(state.network.buffers()) if careful else None
    scale = state.scaler.scale(state.one)
    while True:
        try:
            result = train_step(state, setup, x, y)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Here, behind the except, the traceback is gone, and with it what it held.
        make_room(state, setup, x)
        before.restore()

    if setup.precision.scaler:
        # The scaler leaves a step out where a gradient overflowed, and goes down.
        overflowed = state.scaler.scale(state.one) < scale
        before.restore(where=overflowed)
        state.skipped = (state.skipped + 1) * overflowed
    if state.average:
        state.average.update(state.network)
    return result


def mix(x: Tensor, y: Tensor, state: State, setup: Setup) -> tuple[Tensor, Tensor]:
    """Mix the images of a batch in pairs, if the recipe asks for mixup or CutMix."""
    mixup, cutmix = setup.recipe.mixup, setup.recipe.cutmix
    if not (mixup or cutmix):
        return x, y
    # Drawn from (seed, epoch, step), so that a resumed run draws the same.
    position = setup.world.own(state.epoch, state.step)
    seed = runtime.derive_seed(setup.seed, *position)
    generator = torch.Generator().manual_seed(seed)
    if cutmix and (not mixup or random.Random(seed).random() < 0.5):
        x, (a, b, share) = augment.cutmix(x, y, cutmix, generator)
    else:
        x, (a, b, share) = augment.mixup(x, y, mixup, generator)
    return x, mixed_targets(a, b, share, setup.data.num_classes)


def current_lr(state: State, setup: Setup) -> float:
    """Return the learning rate of the step that comes next."""
    step = state.epoch * setup.steps + state.step
    return learning_rate(setup.recipe, step, setup.steps, state.plateau.factor)


@torch.no_grad()
def validate(network: nn.Module, setup: Setup, batch_size: int) -> dict[str, float]:
    """Score a network on the validation split, in order and without augmentation.

    Returns:
        val_loss, val_top1 and val_top5: sums over all images divided by their number,
        so that a short last batch counts for what it holds.
    """
    network.eval()
    loss = torch.zeros((), device=setup.device)
    top1 = torch.zeros((), dtype=torch.int64, device=setup.device)
    top5 = torch.zeros_like(top1)
    for x, y in setup.val.batches(batch_size, device=setup.device):
        with setup.autocast():
            logits = network(setup.place(x)).float()
        loss += setup.loss(logits, y) * len(y)
        top1 += count_correct(logits, y)
        top5 += count_correct(logits, y, k=5)
    (sums,) = setup.world.sum(torch.stack([loss, top1.float(), top5.float()]))
    sums = sums.tolist()  # one transfer
    names = ("val_loss", "val_top1", "val_top5")
    return {k: v / len(setup.data.val) for k, v in zip(names, sums, strict=True)}


def finish_epoch(state: State, setup: Setup) -> None:
    """Validate, write the history's row, keep a checkpoint."""
    started = time.perf_counter()
    scores, waited = setup.world.end_epoch(
        state.scores, state.waited, state.network, state.average and state.scored
    )
    loss, correct = fetch_scores(state, setup, scores)
    # here the device has finished
    state.seconds += time.perf_counter() - started
    started = time.perf_counter()
    last_step = state.epoch * setup.steps + setup.steps - 1
    row = {
        "epoch": state.epoch + 1,
        "lr": learning_rate(setup.recipe, last_step, setup.steps, state.plateau.factor),
        "train_loss": loss,
        "train_top1": correct / state.images,
        **validate(state.scored, setup, validation_batch_size(state, setup)),
        "images_per_second": state.images / state.seconds,
        "waiting": waited / state.seconds,
    }
    if not math.isfinite(row["val_loss"]):
        what = f"The validation loss is {row['val_loss']:g} after the last step"
        raise diverged(state, setup, what, setup.steps - 1)
    row["seconds"] = state.seconds + time.perf_counter() - started
    better = state.finish_epoch(row)
    save(state, setup)
    if better:
        save_best(state, setup)
    setup.progress.epoch(state.history, better)


def validation_batch_size(state: State, setup: Setup) -> int:
    """Return as many images as a process holds at a time while it trains."""
    return max(1, setup.batch_size // (state.accumulate * setup.world.size))
