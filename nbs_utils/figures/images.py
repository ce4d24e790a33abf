"""Grids of images."""

from collections.abc import Sequence

import numpy as np
import torch

from .style import GRAY, INK, WIDTH, new_figure, show, styled

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
) -> None:
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
    show(
        draw_grid(pixels, texts, columns or default_columns(len(pixels)), title, width)
    )


def draw_grid(pixels, texts, columns, title=None, width=WIDTH):
    """Return a figure with arrays (H, W, 3) in a grid, a text below each."""
    rows = -(-len(pixels) // columns)
    cell = (width - 2 * _PAD - (columns - 1) * _GAP) / columns
    cell = min(cell, 1.6 if columns > 1 else 3.2)  # a single image is not blown up
    tallest = max(p.shape[0] / p.shape[1] for p in pixels) * cell
    lines = max(text.count("\n") + 1 if text else 0 for text in texts)
    below = lines * _LINE + (0.06 if lines else 0)
    above = 0.36 if title else 0
    height = above + 2 * _PAD + rows * (tallest + below) + (rows - 1) * _GAP
    width = 2 * _PAD + columns * cell + (columns - 1) * _GAP
    figure, axes = new_figure(0 + 1, 1, height=height, width=width, layout=None)
    axes.remove()
    size = 10 if cell > 0.9 else 9
    for i, (image, text) in enumerate(zip(pixels, texts, strict=True)):
        row, column = divmod(i, columns)
        left = _PAD + column * (cell + _GAP)
        top = height - above - _PAD - row * (tallest + below + _GAP)
        h = cell * image.shape[0] / image.shape[1]
        box = (left / width, (top - h) / height, cell / width, h / height)
        ax = figure.add_axes(box)
        ax.imshow(image)
        ax.set_axis_off()
        figure.text(
            (left + cell / 2) / width,
            (top - tallest - 0.05) / height,
            text,
            ha="center",
            va="top",
            size=size,
            color=INK if len(texts) <= 8 else GRAY,
        )
    if title:
        y = (height - _PAD) / height
        figure.text(_PAD / width, y, title, va="top", weight="bold", size=11.5)
    return figure
