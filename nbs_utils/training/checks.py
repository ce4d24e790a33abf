"""What watches over training: fit of network and data, finite losses, memory."""

import torch
from torch import Tensor, nn

from ..distributed import World
from .errors import (
    OutOfMemory,
    TrainingDiverged,
    is_out_of_memory,
    likely_causes,
    out_of_memory_message,
)
from .schedule import learning_rate
from .state import Setup, State


def check_fit(network: nn.Module, setup: Setup) -> None:
    """Refuse a network that does not fit the data, before anything is trained.

    Raises:
        ValueError: no image to validate on, or the network does not take the images
            or does not return one number per class.
    """
    data = setup.data
    if len(data.val) == 0:
        raise ValueError(
            f"The validation split of {data.title} is empty, so no epoch can be chosen "
            "as the best: load the data with a val_size above 0."
        )
    x, _ = next(iter(data.val.batches(2, device=setup.device)))
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            logits = network(x)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{type(network).__name__} does not take images of {data.title}, a batch "
            f"of shape {tuple(x.shape)}: {error}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    wanted = (len(x), data.num_classes)
    if shape != wanted:
        raise ValueError(
            f"{type(network).__name__} returned {shape} for {len(x)} images of "
            f"{data.title}, which has {data.num_classes} classes; expected {wanted}, "
            f"one number per class. Build it with num_classes={data.num_classes}."
        )


def check_shares(processes: World, batch_size: int, halve: bool) -> None:
    """Refuse what several processes cannot do in the same way.

    Raises:
        ValueError: a batch has no equal shares, or one process alone might halve its.
    """
    processes.share_of(batch_size)
    if processes.size > 1 and halve:
        raise ValueError(
            "on_out_of_memory='halve' works in one process only: here, all must divide "
            "their batches alike. Set the recipe's accumulate instead."
        )


@torch.no_grad()
def restore(buffers: list[Tensor], before: list[Tensor]) -> None:
    """Give buffers the values they had."""
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)


def make_room(state: State, setup: Setup, x: Tensor) -> None:
    """Free what a failed step held; halve the parts of a batch, or give up.

    Raises:
        OutOfMemory: halving is not asked for, or parts of one image are too large.
    """
    state.optimizer.zero_grad(set_to_none=True)
    if setup.device.type == "cuda":
        torch.cuda.empty_cache()
    if not setup.halve or state.accumulate >= len(x):
        raise OutOfMemory(
            out_of_memory_message(tuple(x.shape), state.accumulate, setup.device)
        )
    state.accumulate = min(2 * state.accumulate, len(x))
    setup.progress.say(
        f"Out of memory: each batch of {len(x)} is now worked through in "
        f"{state.accumulate} parts. The gradients add up to the same step, but batch "
        f"norm sees batches of {-(-len(x) // state.accumulate)} only."
    )


def fetch_scores(
    state: State, setup: Setup, scores: Tensor | None = None
) -> tuple[float, int]:
    """Fetch this epoch's scores; return the mean loss and the number of correct images.

    This is the one transfer from the device while an epoch is trained.

    Args:
        scores: those of all processes; by default those of this one.

    Raises:
        TrainingDiverged: a loss is NaN or infinite.
    """
    scores = state.scores if scores is None else scores
    losses, correct = scores[: state.step].cpu().double().T
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise diverged(state, setup, f"The loss is {losses[bad[0]]:g}", bad[0])
    return losses.mean().item(), int(correct.sum())


def diverged(state: State, setup: Setup, what: str, step: int) -> TrainingDiverged:
    """Return the error that says where and why training diverged."""
    recipe = setup.recipe
    x, _ = next(
        iter(
            setup.train.batches(
                setup.batch_size, epoch=state.epoch, start=step, device=setup.device
            )
        )
    )
    first = state.epoch * setup.steps + step
    lr = learning_rate(recipe, first, setup.steps, state.plateau.factor)
    causes = likely_causes(
        lr,
        recipe.schedule == "onecycle" or recipe.warmup_epochs > 0,
        recipe.clip_norm is not None,
        str(setup.precision),
        bool(x.isfinite().all()),
    )
    return TrainingDiverged(what, state.epoch + 1, step + 1, lr, causes, setup.kept)
