"""Augmentation of a whole batch on its device, drawn anew for every image.

Images are `(B, C, H, W)`, either uint8 in 0..255 or float in 0..1, and keep their
type. What is random takes a `torch.Generator`, so that the same (seed, epoch, step)
gives the same batch. The draws are made where the generator lives: with one on the
CPU, all devices see the same crops and flips. Each random function draws, then calls
a deterministic one (`crop`, `flip`, `resized_crop`, `adjust_color`, `erase`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .color import adjust_color, color_jitter
from .geometry import (
    BatchGenerator,
    crop,
    draw_boxes,
    flip,
    random_crop,
    random_crop_flip,
    random_flip,
    random_resized_crop,
    resized_crop,
)
from .holes import cutout, erase, random_erasing
from .mixing import cutmix, mixup

__all__ = [
    "Augment",
    "BatchGenerator",
    "adjust_color",
    "color_jitter",
    "crop",
    "cutmix",
    "cutout",
    "draw_boxes",
    "erase",
    "flip",
    "make_augment",
    "mixup",
    "random_crop",
    "random_crop_flip",
    "random_erasing",
    "random_flip",
    "random_resized_crop",
    "resized_crop",
]


@dataclass(frozen=True)
class Augment:
    """A sequence of augmentations under a name.

    Attributes:
        name: for people and run cards.
        steps: functions of (batch, generator) that return a batch.
        from_stored: True where the first step makes the final size out of the larger
            stored image (random resized crop); False where the steps start from the
            centre crop that evaluation sees.
    """

    name: str
    steps: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = ()
    from_stored: bool = False

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        for step in self.steps:
            x = step(x, generator)
        return x


def make_augment(what: str | Callable | None, image_size: int) -> Augment:
    """Return an augmentation by name, or wrap a function.

    Args:
        what: one of the names below, an `Augment`, a function of (batch, generator)
            that gets and returns uint8 in 0..255 or float in 0..1, or None.
            "none"; "flip"; "crop-flip": pad 4, crop, flip, as for CIFAR;
            "resized-crop-flip": a random part of 0.35 to 1 of the area (short runs
            learn little from the 0.08 of long ImageNet runs), then flip;
            "strong": the one of the two that suits the size, colour jitter, a hole.
        image_size: side of the images that come out, in pixels.

    Raises:
        ValueError: no augmentation has this name.
    """
    if isinstance(what, Augment):
        return what
    if callable(what):
        return Augment(getattr(what, "__name__", type(what).__name__), (what,))
    shift_flip = partial(_with_generator_last, random_crop_flip, 4)
    resized = partial(
        _with_generator_last, random_resized_crop, image_size, (0.35, 1.0)
    )
    small = image_size <= 64
    presets = {
        "none": Augment("none"),
        "flip": Augment("flip", (random_flip,)),
        "crop-flip": Augment("crop-flip", (shift_flip,)),
        "resized-crop-flip": Augment(
            "resized-crop-flip", (resized, random_flip), from_stored=True
        ),
        "strong": Augment(
            "strong",
            (
                *((shift_flip,) if small else (resized, random_flip)),
                partial(color_jitter, hue=0.05),
                partial(_with_generator_last, cutout, image_size // 4),
            ),
            from_stored=not small,
        ),
    }
    name = what or "none"
    if name not in presets:
        raise ValueError(
            f"No augmentation is called '{name}'; there are {', '.join(presets)} and "
            "auto, or pass a function of (batch, generator)."
        )
    return presets[name]


def _with_generator_last(step: Callable, *arguments_and_batch: object) -> Tensor:
    """Call step(batch, *arguments, generator=generator); made for `partial`."""
    *arguments, x, generator = arguments_and_batch
    return step(x, *arguments, generator=generator)
