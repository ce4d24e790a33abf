"""Everything that is decided before the first step: from arguments to State and Setup."""

import copy
from pathlib import Path

import torch
from torch import nn

from .. import runtime
from ..distributed import in_parallel, world
from ..syncnorm import synchronize_batch_norm
from .checks import check_fit, check_shares, leaves_weights_unused
from .errors import StopButton
from .identity import run_identity
from .losses import make_loss, own_loss
from .progress import Progress
from .recipe import Recipe
from .resuming import open_folder
from .small import advice
from .state import Setup, State


def prepare(
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
) -> tuple[State, Setup]:
    """Check what `fit` was given and make all that its loop needs.

    Afterwards the network is on its device, in the layout in memory that it trains in,
    and where the folder holds a run, with that run's weights.

    Args, Raises: those of `fit`.
    """
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
    device = torch.device(device or data.device)
    batch_size = min(recipe.batch_size or data.batch_size, len(data.train))
    recipe = recipe.scaled_to(batch_size)
    check_shares(processes, batch_size, on_out_of_memory == "halve")
    precision = runtime.precision(recipe.precision, device)
    train = copy.copy(processes.share(data.train))
    train.seed = seed
    title = f"{type(network).__name__} on {data.title}"
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
        channels_last=recipe.channels_last is True
        or recipe.channels_last == "auto"
        and (device.type == "cpu" or precision.dtype != torch.float32),
        forward=network,
        loss=(loss or make_loss(recipe, data.train.labels, data.num_classes)).to(
            device
        ),
        halve=on_out_of_memory == "halve",
        checkpoint_every=checkpoint_every,
        folder=Path(folder) if folder is not None else None,
        progress=Progress(progress if processes.first else "off", title, recipe.epochs),
        # several processes cannot stop between the same two steps: torchrun ends them
        stop=StopButton(active=processes.size == 1),
        identity=run_identity(recipe, data, seed, batch_size) | own_loss(loss),
        world=processes,
    )
    hint = advice(len(data.train), batch_size, recipe)
    if hint and str(data.name).startswith("imagefolder:"):  # a folder of one's own
        setup.progress.say(hint)
    network.to(device)
    check_fit(network, setup)
    unused = processes.size > 1 and leaves_weights_unused(network, setup)
    if recipe.sync_batchnorm and processes.size > 1:
        network = synchronize_batch_norm(network, device)
    forward = torch.compile(network) if recipe.compile else network
    setup.forward = in_parallel(forward, device, unused)
    runtime.seed_everything(seed)
    state = State(network, recipe, setup.steps, device, setup.precision.scaler)
    if setup.folder is not None:
        open_folder(state, setup, resume)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        runtime.keep_freed_memory()
    return state, setup
