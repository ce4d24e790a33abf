"""Crops out of a resized image: AlexNet's fixed shorter side, VGG's random one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import cpu_cores, in_threads
from .geometry import crop, resample, uniform


def resized_sides(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Return height and width after the shorter one was resized to `shorter_side`.

    The longer side keeps its proportion, cut off to whole pixels.
    """
    if height <= width:
        return shorter_side, int(shorter_side * width / height)
    return int(shorter_side * height / width), shorter_side


def scaled_crop(
    x: Tensor, shorter_side: Tensor, top: Tensor, left: Tensor, size: int
) -> Tensor:
    """Resize each image's shorter side (bilinear, antialiased) and cut a square out.

    Args:
        x: (B, C, H, W).
        shorter_side: int64 (B,), pixels.
        top, left: int64 (B,), the square's corner in the resized image.
        size: side of the square in pixels.

    Returns:
        (B, C, size, size) of the same type.

    Raises:
        ValueError: the square is larger than a resized image.
    """
    require_fit(size, int(shorter_side.min()))
    height, width = x.shape[-2:]
    if len(set(shorter_side.tolist())) == 1 and x.device.type == "cpu":
        sides = resized_sides(height, width, int(shorter_side[0]))
        return crop(_resize(x, sides), top, left, size, size)
    if x.device.type != "cpu":
        return _by_matrices(x, shorter_side, top, left, size)

    y = torch.empty(len(x), x.shape[1], size, size, dtype=x.dtype)

    def work(indices: range) -> None:
        for i in indices:
            sides = resized_sides(height, width, int(shorter_side[i]))
            t, l = int(top[i]), int(left[i])
            y[i] = _resize(x[i : i + 1], sides)[0, :, t : t + size, l : l + size]

    threads = min(cpu_cores(), torch.get_num_threads(), max(1, len(x) // 16))
    in_threads(work, [range(k, len(x), threads) for k in range(threads)], threads)
    return y


def _resize(x: Tensor, sides: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == sides:
        return x
    return F.interpolate(x, sides, mode="bilinear", antialias=True)


def _by_matrices(
    x: Tensor, shorter_side: Tensor, top: Tensor, left: Tensor, size: int
) -> Tensor:
    """Do what `scaled_crop` does for all images at once, on any device.

    A square of the resized image is a box of the stored one, of fractional corners.
    """
    height, width = x.shape[-2:]
    sides = [resized_sides(height, width, s) for s in shorter_side.tolist()]
    tall, wide = torch.tensor(sides, dtype=torch.float32).T
    rows, columns = height / tall, width / wide  # stored pixels per resized pixel
    box = top * rows, left * columns, size * rows, size * columns
    return resample(x, *box, size, whole=True)


def require_fit(size: int, shorter_side: int) -> None:
    """Raise unless a square fits into images with this shorter side."""
    if size > shorter_side:
        raise ValueError(
            f"A crop of {size} x {size} px is larger than an image whose shorter side "
            f"is resized to {shorter_side} px; make the shorter side at least {size}."
        )


def random_scaled_crop(
    x: Tensor,
    size: int,
    shorter_side: int | Sequence[int],
    generator: torch.Generator,
) -> Tensor:
    """Resize the shorter side, to a fixed or a random length, and crop at random.

    With one number it is AlexNet's crop of 224 out of 256 (Krizhevsky et al., 2012),
    with a range the scale jitter of VGG (Simonyan & Zisserman, 2015; 256 to 512).

    Args:
        x: (B, C, H, W).
        size: side of the result in pixels.
        shorter_side: in pixels: a number, or (least, largest), drawn for each image.
        generator: source of the draws.

    Returns:
        (B, C, size, size).

    Raises:
        ValueError: the crop is larger than the resized image, or the range is empty.
    """
    ends = [shorter_side] * 2 if isinstance(shorter_side, int) else list(shorter_side)
    low, high = map(int, ends)
    if low > high:
        raise ValueError(
            f"shorter_side is ({low}, {high}); the least must not exceed the largest."
        )
    require_fit(size, low)
    draw = uniform(generator, 3, len(x)).cpu()
    side = (low + draw[0] * (high - low + 1)).long()
    sides = [resized_sides(*x.shape[-2:], s) for s in side.tolist()]
    tall, wide = torch.tensor(sides).T
    top = (draw[1] * (tall - size + 1)).long()
    left = (draw[2] * (wide - size + 1)).long()
    return scaled_crop(x, side, top, left, size)
