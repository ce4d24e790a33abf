"""Holes: a box of each image is overwritten."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .geometry import draw_boxes, uniform


def erase(
    x: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    value: Tensor | float = 0,
) -> Tensor:
    """Overwrite a box of each image; what reaches over the border is cut off.

    Args:
        x: (B, C, H, W).
        top, left, height, width: (B,) int64; a height of 0 leaves the image alone.
        value: what is written, a number or (C, 1, 1).
    """
    value = torch.as_tensor(value, device=x.device).to(x.dtype)
    return torch.where(inside(x, top, left, height, width), value, x)


def inside(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor
) -> Tensor:
    """Return masks (B, 1, H, W) that are True inside each image's box."""
    boxes = torch.stack([top, top + height, left, left + width]).to(x.device)
    t, b, l, r = boxes[..., None]
    rows = torch.arange(x.shape[2], device=x.device)
    columns = torch.arange(x.shape[3], device=x.device)
    here = ((rows >= t) & (rows < b))[:, :, None]
    return (here & ((columns >= l) & (columns < r))[:, None, :])[:, None]


def cutout(
    x: Tensor, size: int, generator: torch.Generator, value: Tensor | float = 0
) -> Tensor:
    """Overwrite a square centered anywhere in each image (DeVries & Taylor, 2017).

    Args:
        x: (B, C, H, W).
        size: side of the square in pixels; near the border less of it is seen.
        generator: source of the draws.
        value: what is written, a number or (C, 1, 1).

    Raises:
        ValueError: the size is negative.
    """
    if size < 0:
        raise ValueError(f"size is {size} px; the side of a hole is at least 0.")
    draw = uniform(generator, 2, len(x))
    top = (draw[0] * x.shape[2]).long() - size // 2
    left = (draw[1] * x.shape[3]).long() - size // 2
    side = torch.full_like(top, size)
    return erase(x, top, left, side, side, value)


def random_erasing(
    x: Tensor,
    generator: torch.Generator,
    p: float = 0.5,
    scale: Sequence[float] = (0.02, 0.33),
    ratio: Sequence[float] = (0.3, 3.3),
    value: Tensor | float = 0,
) -> Tensor:
    """Overwrite a box of random area and shape in some images (Zhong et al., 2020).

    Args:
        x: (B, C, H, W).
        generator: source of the draws.
        p: share of the images that get a box.
        scale: least and largest area, as shares of the image.
        ratio: least and largest width over height.
        value: what is written, a number or (C, 1, 1).

    Raises:
        ValueError: p is no probability, or a range is empty or out of bounds.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; a probability lies between 0 and 1.")
    boxes = draw_boxes(len(x), *x.shape[-2:], scale, ratio, generator)
    boxes[2] *= uniform(generator, len(x)) < p  # no height, no box
    return erase(x, *boxes, value)
