"""Augmentation of a whole batch on its device, drawn anew for every image.

Images are `(B, C, H, W)`, either uint8 in 0..255 or float in 0..1, and keep their
type. Every function takes a `torch.Generator`, so that the same (seed, epoch, step)
gives the same batch. The draws are made where the generator lives: with one on the
CPU, all devices see the same crops and flips.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def _uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from [0, 1) with the generator, then move to the images' device."""
    draw = torch.rand(*shape, generator=generator, device=generator.device)
    return draw.to(like.device, non_blocking=True)


def crop(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut one window out of each image, each at its own place.

    Args:
        x: (B, C, H, W).
        top, left: (B,) int64, the window's corner in each image.
        height, width: size of the windows.

    Returns:
        (B, C, height, width).
    """
    rows = torch.arange(len(x), device=x.device)
    if x.device.type == "cpu":
        # All windows as a view of the same memory; NumPy copies the chosen ones
        # row by row (0.6 us per CIFAR image), torch element by element (2.9 us).
        windows = x.detach().unfold(2, height, 1).unfold(3, width, 1).numpy()
        return torch.from_numpy(windows[rows.numpy(), :, top.numpy(), left.numpy()])
    return x.unfold(2, height, 1).unfold(3, width, 1)[rows, :, top, left]


def random_crop(x: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad with black and cut out the original size at a random place.

    Args:
        x: (B, C, H, W).
        padding: pixels added on each side, 4 for CIFAR (He et al., 2016).
    """
    height, width = x.shape[-2:]
    draw = _uniform((2, len(x)), x, generator)
    top, left = (draw * (2 * padding + 1)).long()
    return crop(F.pad(x, [padding] * 4), top, left, height, width)


def flip(x: Tensor, mask: Tensor) -> Tensor:
    """Mirror the images where mask (B,) is True left to right."""
    place = torch.arange(len(x), device=x.device)
    # Choosing whole images out of both versions is 4 times as fast as torch.where.
    return torch.cat([x, x.flip(-1)]).index_select(0, place + len(x) * mask)


def random_flip(x: Tensor, generator: torch.Generator, p: float = 0.5) -> Tensor:
    """Mirror each image left to right with probability p."""
    return flip(x, _uniform((len(x),), x, generator) < p)


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
    """Return an augmentation by name, or wrap a function `(batch, generator)`."""
    if isinstance(what, Augment):
        return what
    if callable(what):
        return Augment(getattr(what, "__name__", "custom"), (what,))
    presets = {
        "none": Augment("none"),
        "flip": Augment("flip", (random_flip,)),
        "crop-flip": Augment(
            "crop-flip", (lambda x, g: random_crop(x, 4, g), random_flip)
        ),
    }
    return presets["none" if what is None else what]
