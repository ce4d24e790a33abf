"""What watches over training: fit of network and data, finite losses, memory."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..distributed import World
from ..runtime import Precision
from .errors import (
    OutOfMemory,
    TrainingDiverged,
    is_out_of_memory,
    likely_causes,
    out_of_memory_message,
)
from .losses import all_logits
from .schedule import learning_rate
from .state import MEMORY_FORMATS, Setup, Snapshot, State

# After so many steps in a row that overflowed float16, no step will ever succeed.
_MOST_SKIPPED = 30


def check_fit(network: nn.Module, setup: Setup) -> None:
    """Try a network on two images, as it will be trained and evaluated.

    Both modes are tried, in the layout in memory and the precision of the training to
    come. Where "auto" chose one of these and the network cannot work in it, another is
    taken and said. Buffers stay as they were; the network keeps the layout.

    Raises:
        ValueError: no image to validate on; the network does not take the images, in
            what the recipe asks for; or it does not return one number per class.
    """
    data = setup.data
    if len(data.val) == 0:
        raise ValueError(
            f"The validation split of {data.title} is empty, so no epoch can be chosen "
            "as the best: load the data with a val_size above 0."
        )
    x, _ = next(iter(data.train.batches(2, device=setup.device)))
    name, problem = type(network).__name__, None
    if any(map(is_lazy, network.parameters())):
        network.eval()(x)  # its shapes are made by the first images it sees
    for layout, precision in _forms(setup):
        try:
            returned = _try_out(network, setup, x, layout, precision)
        except RuntimeError as error:
            if is_out_of_memory(error):
                return  # the first step will say what to do
            problem, first = error, problem or error
            continue
        break
    else:
        raise ValueError(
            f"{name} does not take images of {data.title}, a batch of shape "
            f"{tuple(x.shape)}: {problem}"
        ) from problem
    if problem:
        _change_form(name, setup, layout, precision, first)
    for mode, outputs in zip(("evaluation", "training"), returned, strict=True):
        _check_outputs(f"{name}, in {mode} mode,", outputs, len(x), mode, data)


def _forms(setup: Setup) -> list[tuple[bool, Precision]]:
    """Return layouts and precisions to try: the chosen ones, then plainer ones."""
    plain = Precision(torch.float32, False, "the network computes in nothing else")
    layouts = (True, False) if setup.channels_last else (False,)
    kinds = (setup.precision,)
    if setup.precision.dtype != plain.dtype:
        kinds = (setup.precision, plain)
    return [(layout, kind) for kind in kinds for layout in layouts]


def _try_out(
    network: nn.Module, setup: Setup, x: Tensor, layout: bool, precision: Precision
) -> list[Any]:
    """Return what a network returns in evaluation and in training mode."""
    network.to(memory_format=MEMORY_FORMATS[layout])
    form = replace(setup, channels_last=layout, precision=precision)
    before = Snapshot(network.buffers())
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad(), form.autocast():
            return [network.train(mode)(form.place(x)) for mode in (False, True)]
    finally:
        before.restore()
        for module, mode in modes.items():
            module.training = mode


def _change_form(
    name: str, setup: Setup, layout: bool, precision: Precision, error: Exception
) -> None:
    """Take the layout and precision in which a network works, or refuse.

    Raises:
        ValueError: the recipe asks for one in which it does not work.
    """
    reason = str(error).strip().split("\n")[0].rstrip(".")
    changes = []
    for key, wanted, works, word in (
        ("channels_last", setup.channels_last, layout, str(layout).lower()),
        ("precision", setup.precision.dtype, precision.dtype, str(precision)),
    ):
        if wanted == works:
            continue
        changes.append(f"{key}={word}")
        if getattr(setup.recipe, key) != "auto":
            hint = ""
            if key == "channels_last":
                hint = ", or write x.flatten(1) in it where it has x.view"
            raise ValueError(
                f"{name} cannot be trained with {key}="
                f"{str(getattr(setup.recipe, key)).lower()} ({reason}). It works with "
                f"{key}={word}: set that in the recipe{hint}."
            ) from error
    setup.progress.say(
        f"{name} cannot be trained in the form that is fastest here ({reason}); it is "
        f"trained with {' and '.join(changes)} instead."
    )
    setup.channels_last, setup.precision = layout, precision


def _check_outputs(who: str, outputs: Any, images: int, mode: str, data: Any) -> None:
    """Refuse outputs that are not logits, one number per image and class.

    Raises:
        ValueError: a shape is wrong, or evaluation mode returns more than one tensor.
    """
    parts = all_logits(outputs) if mode == "training" else (outputs,)
    wanted = (images, data.num_classes)
    for part in parts or (None,):
        tensor = isinstance(part, Tensor)
        shape = tuple(part.shape) if tensor else type(part).__name__
        if shape == wanted:
            continue
        hint = f"Build it with num_classes={data.num_classes}."
        if isinstance(part, (tuple, list)):
            hint = (
                "Auxiliary logits belong to training mode: return the logits alone "
                "where self.training is False."
            )
        raise ValueError(
            f"{who} returned {shape} for {images} images of {data.title}, which has "
            f"{data.num_classes} classes; expected {wanted}, one number per class. "
            f"{hint}"
        )


def leaves_weights_unused(network: nn.Module, setup: Setup) -> bool:
    """Tell whether some weights have no part in what a network returns in training.

    Several processes must know, since they wait for every gradient. It is found out
    with two images; a network that leaves out other parts in every step, drawn by
    chance, is not recognized, and PyTorch says so when it trains.
    """
    x, _ = next(iter(setup.data.train.batches(2, device=setup.device)))
    before = Snapshot(network.buffers())
    mode = network.training
    try:
        with setup.autocast():
            outputs = all_logits(network.train()(setup.place(x)))
        total = sum(part.float().sum() for part in outputs)
        weights = [p for p in network.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    finally:
        before.restore()
        network.train(mode)
    return any(gradient is None for gradient in gradients)


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
        TrainingDiverged: a loss is NaN or infinite, or too many steps in a row
            overflowed float16.
    """
    scores = state.scores if scores is None else scores
    losses, correct, skipped = scores[: state.step].cpu().double().T
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise diverged(state, setup, f"The loss is {losses[bad[0]]:g}", bad[0])
    lost = (skipped > _MOST_SKIPPED).nonzero().flatten().tolist()
    if lost:
        count = int(skipped[lost[0]])
        raise diverged(state, setup, f"{count} steps in a row overflowed", lost[0])
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
