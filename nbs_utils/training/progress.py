"""What a person sees while a network trains."""

import sys
import time
from typing import Any

_SECONDS = 0.25  # between two redraws of the line: four a second are enough

MODES = ("auto", "curve", "lines", "off")


class Progress:
    """One line for each epoch on stderr; in a notebook, a curve that grows.

    Args:
        mode: "auto" takes the curve in a notebook and lines elsewhere; "off" is mute.
        title: set above the curve.
        epochs: how many there will be.
    """

    def __init__(self, mode: str, title: str, epochs: int):
        if mode not in MODES:
            raise ValueError(
                f"progress is {mode!r}; it must be one of {', '.join(MODES)}."
            )
        notebook = _in_notebook()
        self.mode = ("curve" if notebook else "lines") if mode == "auto" else mode
        self.epochs, self._next, self._dirty = epochs, 0.0, False
        self._curve = None
        if self.mode == "curve" and notebook:
            from ..figures import live_curve

            self._curve = live_curve(title, epochs=epochs)

    def due(self) -> bool:
        """Tell whether it is time to look at the numbers again."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _SECONDS
        return True

    def step(
        self, rows: list[dict], step: int, steps: int, loss: float, speed: float
    ) -> None:
        """Show where an epoch stands; rows are the finished epochs."""
        note = (
            f"epoch {len(rows) + 1} of {self.epochs}, step {step:,} of {steps:,}, "
            f"loss {loss:.3f}, {speed:,.0f} images/s"
        )
        if self._curve:
            self._curve.update(rows, note=note)
        elif self.mode == "lines" and sys.stderr.isatty():
            self._write(f"\r{note}\033[K")
            self._dirty = True

    def epoch(self, rows: list[dict], better: bool) -> None:
        """Show an epoch that has ended, the last of the rows."""
        if self._curve:
            self._curve.update(rows)
        elif self.mode in ("lines", "curve"):
            self.say(describe_epoch(rows[-1], self.epochs, better))

    def say(self, text: str) -> None:
        """Tell something that a person should know, in a line of its own."""
        if self.mode != "off":
            clear, self._dirty = ("\r\033[K" if self._dirty else ""), False
            self._write(f"{clear}{text}\n")

    def finish(self, rows: list[dict], summary: Any) -> None:
        """Leave the result: the static curve and one line."""
        if self._curve:
            self._curve.finish(rows)
            print(summary)
        elif self.mode != "off":
            self.say(str(summary))

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _in_notebook() -> bool:
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    return getattr(shell, "kernel", None) is not None


def describe_epoch(row: dict[str, float], epochs: int, better: bool) -> str:
    """Return the line of an epoch."""
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}   "
        f"train {row['train_loss']:.3f} {100 * row['train_top1']:5.1f} %   "
        f"val {row['val_loss']:.3f} {100 * row['val_top1']:5.1f} %"
        f"{' best' if better else '     '}   "
        f"{row['seconds']:.1f} s   {row['images_per_second']:,.0f} images/s   "
        f"waiting for data {100 * row.get('waiting', 0):.0f} %   "
        f"lr {row['lr']:.3g}"
    )
