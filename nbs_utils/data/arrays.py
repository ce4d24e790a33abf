"""Images that were made by code, as data for training."""

import torch
from torch import Tensor

from .. import runtime
from ..augment import make_augment
from .split import Split
from .storage import ArrayStore


def from_arrays(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    classes: list[str],
    *,
    title: str,
    batch_size: int = 100,
    seed: int = 0,
):
    """Return image data of tensors, for tasks that a chapter makes itself.

    There is no augmentation, and the validation images are the test images, too.
    Images are normalized with the mean and deviation of the training images.

    Args:
        train, val: images uint8 (N, C, S, S) and labels int64 (N,).
        classes: a name for each label, in their order.
        title: what the data are, for people.
        batch_size: of training and scoring.
        seed: of the order of the training images.

    Returns:
        ImageData: as of `load_data`, in memory.

    Raises:
        ValueError: images are not uint8 squares, or labels do not fit.
    """
    from . import ImageData  # this room's door imports this file

    for images, labels in (train, val):
        _check(images, labels, classes)
    device = runtime.device()
    images = train[0]
    values = images.float() / 255
    mean = values.mean(dim=(0, 2, 3))
    std = values.std(dim=(0, 2, 3)).clamp_min(1e-3)
    size = images.shape[-1]

    def split(name: str, part: tuple[Tensor, Tensor]) -> Split:
        images, labels = (tensor.to(device) for tensor in part)
        store = ArrayStore(images, labels, torch.arange(len(labels), device=device))
        return Split(
            *(name, labels, classes, store, mean.to(device), std.to(device), size),
            *(batch_size, make_augment("none", size), seed, device, None, title),
        )

    splits = split("training", train), split("validation", val), split("test", val)
    return ImageData(
        *("arrays", title, classes, images.shape[1], size, batch_size, mean, std),
        *(*splits, device, "device memory", train[0].numel() + val[0].numel(), seed),
    )


def _check(images: Tensor, labels: Tensor, classes: list[str]) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"The images are {images.dtype} of shape {tuple(images.shape)}; they must "
            "be torch.uint8 (N, C, S, S), with values from 0 to 255."
        )
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(
            f"The images have {images.shape[-2]} x {images.shape[-1]} pixels; they "
            "must be squares. Pad or crop them."
        )
    if len(labels) != len(images) or not len(labels):
        raise ValueError(
            f"There are {len(images)} images and {len(labels)} labels; each image "
            "needs one label, and there must be some."
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"Labels reach from {int(labels.min())} to {int(labels.max())}, but there "
            f"are {len(classes)} classes, counted from 0."
        )
