"""What can go wrong in training, said in sentences."""

import signal
import threading
from pathlib import Path

import torch

from ..runtime import device_name


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite, or no step could be taken any more.

    Attributes:
        epoch, step: where, counted from 1; `step` within the epoch.
        lr: the learning rate of that step.
        checkpoint: path of the last good checkpoint, or None.
    """

    def __init__(
        self,
        what: str,
        epoch: int,
        step: int,
        lr: float,
        causes: list[str],
        checkpoint: Path | None,
    ):
        self.epoch, self.step, self.lr, self.checkpoint = epoch, step, lr, checkpoint
        kept = (
            f"The last good checkpoint is {checkpoint}."
            if checkpoint
            else "No checkpoint was kept: fit(folder=...) keeps one after each epoch."
        )
        reasons = "".join(f"\n  - {cause}" for cause in causes)
        super().__init__(
            f"{what} in epoch {epoch}, step {step}, at learning rate {lr:.3g}. "
            f"Likely causes:{reasons}\n{kept}"
        )


def likely_causes(
    lr: float, warmed_up: bool, clipped: bool, precision: str, images_finite: bool
) -> list[str]:
    """Return why a loss may have become NaN or infinite, the likeliest first."""
    if not images_finite:
        cause = (
            "the images of this batch hold NaN or infinity before they reach the "
            "network: check the files, the augmentation and the standard deviation"
        )
        return [cause]
    causes = [f"the learning rate is too high: try lr={lr / 10:.2g}"]
    if not warmed_up:
        causes.append("the start is too abrupt: try warmup_epochs=1")
    if not clipped:
        causes.append("now and then a gradient is very large: try clip_norm=1.0")
    if precision == "float16":
        causes.append(
            "float16 ends at 65,504: precision='float32' shows whether that is it"
        )
    causes.append(
        "the network divides by zero, takes the logarithm of zero, or starts from "
        "weights that are far too large"
    )
    return causes


class OutOfMemory(RuntimeError):
    """The device's memory was too small for a batch; what fit held was freed."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an exhausted memory from other errors, on GPUs and on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def out_of_memory_message(shape: tuple[int, ...], parts: int, device) -> str:
    """Return what to tell a person whose memory was exhausted.

    Args:
        shape: of the batch, (B, C, H, W).
        parts: into how many parts it was divided.
        device: where it happened.
    """
    batch = shape[0]
    size = " x ".join(str(n) for n in shape[1:])
    per_part = f", {-(-batch // parts)} at a time" if parts > 1 else ""
    smaller = max(1, batch // 2)
    return (
        f"Out of memory on {device_name(device)} with a batch size of {batch}{per_part}"
        f" (images of {size}). Try, in this order: recipe.replace(accumulate="
        f"{2 * parts}), which takes the same steps in smaller parts, or "
        f'fit(on_out_of_memory="halve"), which does so by itself; batch_size={smaller}; '
        'precision="auto" where it is float32; smaller images; a smaller network.'
    )


def was_stopped(error: BaseException, state, setup) -> bool:
    """Tell whether training ended because the stop button was pressed.

    It may have been pressed twice, or not in the main thread. And it also ends the
    processes that read images, so that the next batch may never come. Several
    processes do not stop: torchrun ends them.
    """
    if isinstance(error, KeyboardInterrupt):
        return setup.world.size == 1
    return setup.stop.pressed and not state.busy


class StopButton:
    """Turns the stop button into a wish that the loop grants between two steps.

    An interrupt can arrive in the middle of an update, when half of the weights are
    new. So the first one is only noted; a second one interrupts at once. Python allows
    this in the main thread only; elsewhere, nothing changes.
    """

    def __init__(self, active: bool = True):
        self.pressed, self._wanted = False, active

    def __enter__(self):
        main = threading.current_thread() is threading.main_thread()
        self._active = self._wanted and main
        if self._active:
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def _press(self, number, frame) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True

    def __exit__(self, *_) -> None:
        if self._active and self._before is not None:
            signal.signal(signal.SIGINT, self._before)
