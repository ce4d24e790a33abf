"""What training leaves behind: the history, the best epoch, time and memory."""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from ..runtime import device_name
from .recipe import Recipe
from .state import Setup, State

COLUMNS = [
    "epoch",
    "lr",
    "train_loss",
    "train_top1",
    "val_loss",
    "val_top1",
    "val_top5",
    "seconds",
    "images_per_second",
    "waiting",
]


@dataclass(frozen=True)
class Run:
    """A run of `fit`.

    Attributes:
        history: one row for each epoch. `lr` is that of the epoch's last step; the
            losses are those that the recipe asks for (smoothed, where it smooths),
            without those of auxiliary classifiers, so that training and validation
            can be compared; top-1 and top-5 are
            fractions in [0, 1]; `seconds` is the whole epoch, `images_per_second`
            its training part, and `waiting` the share of that part in which the next
            batch was not there yet (read, augmented, on its way to the device).
        best_epoch, best_top1: chosen on the validation split; 0 and NaN where no
            epoch was finished.
        epochs, steps: finished in all, including those before a resume.
        seconds: of all epochs together.
        images_per_second: training images over the time of training, without
            validation.
        peak_memory: bytes; of the GPU, or of the whole process on a CPU.
        status: "finished" or "interrupted".
        folder: where the checkpoints are, or None.
    """

    history: pd.DataFrame = field(repr=False)
    best_epoch: int
    best_top1: float
    epochs: int
    steps: int
    seconds: float
    images_per_second: float
    peak_memory: int
    recipe: Recipe
    seed: int
    device_name: str
    precision: str
    status: str
    folder: Path | None

    def __repr__(self) -> str:
        interrupted = self.status == "interrupted"
        done = f"{self.epochs} epoch{'s' if self.epochs != 1 else ''}"
        text = f"{'Interrupted after' if interrupted else 'Trained'} {done}"
        text += f" in {describe_seconds(self.seconds)}"
        if self.best_epoch:
            text += (
                f": best validation top-1 {100 * self.best_top1:.1f} % "
                f"(epoch {self.best_epoch})"
            )
        if self.images_per_second:
            text += f", {self.images_per_second:,.0f} images/s"
        return f"{text}, {self.precision}, {self.device_name}"


def describe_seconds(seconds: float) -> str:
    """Return a length of time for people, as in "12.3 s" or "4 min 5 s"."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def peak_memory(device: torch.device) -> int:
    """Return the most memory used so far, in bytes.

    On CUDA this counts since `torch.cuda.reset_peak_memory_stats`; on a CPU it is the
    largest size of the whole process since it began, and 0 where that is not known.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes


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
        device_name=setup.world.describe(device_name(setup.device)),
        precision=str(setup.precision),
        status=status,
        folder=setup.folder,
    )
