"""The learning curve that grows while a network trains.

While training runs, the curve is a few lines of SVG written by hand: a redraw takes
about a millisecond and needs no matplotlib. When training ends, the same place in the
notebook holds the figure of `plot_history`, and nothing else is stored.
"""

import math
import os
import sys
import time
import uuid

_SECONDS = 0.5  # between two redraws


def live_curve(title: str = "", *, epochs: int | None = None) -> "LiveCurve":
    """Return a curve to be fed during training and finished after it.

    Args:
        title: set above the curve, for example "resnet18 on CIFAR-10".
        epochs: the length of the time axis, where it is known.

    Example:
        curve = live_curve("resnet18 on CIFAR-10", epochs=30)
        curve.update(rows, note="epoch 3, step 40 of 351")  # as often as you like
        curve.finish(rows)  # one static figure remains

    Outside a notebook, all of this does nothing.
    """
    return LiveCurve(title, epochs)


class LiveCurve:
    """A curve that is redrawn in place; see `live_curve`."""

    def __init__(self, title: str = "", epochs: int | None = None):
        self.title, self.epochs = title, epochs
        self.shown = _in_notebook()
        # A quick run ends before anybody could watch it: it shows the result only.
        quick = os.environ.get("NBS_QUICK", "") not in ("", "0")
        self.moving = self.shown and not quick
        self._id = f"nbs-{uuid.uuid4().hex[:12]}"
        self._begun = False
        self._next = 0.0

    def update(self, history, note: str = "", *, force: bool = False) -> bool:
        """Redraw, unless the last redraw was less than half a second ago.

        Args:
            history: a list of rows (dictionaries with epoch, train_loss, ...).
            note: one line below the curve, for example the step and the speed.
            force: redraw in any case.

        Returns:
            True where it was redrawn.
        """
        now = time.monotonic()
        if not self.moving or (now < self._next and not force):
            return False
        self._next = now + _SECONDS
        self._put({"text/html": sketch(_rows(history), self.title, self.epochs, note)})
        return True

    def finish(self, history) -> None:
        """Leave the static figure in the place of the moving one."""
        if not self.shown:
            return
        rows = _rows(history)
        if not rows:  # stopped before the first epoch ended
            if self._begun:
                self._put({"text/plain": "No epoch was finished."})
            return
        import matplotlib as mpl
        import matplotlib.pyplot as plt

        from .curves import draw_history, history_of
        from .style import STYLE, svg_bundle

        with mpl.rc_context(STYLE):
            figure = draw_history(history_of(rows), self.title or None)
            self._put(svg_bundle(figure))
            plt.close(figure)

    def _put(self, bundle: dict) -> None:
        from IPython.display import display

        bundle.setdefault("text/plain", "<Figure>")
        # Without motion there is no update, hence no need of an identity.
        name = self._id if self.moving else None
        display(bundle, raw=True, display_id=name, update=self._begun)
        self._begun = self.moving


def _in_notebook() -> bool:
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    return getattr(shell, "kernel", None) is not None


def _rows(history) -> list[dict]:
    history = getattr(history, "history", history)
    if hasattr(history, "to_dict"):
        return history.to_dict("records")
    return list(history)


def sketch(rows: list[dict], title: str, epochs: int | None, note: str) -> str:
    """Return the moving curve as HTML with an inline SVG, 538 pixels wide."""
    last = max([row["epoch"] for row in rows], default=1)
    right = max(epochs or last, last, 2)
    parts = [
        f'<text x="14" y="24" font-weight="bold">{_escaped(title)}</text>',
        _text(524, 24, "training (dashed), validation", "end"),
    ]
    parts += _panel(rows, "Loss", "loss", 62, right, None)
    parts += _panel(rows, "Top-1", "top1", 232, right, 1.0)
    parts += [_text(70, 390, "1", "middle"), _text(524, 390, str(right), "end")]
    parts += [_text(297, 390, "Epoch", "middle"), _text(14, 414, _escaped(note))]
    return (
        '<svg viewBox="0 0 538 424" width="538" style="max-width:100%;height:auto;'
        'background:#fff;color:#222;font:14px system-ui,sans-serif" role="img" '
        'aria-label="Learning curve, still growing">' + "".join(parts) + "</svg>"
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="13" fill="#666" '
        f'text-anchor="{anchor}">{text}</text>'
    )


def _panel(rows, label, what, top, right, most) -> list[str]:
    height, left, width = 134, 70, 454
    looks = {
        f"train_{what}": ("#D55E00", ' stroke-dasharray="8 4"'),
        f"val_{what}": ("#0072B2", ""),
    }
    values = [r[n] for r in rows for n in looks if _finite(r.get(n))]
    high = most or max(values, default=1.0) * 1.05 or 1.0
    parts = [f'<text x="14" y="{top - 8}">{label}</text>']
    for share in (0, 0.5, 1):
        y = top + height * (1 - share)
        mark = f"{100 * share:.0f} %" if most else f"{share * high:.2g}"
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#e4e2dd"/>')
        parts.append(_text(left - 8, round(y + 5, 1), mark, "end"))
    for name, (color, dash) in looks.items():
        points = [
            (
                left + width * (r["epoch"] - 1) / max(right - 1, 1),
                top + height * (1 - min(r[name] / high, 1)),
            )
            for r in rows
            if _finite(r.get(name))
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke-width="2.5" '
            f'stroke="{color}"{dash}/>'
        )
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>'
            for x, y in points[-1:]
        ]
    return parts


def _finite(value) -> bool:
    return value is not None and math.isfinite(value)
