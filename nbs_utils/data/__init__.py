"""A name becomes data: splits, statistics, and batches on the device.

`load_data("cifar10")` finds the images, decodes them once, keeps them as uint8 on the
device where they fit, and hands out normalized batches. Where they do not fit, the
same batches are streamed, in the same order and with the same augmentation.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import runtime
from ..augment import make_augment
from .arrays import from_arrays
from .datasets import (
    SPECS,
    DataNotFound,
    Spec,
    find,
    full_name,
    read_digits,
    sample_photographs,
)
from .decoding import BadImage, decode_file, decode_files
from .folders import few_images_note
from .imagenet import imagenet_columns
from .layout import Layout, plan
from .parts import Source, stratified
from .photographs import Photographs, load_photographs
from .placing import place
from .protocols import PROTOCOLS, Protocol, resize, views
from .split import Split
from .storage import Store, default_budget, parse_bytes

__all__ = [
    "PROTOCOLS",
    "BadImage",
    "DataNotFound",
    "ImageData",
    "Photographs",
    "Protocol",
    "Split",
    "decode_file",
    "decode_files",
    "from_arrays",
    "imagenet_columns",
    "load_data",
    "load_photographs",
    "resize",
    "sample_photographs",
    "views",
]


@dataclass
class ImageData:
    """A data set that is ready for training; see `load_data`.

    Attributes:
        name: the name that was asked for.
        title: what was found, for people: "CIFAR-10 (JPEG copy)".
        classes: names for people, in the order of the labels.
        channels, image_size, batch_size: the shape of a batch.
        mean, std: (C,) computed from the training split, of values in 0..1.
        train, val, test: the splits.
        device: where batches are made.
        where: "device memory", or "streamed" where they did not fit.
        nbytes: what the stored images take, in bytes.
        seed: of the validation split, the order and the augmentation.
        upright: whether photographs were turned as their EXIF orientation says.
        notes: sentences on what was left out or is too few, each also a warning.
        files: of a folder of one's own, a hash of the names of its files, except those
            of a test or validation split with a folder of its own.
    """

    name: str
    title: str
    classes: list[str]
    channels: int
    image_size: int
    batch_size: int
    mean: Tensor
    std: Tensor
    train: Split
    val: Split
    test: Split
    device: torch.device
    where: str
    nbytes: int
    seed: int
    upright: bool = False
    notes: list[str] = field(default_factory=list)
    files: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def augment(self) -> str:
        """The name of the training split's augmentation."""
        return self.train.augment.name

    def __repr__(self) -> str:
        return (
            f"{self.title}: {len(self.train):,} training, {len(self.val):,} validation"
            f" and {len(self.test):,} test images of {self.channels}x"
            f"{self.image_size}x{self.image_size} in {self.num_classes} classes; "
            f"{self.nbytes / 2**20:,.0f} MiB {'in ' if self.where[0] == 'd' else ''}"
            f"{self.where}"
        )


def load_data(
    name: str | os.PathLike = "digits",
    *,
    image_size: int | None = None,
    batch_size: int = 128,
    augment: str | Callable | None = "auto",
    val_size: float | None = None,
    seed: int = 0,
    channels: int | None = None,
    root: str | os.PathLike | None = None,
    device: torch.device | str | None = None,
    limit: int | None = None,
    on_bad_image: str = "raise",
    memory_budget: int | str | None = None,
    workers: int | None = None,
    upright: bool | None = None,
) -> ImageData:
    """Load a data set by name, split it, and keep it where training is fast.

    Args:
        name: mnist, fashion_mnist, cifar10, cifar100, imagenette, digits, a folder of
            class folders ("photos", a Path, or imagefolder:<path>), or
            webdataset:<shards> (see `nbs_utils.data.shards`).
        image_size: side of the images in pixels; by default the data set's own, and
            128 for photographs.
        batch_size: images per batch unless a batch is asked for otherwise.
        augment: of training batches: "none", "flip", "crop-flip", "side-crop-flip",
            "scale-crop-flip", "resized-crop-flip", "strong", "pca", "autoaugment",
            "randaugment", "trivialaugment", "erasing" (`nbs.augment.make_augment`
            says what each is), a function of (uint8 batch, generator), or "auto":
            crop-flip up to 64 px and resized-crop-flip above, but nothing for
            digits, which a mirror or a cut turns into other signs. Mixup and CutMix,
            which mix labels too, are keys of a recipe.
        val_size: images of the validation split, a number or a share. It is taken
            from the official training split, each class in proportion. By default
            a tenth, at most 5,000 (CIFAR: 45,000/5,000 as in He et al., 2016).
            A folder that has a validation split of its own keeps it.
        seed: of the validation split, the order and the augmentation.
        channels: 1 (gray) or 3 (color); by default the data set's own.
        root: the only folder to look in and to download to. By default NBS_DATA,
            `.data` here or above, `~/.cache/nbs_utils/data`.
        device: where batches are made; by default that of `runtime.device()`.
        limit: keep at most this many images of each split, classes in proportion.
        on_bad_image: "raise" names the first file that cannot be read; "skip" leaves
            such files out and names them in a warning.
        memory_budget: bytes, or a text such as "4 GB", that the images may take on
            the device; by default half of what is free. Above it they are streamed.
        workers: threads that decode streamed files; by default one per core.
        upright: turn photographs as their EXIF orientation says. By default in a
            folder of one's own, for training and evaluation alike, and not in data
            sets known by name. Figures published on ImageNet were measured without:
            upright=False, and `load_photographs`, leave images as they are stored.

    Decoded images are kept for the next call, under a key made of every file's name,
    size and date: beside a data set known by name (`.cifar10.nbs_cache`); those of a
    folder of one's own in `~/.cache/nbs_utils/decoded`, and nothing is written beside
    it. Either may be deleted at any time.

    Returns:
        ImageData with the splits train, val and test. Files that were left out, by
        ending or because they cannot be read, and classes with fewer than ten images
        are named in warnings and in its `notes`.

    Raises:
        ValueError: an unknown name (the nearest are given), a setting out of range,
            labels out of range, a folder without classes, an empty split.
        DataNotFound: there is no copy of the data and it cannot be downloaded.
        BadImage: an image file cannot be read.
    """
    name = full_name(name)
    device = torch.device(device or runtime.device())
    spec = SPECS.get(name, Spec(name, 3, None))
    _check(image_size, batch_size, channels, limit, on_bad_image)
    if runtime.is_quick() and name in SPECS and name != "digits":
        source = read_digits()
        source.title = f"digits in place of {spec.title} (quick run)"
        limit = min(limit or 256, 256)
        print(f"Quick run: {spec.title} is replaced by a few enlarged digits.")
    else:
        source = find(name, root, image_size or spec.image_size or 128)
    _check_labels(source)
    layout = plan(source, image_size or spec.image_size, channels or spec.channels)
    upright = source.own if upright is None else upright
    chosen = _split(source, val_size, seed, limit)
    if source.own and limit is None:
        parts = source.train, source.val_part, source.test
        labels = (part.labels[where] for part, where in zip(parts, chosen))
        splits = dict(zip(("training", "validation", "test"), labels))
        source.notes += few_images_note(source.classes, splits)
    if memory_budget is None:
        memory_budget = default_budget(device)
    stores, mean, std, nbytes = place(
        source,
        chosen,
        layout,
        device=device,
        budget=parse_bytes(memory_budget),
        skip=on_bad_image == "skip",
        workers=workers,
        upright=upright,
    )
    for note in source.notes:
        warnings.warn(note, stacklevel=2)
    augment = make_augment(
        _automatic(augment, spec, layout),
        layout.image_size,
        images=lambda: _some_images(stores[0]),
    )
    train, val, test = (
        Split(
            name=word,
            labels=store.labels,
            classes=source.classes,
            store=store,
            mean=mean,
            std=std,
            image_size=layout.image_size,
            batch_size=batch_size,
            augment=augment,
            seed=seed,
            device=device,
            center=layout.center,
            title=layout.title,
            positions=positions,
        )
        for word, store, positions in zip(
            ("training", "validation", "test"), stores, chosen
        )
    )
    if not len(train):
        raise ValueError(
            f"The training split of {layout.title} is empty: val_size={val_size} and "
            f"limit={limit} leave no image for it."
        )
    return ImageData(
        name=name,
        title=layout.title,
        classes=source.classes,
        channels=layout.channels,
        image_size=layout.image_size,
        batch_size=batch_size,
        mean=mean,
        std=std,
        train=train,
        val=val,
        test=test,
        device=device,
        where="device memory" if stores[0].resident else "streamed",
        nbytes=nbytes,
        seed=seed,
        upright=upright,
        notes=source.notes,
        files=source.files,
    )


def _check(
    image_size: int | None,
    batch_size: int,
    channels: int | None,
    limit: int | None,
    on_bad_image: str,
) -> None:
    """Refuse settings that are out of range, by name."""
    for key, value in (
        ("image_size", image_size),
        ("batch_size", batch_size),
        ("limit", limit),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{key} is {value}; it must be at least 1.")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is {channels}; it must be 1 (gray) or 3 (color).")
    if on_bad_image not in ("raise", "skip"):
        raise ValueError(
            f"on_bad_image is '{on_bad_image}'; it must be 'raise' (stop at a file "
            "that cannot be read) or 'skip' (leave it out)."
        )


def _check_labels(source: Source) -> None:
    """Refuse labels that name no class."""
    for part in (source.train, source.test, source.val):
        if part is None or not len(part):
            continue
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= len(source.classes):
            wrong = low if low < 0 else high
            raise ValueError(
                f"{source.title} has the label {wrong} in its {part.name} split; with "
                f"{len(source.classes)} classes labels must lie in 0 to "
                f"{len(source.classes) - 1}. The copy in {source.folder} is damaged."
            )


def _split(
    source: Source, val_size: float | None, seed: int, limit: int | None
) -> list[Tensor]:
    """Return positions of the training and validation images and the test images.

    Validation positions count in the official training split, unless the source has
    a validation split of its own.
    """
    labels = source.train.labels
    test = torch.arange(len(source.test))
    if source.val is not None:
        train, val = torch.arange(len(labels)), torch.arange(len(source.val))
    else:
        if val_size is None:
            val_size = min(5000, len(labels) // 10)
        count = round(len(labels) * val_size) if 0 < val_size < 1 else int(val_size)
        if not 0 <= count < len(labels):
            raise ValueError(
                f"val_size is {val_size}; it must leave something of the {len(labels)} "
                "training images: a number below that, or a share between 0 and 1."
            )
        val, train = stratified(labels, count, seed)
    chosen = []
    for part, where in (
        (source.train, train),
        (source.val_part, val),
        (source.test, test),
    ):
        if limit is not None and limit < len(where):
            where = where[stratified(part.labels[where], limit, seed)[0]]
        chosen.append(where)
    return chosen


def _some_images(store: Store, count: int = 1000) -> Tensor:
    """Return training images as stored, evenly spaced: uint8 (N, C, H, W)."""
    total = len(store.labels)
    chosen = torch.arange(0, total, max(1, total // count), device=store.home)[:count]
    return torch.cat([x.cpu() for x, _ in store.read(chosen.split(256))])


def _automatic(
    augment: str | Callable | None, spec: Spec, layout: Layout
) -> str | Callable | None:
    """Say what "auto" means for a data set at a size."""
    if augment != "auto":
        return augment
    if spec.augment:
        return spec.augment
    return "crop-flip" if layout.image_size <= 64 else "resized-crop-flip"
