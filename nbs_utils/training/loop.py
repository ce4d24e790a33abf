"""The training loop of the book.

`fit` prepares, then goes round in epochs: `train_epoch` takes the steps, `validate`
scores the network on images it does not learn from, and a checkpoint keeps what was
reached. `train_step` is the heart: forward, backward, step. What changes on the way is
kept in a `State`, what stays the same in a `Setup`.
"""

import copy
import math
import random
import time
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from .. import runtime
from ..data.adapting import as_data
from ..distributed import begin_step, in_parallel, world
from ..syncnorm import synchronize_batch_norm
from .checks import check_fit, check_shares, diverged, fetch_scores, make_room, restore
from .depth import training_mode
from .description import describe
from .errors import StopButton, is_out_of_memory
from .losses import count_correct, make_loss, mixed_targets
from .progress import Progress
from .recipe import Recipe
from .resuming import open_folder, save, save_best
from .run import COLUMNS, Run, peak_memory
from .schedule import learning_rate
from .state import Setup, State

# After so many steps in a row that overflowed float16, no step will ever succeed.
_MOST_SKIPPED = 30


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
        network: takes images (B, C, H, W) and returns logits (B, K).
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
    recipe = Recipe.load(recipe)
    if epochs is not None:
        recipe = recipe.stretched(epochs)
    if on_out_of_memory not in ("raise", "halve"):
        raise ValueError(
            f"on_out_of_memory is {on_out_of_memory!r}; it must be raise or halve."
        )
    if checkpoint_every is not None and checkpoint_every < 1:
        raise ValueError(
            f"checkpoint_every is {checkpoint_every}; it must be at least 1, or None."
        )
    processes = world()
    progress = progress if processes.first else "off"
    device = torch.device(device or data.device)
    batch_size = min(recipe.batch_size or data.batch_size, len(data.train))
    recipe = recipe.scaled_to(batch_size)
    check_shares(processes, batch_size, on_out_of_memory == "halve")
    precision = runtime.precision(recipe.precision, device)
    channels_last = recipe.channels_last is True or (
        recipe.channels_last == "auto"
        and (device.type == "cpu" or precision.dtype != torch.float32)
    )
    train = copy.copy(processes.share(data.train))
    train.seed = seed
    setup = Setup(
        recipe=recipe,
        data=data,
        train=train,
        val=processes.share(data.val),
        seed=seed,
        device=device,
        batch_size=batch_size,
        steps=data.train.num_batches(batch_size, training=True),
        precision=precision,
        channels_last=channels_last,
        forward=network,
        loss=(loss or make_loss(recipe, data.train.labels, data.num_classes)).to(
            device
        ),
        halve=on_out_of_memory == "halve",
        checkpoint_every=checkpoint_every,
        folder=Path(folder) if folder is not None else None,
        progress=Progress(
            progress, f"{type(network).__name__} on {data.title}", recipe.epochs
        ),
        # several processes cannot stop between the same two steps: torchrun ends them
        stop=StopButton(active=processes.size == 1),
        world=processes,
    )
    if recipe.sync_batchnorm and processes.size > 1:
        network = synchronize_batch_norm(network, device)
    network.to(device)
    check_fit(network, setup)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    forward = torch.compile(network) if recipe.compile else network
    setup.forward = in_parallel(forward, device)
    runtime.seed_everything(seed)
    state = State(network, recipe, setup.steps, device, precision.scaler)
    if setup.folder is not None:
        open_folder(state, setup, resume)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.backends.cudnn.benchmark = True  # shapes stay the same: try kernels once
    elif device.type == "cpu":
        runtime.keep_freed_memory()

    status = "finished"
    try:
        with setup.stop as stop:
            while state.epoch < recipe.epochs:
                train_epoch(state, setup)
                if not stop.pressed:
                    finish_epoch(state, setup)
                if stop.pressed and state.epoch < recipe.epochs:
                    status = "interrupted"
                    save(state, setup)
                    break
    except KeyboardInterrupt:
        # Pressed twice, or not in the main thread. In the middle of a step the weights
        # are half old, half new: the checkpoint written before is the one to keep.
        if processes.size > 1:
            raise
        status = "interrupted"
        if not state.busy:
            save(state, setup)
    except RuntimeError:
        # The stop button also ends processes that read images, so that the next batch
        # may never come.
        if state.busy or not setup.stop.pressed:
            raise
        status = "interrupted"
        save(state, setup)
    finally:
        state.optimizer.zero_grad(set_to_none=True)
        if channels_last:
            network.to(memory_format=torch.contiguous_format)
        network.eval()

    if recipe.keep == "best" and state.best_weights is not None:
        network.load_state_dict(state.best_weights)
    elif state.average:
        network.load_state_dict(state.average.network.state_dict())
    network.description = describe(network, data)  # for `predict`
    run = make_run(state, setup, status)
    setup.progress.finish(state.history, run)
    return run


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
        setup.world.seed_step(setup.seed, state.epoch, state.step)
        lr = current_lr(state, setup)
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1)
        x, y = mix(x, y, state, setup)
        loss, correct = careful_step(state, setup, x, y)
        state.scores[state.step] = torch.stack([loss, correct])
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
            logits = setup.forward(setup.place(part_x))
        # The mean over the batch is the mean of the parts, each by its share.
        share = len(part_x) / len(x)
        loss = setup.loss(logits.float(), part_y) * share
        # Small gradients vanish in float16; the scaler multiplies them out of the
        # danger and divides them again before the step.
        state.scaler.scale(loss).backward()
        total = total + loss.detach()
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
    """Take a step that may overflow float16 or run out of memory."""
    # A forward pass moves batch norm's statistics even if the step is then not taken.
    careful = setup.halve or setup.precision.scaler
    buffers = list(state.network.buffers()) if careful else []
    before = [b.clone() for b in buffers]
    scale = state.scaler.get_scale()
    begin_step(setup.forward, len(x.chunk(state.accumulate)))
    while True:
        try:
            result = train_step(state, setup, x, y)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Here, behind the except, the traceback is gone, and with it what it held.
        make_room(state, setup, x)
        restore(buffers, before)

    if state.scaler.get_scale() < scale:  # overflow: the scaler left the step out
        restore(buffers, before)
        state.skipped += 1
        if state.skipped > _MOST_SKIPPED:
            raise diverged(
                state, setup, f"{state.skipped} steps in a row overflowed", state.step
            )
        return result
    state.skipped = 0
    if state.average:
        state.average.update(state.network)
    return result


def mix(x: Tensor, y: Tensor, state: State, setup: Setup) -> tuple[Tensor, Tensor]:
    """Mix the images of a batch in pairs, if the recipe asks for mixup or CutMix."""
    mixup, cutmix = setup.recipe.mixup, setup.recipe.cutmix
    if not (mixup or cutmix):
        return x, y
    from .. import augment

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
    loss, correct = fetch_scores(state, setup, setup.world.of_all(state.scores))
    # here the device has finished
    state.seconds += time.perf_counter() - started
    started = time.perf_counter()
    setup.world.copy_buffers(state.network)
    setup.world.copy_buffers(state.average and state.average.network)
    last_step = state.epoch * setup.steps + setup.steps - 1
    row = {
        "epoch": state.epoch + 1,
        "lr": learning_rate(setup.recipe, last_step, setup.steps, state.plateau.factor),
        "train_loss": loss,
        "train_top1": correct / state.images,
        **validate(state.scored, setup, validation_batch_size(state, setup)),
        "images_per_second": state.images / state.seconds,
        "waiting": setup.world.mean(state.waited / state.seconds),
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


def make_run(state: State, setup: Setup, status: str) -> Run:
    """Return what training leaves behind."""
    rows = state.history
    per_image = [1 / row["images_per_second"] for row in rows]  # seconds
    return Run(
        history=pd.DataFrame(rows, columns=COLUMNS),
        best_epoch=state.best_epoch,
        best_top1=state.best_top1 if state.best_epoch else math.nan,
        epochs=state.epoch,
        steps=state.epoch * setup.steps + state.step,
        seconds=sum(r["seconds"] for r in rows) + state.seconds,
        images_per_second=len(rows) / sum(per_image) if rows else 0.0,
        peak_memory=peak_memory(setup.device),
        recipe=setup.recipe,
        seed=setup.seed,
        device_name=setup.world.describe(runtime.device_name(setup.device)),
        precision=str(setup.precision),
        status=status,
        folder=setup.folder,
    )
