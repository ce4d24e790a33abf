"""What networks of the zoo share beside their layers: stems, and errors as sentences."""

from typing import TypeVar

from torch import Tensor
from torch.fx import Proxy

T = TypeVar("T")


def by_stem(stem: str, *, imagenet: T, cifar: T) -> T:
    """Return what a network's beginning is made of, for large images or small ones.

    Args:
        stem: "imagenet", or "cifar" for images of about 32 pixels.
        imagenet, cifar: what is returned for them.

    Raises:
        ValueError: `stem` is neither.
    """
    choices = {"imagenet": imagenet, "cifar": cifar}
    if stem not in choices:
        raise ValueError(f"stem is {stem!r}; it must be 'imagenet' or 'cifar'.")
    return choices[stem]


def require_side(images: Tensor, least: int) -> None:
    """Raise a sentence for images that are too small for a network.

    Called first in a forward pass, so that nobody has to read "Kernel size can't be
    greater than actual input size".

    Args:
        images: (B, C, H, W).
        least: smallest H and W, in pixels, that every layer can take.

    Raises:
        ValueError: H or W is smaller.
    """
    if isinstance(images, Proxy):
        return  # traced symbolically, where there are no sizes yet
    height, width = images.shape[-2:]
    if min(height, width) < least:
        raise ValueError(
            f"The images have {height} x {width} pixels, and this network needs at "
            f"least {least} x {least}. Enlarge them, as in load_data(name, "
            f"image_size={least}), or build it for small ones where it has a stem for "
            f"them: create_model(name, image_size={min(height, width)})."
        )
