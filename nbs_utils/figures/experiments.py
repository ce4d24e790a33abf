"""The figure of a comparison: every seed as a point, and the paired differences."""

import textwrap

import numpy as np
from matplotlib.ticker import MaxNLocator

from .style import COLORS, INK, new_figure, show, styled

_SEEDS = "#9AA5AD"  # lines that join the values of a seed
_MARKERS = "osD^vPX<>h"


@styled
def show_experiment(result, *, title: str | None = None) -> None:
    """Draw a comparison: values by seed on the left, differences on the right.

    On the left each point is a trained network; a line joins those of the same seed,
    and a bar marks the mean. On the right are the differences to the baseline, seed by
    seed, with their mean and its 95 % t interval; where that reaches zero, seeds
    alone could have made the difference. Nothing is told by color alone: a seed has
    a shape of its own.

    Args:
        result: what `nbs.experiment` or `experiments.compare_values` returned.
        title: set above.
    """
    show(draw_experiment(result, title))


def draw_experiment(result, title: str | None = None):
    """Return the figure."""
    names = list(result.values)
    found = result.differences()
    factor = 100 if result.percent else 1
    height = 1.15 + 0.46 * len(names) + 0.3 * bool(title)
    axes = [None, None]
    if found:
        figure, axes = new_figure(1, 2, height=height, sharey=True)
    else:
        figure, axes[0] = new_figure(height=height)
    _draw_values(axes[0], result, names, factor)
    if found:
        _draw_differences(axes[1], result, names, found, factor)
    wrapped = ["\n".join(textwrap.wrap(str(name), 18)) for name in names]
    axes[0].set_yticks(range(len(names)), wrapped)
    axes[0].set_ylim(len(names) - 0.45, -0.55)
    for panel in filter(None, axes):
        panel.grid(axis="y", visible=False)
        panel.spines["left"].set_visible(False)
        panel.xaxis.set_major_locator(MaxNLocator(4))
    if title:
        figure.suptitle(
            "\n".join(textwrap.wrap(title, 60)), x=0.02, ha="left", weight="bold",
            size=11.5,
        )  # fmt: skip
    return figure


def _draw_values(axes, result, names: list[str], factor: float) -> None:
    table = factor * result.values.to_numpy(float)  # (seeds, variants)
    rows = np.arange(len(names))
    for k, values in enumerate(table):
        axes.plot(values, rows, color=_SEEDS, lw=1, zorder=1)
        axes.scatter(
            values, rows, s=30, marker=_MARKERS[k % len(_MARKERS)],
            facecolor=COLORS["blue"], edgecolor="white", linewidth=0.6, zorder=3,
        )  # fmt: skip
    if len(table) > 1:
        means = factor * result.values.mean().to_numpy()  # leaves NaN out
        for row, mean in enumerate(means):
            axes.plot([mean, mean], [row - 0.26, row + 0.26], color=INK, lw=2, zorder=2)
    axes.set_xlabel(result.label)
    axes.margins(x=0.08)


def _draw_differences(axes, result, names, found, factor: float) -> None:
    axes.axvline(0, color=INK, lw=1, ls=(0, (3, 2)), zorder=1)
    for one in found:
        row = names.index(one.name)
        for k, d in enumerate(factor * one.by_seed):
            axes.scatter(
                d, row - 0.17, s=22, marker=_MARKERS[k % len(_MARKERS)],
                facecolor="white", edgecolor=COLORS["vermillion"], linewidth=1.2,
                zorder=3,
            )  # fmt: skip
        mean = factor * one.interval.mean
        if one.interval.n > 1:
            low, high = factor * one.interval.low, factor * one.interval.high
            axes.plot([low, high], [row + 0.14] * 2, color=INK, lw=1.8, zorder=2)
            for end in (low, high):
                axes.plot([end, end], [row + 0.06, row + 0.22], color=INK, lw=1.8)
        axes.scatter(mean, row + 0.14, s=42, color=COLORS["vermillion"], zorder=3)
    axes.annotate(
        "baseline", (0, names.index(result.against)), (5, 0),
        textcoords="offset points", va="center", ha="left", size=10, color=INK,
    )  # fmt: skip
    axes.set_xlabel(f"Difference, {result.difference_unit}")
    axes.margins(x=0.08)
