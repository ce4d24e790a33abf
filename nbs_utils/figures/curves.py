"""Learning curves, bars, ablations and the confusion matrix."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .style import COLORS, INK, new_figure, show, styled

_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")


def history_of(run_or_history) -> pd.DataFrame:
    """Return the table of a run, or the table itself, or a list of rows as one."""
    table = getattr(run_or_history, "history", run_or_history)
    return table if isinstance(table, pd.DataFrame) else pd.DataFrame(table)


@styled
def plot_history(run_or_history, *, title: str | None = None) -> Figure | None:
    """Plot loss and top-1 accuracy by epoch, for the training and validation split.

    Args:
        run_or_history: a `Run`, or a table with the columns epoch, train_loss,
            train_top1, val_loss and val_top1 (accuracies as fractions). A dictionary
            name -> run compares several runs by their validation curves.
        title: set above the curves.
    """
    if isinstance(run_or_history, dict):
        return show(draw_histories(run_or_history, title))
    else:
        return show(draw_history(history_of(run_or_history), title))


def draw_history(table: pd.DataFrame, title: str | None = None):
    """Return the figure of one run."""
    figure, (top, bottom) = new_figure(2, 1, height=4.4, sharex=True)
    for axes, what in ((top, "loss"), (bottom, "top1")):
        for split, color, dash in (
            ("train", "vermillion", (0, (4, 1.6))),
            ("val", "blue", "-"),
        ):
            name = f"{split}_{what}"
            if name not in table or table[name].isna().all():
                continue
            marker = "o" if len(table) <= 12 else None
            word = {"train": "training", "val": "validation"}[split]
            axes.plot(
                table["epoch"],
                table[name],
                color=COLORS[color],
                linestyle=dash,
                marker=marker,
                label=word,
            )
    _finish_history(figure, top, bottom, title)
    if "val_top1" in table and table["val_top1"].notna().any():
        best = table.loc[table["val_top1"].idxmax()]
        point = (best["epoch"], best["val_top1"])
        bottom.plot(*point, "o", color=COLORS["blue"], markersize=7)
        # on the side of the point where the training curve is not
        below = best.get("train_top1", 0) > best["val_top1"]
        bottom.annotate(
            f"best {100 * best['val_top1']:.1f} %",
            point,
            xytext=(4, -9 if below else 9),
            textcoords="offset points",
            ha="right" if best["epoch"] >= table["epoch"].mean() else "left",
            va="top" if below else "bottom",
            color=COLORS["blue"],
            size=10,
            weight="bold",
        )
        bottom.margins(y=0.16)
    return figure


def draw_histories(runs: dict, title: str | None = None):
    """Return the figure that compares the validation curves of several runs."""
    figure, (top, bottom) = new_figure(2, 1, height=4.4, sharex=True)
    dashes = ["-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.4, 1, 1.4))]
    for i, (name, run) in enumerate(runs.items()):
        table = history_of(run)
        look = {
            "color": list(COLORS.values())[i % 6],
            "linestyle": dashes[i % len(dashes)],
            "label": name,
        }
        top.plot(table["epoch"], table["val_loss"], **look)
        bottom.plot(table["epoch"], table["val_top1"], **look)
    _finish_history(figure, top, bottom, title)
    top.set_ylabel("Validation loss")
    bottom.set_ylabel("Validation top-1")
    return figure


def _finish_history(figure, top, bottom, title) -> None:
    top.set_ylabel("Loss")
    bottom.set_ylabel("Top-1")
    bottom.set_xlabel("Epoch")
    bottom.yaxis.set_major_formatter(_PERCENT)
    bottom.xaxis.set_major_locator(
        MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    for axes in (top, bottom):
        axes.yaxis.set_major_locator(MaxNLocator(5))
    top.legend(loc="upper right", handlelength=2.4)
    if title:
        top.set_title("\n".join(textwrap.wrap(title, 48)))
    figure.align_ylabels()


@styled
def plot_bars(
    table: pd.DataFrame,
    value: str = "mean",
    spread: str | None = None,
    *,
    label: str = "Top-1",
    percent: bool = True,
    title: str | None = None,
    highlight: str | Sequence[str] = (),
) -> Figure | None:
    """Plot one horizontal bar for each row of a table, from zero.

    Args:
        table: the index names the bars, the first row on top.
        value: the column that is drawn.
        spread: the column with the whisker's half length, or None.
        label: of the axis, with its unit.
        percent: True where values are fractions to be read as percent.
        title: set above.
        highlight: names of rows to set off by color.
    """
    return show(
        _draw_rows(table, value, spread, label, percent, title, highlight, bars=True)
    )


@styled
def plot_ablation(
    table: pd.DataFrame,
    value: str = "mean",
    spread: str | None = "spread",
    *,
    label: str = "Top-1 on the validation split",
    percent: bool = True,
    title: str | None = None,
    reference: str | None = None,
) -> Figure | None:
    """Plot variants as dots with whiskers, beside the one they are variants of.

    Dots, since differences matter and an axis for dots need not begin at zero.

    Args:
        table: the index names the variants, the first row on top.
        value, spread: columns of the mean and of the half length of the whisker
            (left out where the table has no such column).
        label: of the axis, with its unit.
        percent: True where values are fractions to be read as percent.
        title: set above.
        reference: the row that the others are compared with; by default the first.
    """
    spread = spread if spread in table else None
    reference = table.index[0] if reference is None else reference
    return show(
        _draw_rows(table, value, spread, label, percent, title, [reference], False)
    )


def _draw_rows(table, value, spread, label, percent, title, highlight, bars):
    for column in filter(None, (value, spread)):
        if column not in table:
            raise ValueError(
                f"The table has no column '{column}'; it has "
                f"{', '.join(map(str, table.columns))}. Name the one to draw."
            )
    highlight = [highlight] if isinstance(highlight, str) else list(highlight)
    names = [str(name) for name in table.index]
    values = table[value].to_numpy(float)
    spreads = table[spread].fillna(0).to_numpy(float) if spread else 0 * values
    figure, axes = new_figure(height=0.95 + 0.36 * len(names) + 0.3 * bool(title))
    where = np.arange(len(names))
    colors = [
        COLORS["blue"] if name in highlight or not highlight else "#9AA5AD"
        for name in names
    ]
    if bars:
        axes.barh(where, values, height=0.62, color=colors)
        axes.set_xlim(0, (values + spreads).max() * (1.32 if spread else 1.16))
    else:
        colors = [INK if c.startswith("#9A") else c for c in colors]
        axes.scatter(values, where, s=46, color=colors, zorder=3)
        low, high = (values - spreads).min(), (values + spreads).max()
        room = max(high - low, 0.01 * abs(high), 1e-9)
        axes.set_xlim(low - 0.12 * room, high + 0.12 * room)
        for name in highlight:
            axes.axvline(values[names.index(name)], color=COLORS["blue"], lw=1, ls=":")
    for i, (x, half) in enumerate(zip(values, spreads, strict=True)):
        if half:
            axes.plot([x - half, x + half], [i, i], color=INK, lw=1.4, zorder=2)
        mean = f"{100 * x:.1f}" if percent else f"{x:,.4g}"
        mark = f" ± {100 * half:.1f}" if percent else f" ± {half:,.2g}"
        axes.annotate(
            mean + (mark if half else "") + (" %" if percent else ""),
            (x + half, i) if bars else (1, i),
            xycoords="data" if bars else ("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=10,
        )
    axes.set_yticks(where, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if percent:
        axes.xaxis.set_major_formatter(_PERCENT)
    axes.set_xlabel(label)
    if title:
        axes.set_title("\n".join(textwrap.wrap(title, 48)))
    return figure


@styled
def plot_confusion(scores, classes: Sequence[str] | None = None) -> Figure | None:
    """Plot a confusion matrix: rows are the truth, columns the prediction.

    Args:
        scores: what `evaluate` returned, or an array (K, K) of counts.
        classes: the names, where `scores` is an array.
    """
    counts = np.asarray(getattr(scores, "confusion", scores), float)
    if classes is None and hasattr(scores, "per_class"):
        classes = list(scores.per_class["class"])
    names = [str(c) for c in (classes or range(len(counts)))]
    return show(draw_confusion(counts, names))


def draw_confusion(counts: np.ndarray, names: list[str]):
    """Return the figure: shares of each row as shades, percent as numbers."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(names) <= 20
    figure, axes = new_figure(height=5.2)
    # With many classes each confusion is rare: shades of the square root show them.
    norm = PowerNorm(1 if few else 0.5, vmin=0, vmax=1)
    axes.imshow(shares, cmap="Blues", norm=norm)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if few:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        for i, j in np.argwhere(np.round(100 * shares) > 0):
            axes.text(
                j,
                i,
                f"{100 * shares[i, j]:.0f}",
                ha="center",
                va="center",
                size=9.5 if len(names) <= 12 else 7.5,
                color="white" if shares[i, j] > 0.5 else INK,
            )
    axes.set_xlabel("Predicted")
    axes.set_ylabel("True class" + (" (rows in percent)" if few else ""))
    return figure
