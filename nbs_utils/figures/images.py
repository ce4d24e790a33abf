"""Grids of images."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from .style import WIDTH, show, styled

_GAP, _LINE, _PAD = 0.08, 0.2, 0.12  # inches


def to_pixels(image: torch.Tensor | np.ndarray) -> np.ndarray:
    """Return one image as an array (H, W, 3) of uint8.

    Args:
        image: (C, H, W) or (H, W) with C of 1 or 3; uint8, or float in [0, 1].

    Raises:
        ValueError: another shape, or floats outside [0, 1] (a normalized image).
    """
    image = torch.as_tensor(image).detach().cpu()
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"An image of shape {tuple(image.shape)} cannot be shown: expected "
            "(C, H, W) with 1 or 3 channels, or (H, W)."
        )
    if image.is_floating_point():
        low, high = image.min().item(), image.max().item()
        if low < -0.01 or high > 1.01:
            raise ValueError(
                f"The image's values run from {low:.2f} to {high:.2f}, expected 0 to "
                "1. A normalized batch goes through split.denormalize(x) first."
            )
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def default_columns(count: int) -> int:
    """Return how many columns a grid of `count` images has."""
    if count <= 5:
        return count
    return next((c for c in (4, 5, 6, 8) if count % c == 0 and count / c <= 3), 8)


@styled
def show_images(
    images: Sequence[torch.Tensor] | torch.Tensor,
    labels: Sequence | None = None,
    columns: int | None = None,
    *,
    title: str | None = None,
    width: float = WIDTH,
) -> Figure | None:
    """Show a grid of images.

    Args:
        images: (N, C, H, W) or a list of (C, H, W) or (H, W); uint8 (as
            `split.images(indices)` gives them) or float in [0, 1]. Sizes may differ.
        labels: N texts set below the images, or None. "\\n" begins a second line.
        columns: by default chosen so that rows are full.
        title: set above the grid.
        width: of the grid in inches.

    Raises:
        ValueError: no image, another number of labels, or values that are no pixels.
    """
    pixels = [to_pixels(image) for image in images]
    if not pixels:
        raise ValueError("There is no image to show.")
    texts = [""] * len(pixels) if labels is None else [str(label) for label in labels]
    if len(texts) != len(pixels):
        raise ValueError(
            f"{len(pixels)} images came with {len(texts)} labels; give each its own."
        )
    return show(
        draw_grid(pixels, texts, columns or default_columns(len(pixels)), title, width)
    )


def wrapped(text: str, inches: float, size: float) -> str:
    """Break a text between words so that it fits a width in inches."""
    letters = max(int(inches * 72 / (0.56 * size)), 4)  # 0.56 em: a mean letter
    return "\n".join(
        "\n".join(textwrap.wrap(line, letters, break_long_words=False)) or line
        for line in text.split("\n")
    )


def draw_grid(
    pixels, texts, columns, title=None, width=WIDTH, *, most=None, above=False
):
    """Return a figure with arrays (H, W, 3) in a grid, each with its text.

    A picture is at most `most` inches wide, so that a few are not blown up. Texts
    stand centered below the pictures, or with `above` over their left edge.
    """
    cell = (width - 2 * _PAD - (columns - 1) * _GAP) / columns
    cell = min(cell, most or (1.6 if columns > 1 else 3.2))
    width = 2 * _PAD + columns * cell + (columns - 1) * _GAP
    size = 10 if cell > 0.9 else 9
    texts = [wrapped(text, cell, size) for text in texts]
    rows = [
        range(i, min(i + columns, len(pixels))) for i in range(0, len(pixels), columns)
    ]
    heights = [
        max(pixels[i].shape[0] / pixels[i].shape[1] for i in r) * cell for r in rows
    ]
    lines = [max(texts[i].count("\n") + 1 if texts[i] else 0 for i in r) for r in rows]
    words = [n * _LINE + 0.07 * bool(n) for n in lines]
    top = _PAD + (0.3 if title else 0)
    height = top + sum(heights) + sum(words) + (len(rows) - 1) * _GAP + _PAD
    figure = plt.figure(figsize=(width, height))
    if title:
        y = 1 - _PAD / height
        figure.text(_PAD / width, y, title, va="top", weight="bold", size=11.5)
    for row, tall, room in zip(rows, heights, words, strict=True):
        y = top + room * above
        for i in row:
            x = _PAD + (i - row[0]) * (cell + _GAP)
            h = cell * pixels[i].shape[0] / pixels[i].shape[1]
            box = (x / width, 1 - (y + h) / height, cell / width, h / height)
            axes = figure.add_axes(box)
            axes.imshow(pixels[i], aspect="auto")
            axes.set_axis_off()
            place = (x, y - 0.07) if above else (x + cell / 2, y + tall + 0.17)
            # Each line by itself: only then is it centered in the reader's font, too.
            for j, line in enumerate(texts[i].split("\n")):
                figure.text(
                    place[0] / width,
                    1 - (place[1] + j * _LINE) / height,
                    line,
                    ha="left" if above else "center",
                    va="baseline",
                    rotation_mode="anchor",
                    size=size,
                )
        top += tall + room + _GAP
    return figure
