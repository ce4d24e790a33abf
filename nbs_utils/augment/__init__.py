"""Augmentation of a whole batch on its device, drawn anew for every image.

Images are `(B, C, H, W)`, either uint8 in 0..255 or float in 0..1, and keep their
type. What is random takes a `torch.Generator`, so that the same (seed, epoch, step)
gives the same batch. The draws are made where the generator lives: with one on the
CPU, all devices see the same crops and flips. Each random function draws, then calls
a deterministic one (`crop`, `flip`, `resized_crop`, `scaled_crop`, `adjust_color`,
`shift_color`, `erase`, `apply_operation`).
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
from .operations import OPERATIONS, apply_operation
from .pca import ColorComponents, color_components, pca_noise, shift_color
from .policies import auto_augment, magnitudes, rand_augment, trivial_augment
from .scale import random_scaled_crop, scaled_crop

__all__ = [
    "OPERATIONS",
    "Augment",
    "BatchGenerator",
    "ColorComponents",
    "adjust_color",
    "apply_operation",
    "auto_augment",
    "color_components",
    "color_jitter",
    "crop",
    "cutmix",
    "cutout",
    "draw_boxes",
    "erase",
    "flip",
    "magnitudes",
    "make_augment",
    "mixup",
    "pca_noise",
    "rand_augment",
    "random_crop",
    "random_crop_flip",
    "random_erasing",
    "random_flip",
    "random_resized_crop",
    "random_scaled_crop",
    "resized_crop",
    "scaled_crop",
    "shift_color",
    "trivial_augment",
]


@dataclass(frozen=True)
class Augment:
    """A sequence of augmentations under a name.

    Attributes:
        name: for people and run cards.
        steps: functions of (batch, generator) that return a batch.
        from_stored: True where the first step makes the final size out of the larger
            stored image (random resized crop); False where the steps start from the
            center crop that evaluation sees.
    """

    name: str
    steps: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = ()
    from_stored: bool = False

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        for step in self.steps:
            x = step(x, generator)
        return x


def make_augment(
    what: str | Callable | None,
    image_size: int,
    images: Callable[[], Tensor] | None = None,
) -> Augment:
    """Return an augmentation by name, or wrap a function.

    Args:
        what: one of the names below, an `Augment`, a function of (batch, generator)
            that gets and returns uint8 in 0..255 or float in 0..1, or None.
            "none"; "flip"; "crop-flip": pad 4, crop, flip, as for CIFAR;
            "side-crop-flip": AlexNet's, a crop from the shorter side resized to 8/7
            of the size (256 for 224), flip;
            "scale-crop-flip": VGG's scale jitter, a shorter side of 8/7 to 16/7 of
            the size (256 to 512 for 224), crop, flip;
            "resized-crop-flip": a random part of 0.35 to 1 of the area (short runs
            learn little from the 0.08 of long ImageNet runs), then flip;
            and, each after crop-flip up to 64 px and resized-crop-flip above:
            "strong": color jitter, a hole; "pca": AlexNet's color noise;
            "autoaugment" (up to 64 px the policy for CIFAR-10, above for ImageNet),
            "randaugment", "trivialaugment"; "erasing": random erasing.
        image_size: side of the images that come out, in pixels.
        images: returns some training images, (N, C, H, W); "pca" asks for them.

    Raises:
        ValueError: no augmentation has this name, or "pca" has no images.
    """
    if isinstance(what, Augment):
        return what
    if callable(what):
        inner = what.func if isinstance(what, partial) else what
        return Augment(getattr(inner, "__name__", type(inner).__name__), (what,))
    name = what or "none"
    small = image_size <= 64
    steps = _presets(image_size)
    if name not in (*steps, "pca"):
        raise ValueError(
            f"No augmentation is called '{name}'; there are {', '.join(steps)}, pca "
            "and auto, or pass a function of (batch, generator)."
        )
    if name == "pca":
        if images is None:
            raise ValueError(
                "'pca' needs the colors of the training images: load_data knows them; "
                "elsewhere pass make_augment(..., images=a function that returns some)."
            )
        noise = partial(pca_noise, components=color_components(images()))
        steps[name] = (*steps["crop-flip" if small else "resized-crop-flip"], noise)
    stored = {"side-crop-flip", "scale-crop-flip", "resized-crop-flip"}
    on_top = name not in stored | {"none", "flip", "crop-flip"}
    return Augment(
        name, steps[name], from_stored=name in stored or on_top and not small
    )


def _presets(size: int) -> dict[str, tuple[Callable, ...]]:
    """Return the steps of all augmentations that need nothing but the size."""
    small = size <= 64
    shift_flip = partial(_with_generator_last, random_crop_flip, 4)
    resized = partial(_with_generator_last, random_resized_crop, size, (0.35, 1.0))
    low, high = round(size * 8 / 7), round(size * 16 / 7)
    basic = (shift_flip,) if small else (resized, random_flip)
    cut = partial(_with_generator_last, cutout, size // 4)
    policy = partial(auto_augment, policy="cifar10" if small else "imagenet")
    fixed = partial(_with_generator_last, random_scaled_crop, size, low)
    jitter = partial(_with_generator_last, random_scaled_crop, size, (low, high))
    return {
        "none": (),
        "flip": (random_flip,),
        "crop-flip": (shift_flip,),
        "side-crop-flip": (fixed, random_flip),
        "scale-crop-flip": (jitter, random_flip),
        "resized-crop-flip": (resized, random_flip),
        "strong": (*basic, partial(color_jitter, hue=0.05), cut),
        "autoaugment": (*basic, policy),
        "randaugment": (*basic, rand_augment),
        "trivialaugment": (*basic, trivial_augment),
        "erasing": (*basic, random_erasing),
    }


def _with_generator_last(step: Callable, *arguments_and_batch: object) -> Tensor:
    """Call step(batch, *arguments, generator=generator); made for `partial`."""
    *arguments, x, generator = arguments_and_batch
    return step(x, *arguments, generator=generator)
