"""What stays the same while a network trains, and what changes.

All that changes is in `State`, and all of it goes into a checkpoint.
"""

import copy
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import World
from ..runtime import Precision
from .checkpoints import generator_states, set_generator_states
from .errors import StopButton
from .progress import Progress
from .recipe import Recipe
from .schedule import Plateau, make_optimizer

MEMORY_FORMATS = {True: torch.channels_last, False: torch.contiguous_format}


@dataclass
class Setup:
    """What stays the same while a network trains.

    Attributes:
        data: an `ImageData`; `train` is its training split, shuffled by our seed, and
            `val` its validation split; of both, the part of this process.
        batch_size: of all processes together.
        steps: of an epoch.
        forward: the network, compiled if the recipe says so; with several processes,
            the network in `DistributedDataParallel`.
        halve: divide batches further when memory runs out.
        identity: what must be the same for a checkpoint to belong to this run.
        kept: the last good checkpoint, if there is one.
        world: this process among those that train together.
    """

    recipe: Recipe
    data: Any
    train: Any
    val: Any
    seed: int
    device: torch.device
    batch_size: int
    steps: int
    precision: Precision
    channels_last: bool
    forward: nn.Module
    loss: nn.Module
    halve: bool
    checkpoint_every: int | None
    folder: Path | None
    progress: Progress
    stop: StopButton
    identity: dict[str, Any]
    kept: Path | None = None
    world: World = field(default_factory=World)

    def place(self, x: Tensor) -> Tensor:
        """Lay images out in memory as the network's filters are."""
        if self.channels_last:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def autocast(self) -> torch.autocast:
        """Return the context in which the chosen precision is computed in."""
        dtype = self.precision.dtype
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)


class Average:
    """The moving average of a network's weights (Polyak and Juditsky, 1992).

    After each step, average = d * average + (1 - d) * weights. A young average would
    be dominated by the first, random weights; so d begins at 1/10 and grows as
    (1 + t) / (10 + t) until it reaches `decay`. A step that overflowed float16 and
    was left out counts like one that did not move the weights.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay, self.updates = decay, 0
        self._weights = list(self.network.parameters()), list(network.parameters())

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights, and batch norm's statistics, after a step."""
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averaged, current = ([*pair] for pair in self._weights)
        buffers = zip(self.network.buffers(), network.buffers(), strict=True)
        for mine, now in buffers:  # modules may have put others in their place
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(now)
            else:
                mine.copy_(now)  # counters, such as num_batches_tracked
        torch._foreach_lerp_(averaged, current, 1 - d)  # all in a few kernels


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Begin SGD with a momentum of zero.

    Where its very first step overflows and is left out, PyTorch's fused SGD would keep
    memory that nobody has written to as the momentum of the second.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            state["momentum_buffer"] = torch.zeros_like(parameter)


class Snapshot:
    """The values of some buffers at one moment, to go back to.

    Args:
        buffers: the tensors to watch; they may change in place.
    """

    def __init__(self, buffers: Iterable[Tensor]):
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for buffer in buffers:
            kinds.setdefault(buffer.dtype, []).append(buffer)
        # Side by side in one tensor of each type: a few kernels, however many buffers.
        self._kept = [(same, flatten(same)) for same in kinds.values()]

    @torch.no_grad()
    def restore(self, where: Tensor | None = None) -> None:
        """Give the buffers the values they had.

        Args:
            where: only if this is true. It stays on its device: nothing waits for it.
        """
        for buffers, before in self._kept:
            values = before
            if where is not None:
                values = torch.where(where, before, flatten(buffers))
            pieces = values.split([b.numel() for b in buffers])
            torch._foreach_copy_(
                buffers, [p.view(b.shape) for p, b in zip(pieces, buffers, strict=True)]
            )


def flatten(tensors: list[Tensor]) -> Tensor:
    """Return the values of tensors of one type, one after another, as a copy."""
    return torch.cat([t.detach().reshape(-1) for t in tensors])


class State:
    """A network in training: weights, optimizer, position, scores so far.

    Attributes:
        epoch, step: what comes next: epochs finished, and steps finished in this one.
        scores: (steps, 3), loss, number of correct images, and how many steps in a
            row had overflowed float16 by then, for each step of this epoch, on the
            device; they are fetched together.
        skipped: the last of these counts so far, on the device.
        images, seconds: trained in this epoch so far, by all processes together.
        waited: seconds of these in which the next batch was not there yet.
        accumulate: into how many parts a batch is divided.
        history: one row for each finished epoch.
        best_epoch, best_top1, best_weights: by validation; the weights lie on the CPU.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        steps: int,
        device: torch.device,
        scale: bool = False,
    ):
        self.network = network
        self.optimizer = make_optimizer(network, recipe)
        if scale:
            start_momentum(self.optimizer)
        # where it is not enabled, the scaler hands everything through unchanged
        self.scaler = torch.amp.GradScaler(device.type, enabled=scale)
        self.plateau = Plateau(recipe)
        self.average = Average(network, recipe.ema) if recipe.ema else None
        self.epoch = self.step = self.images = 0
        self.seconds = self.waited = 0.0
        self.scores = torch.zeros(steps, 3, device=device)
        self.accumulate = recipe.accumulate
        self.busy = False  # in the middle of something that must not be cut in two
        self.skipped = torch.zeros((), device=device)
        self.one = torch.ones((), device=device)  # to see the scale without waiting
        self.history: list[dict[str, float]] = []
        self.best_epoch, self.best_top1 = 0, -math.inf
        self.best_weights: dict[str, Tensor] | None = None

    @property
    def scored(self) -> nn.Module:
        """The network that is validated: the average, where there is one."""
        return self.average.network if self.average else self.network

    def wait_for(self, batches: Iterable) -> Iterator:
        """Yield batches, and note how long each one was waited for."""
        started = time.perf_counter()
        for batch in batches:
            self.waited += time.perf_counter() - started
            yield batch
            started = time.perf_counter()

    def finish_epoch(self, row: dict[str, float]) -> bool:
        """Add a row to the history; return True where the epoch is the best so far."""
        self.busy = True
        self.history.append(row)
        self.plateau.update(row["val_top1"])
        self.epoch += 1
        self.step = self.images = 0
        self.seconds = self.waited = 0.0
        better = row["val_top1"] > self.best_top1
        if better:
            self.best_epoch, self.best_top1 = self.epoch, row["val_top1"]
            self.best_weights = self.weights()
        self.busy = False
        return better

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that are validated, on the CPU."""
        return {
            name: value.detach().to("cpu", copy=True)
            for name, value in self.scored.state_dict().items()
            if isinstance(value, Tensor)
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold for the run to go on exactly."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": self.plateau.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "average_updates": self.average.updates if self.average else 0,
            "generators": generator_states(),
            "epoch": self.epoch,
            "step": self.step,
            "images": self.images,
            "seconds": self.seconds,
            "waited": self.waited,
            "scores": self.scores,
            "skipped": self.skipped,
            "accumulate": self.accumulate,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_top1": self.best_top1,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint held; the best weights come from elsewhere."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.plateau.load_state_dict(state["plateau"])
        if self.average:
            self.average.network.load_state_dict(state["average"])
            self.average.updates = state["average_updates"]
        self.scores.copy_(state["scores"])
        self.skipped.copy_(state["skipped"])
        for key in ("epoch", "step", "images", "seconds", "accumulate"):
            setattr(self, key, state[key])
        self.waited = state.get("waited", 0.0)
        self.history = list(state["history"])
        self.best_epoch, self.best_top1 = state["best_epoch"], state["best_top1"]
        set_generator_states(state["generators"])
