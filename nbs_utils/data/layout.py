"""How images are kept: at which size they are stored, and what evaluation sees."""

import math
import statistics
from dataclasses import dataclass

from PIL import Image

from .parts import Source

PHOTO_MARGIN = 1.25  # photographs are stored a quarter larger than they are used
CENTER = 7 / 8  # evaluation sees the central 7/8, as in 224 of 256
SMALL = 64  # images up to this side are no photographs: they are used whole
_LOSSY = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Layout:
    """The plan for the images of a data set.

    Attributes:
        title: the truth about the copy found, for people.
        channels: 1 or 3.
        image_size: side of the images that come out, in pixels.
        stored: side of the squares kept as uint8, in pixels.
        center: the share of a stored image that evaluation sees (photographs), or
            None where small images are used whole.
    """

    title: str
    channels: int
    image_size: int
    stored: int
    center: float | None


def _peek(source: Source, count: int = 64) -> list[tuple[int, int]]:
    """Return width and height of some files, without decoding them."""
    sizes = []
    paths = source.train.paths
    for path in paths[:: max(1, len(paths) // count)]:
        try:
            with Image.open(path) as image:
                sizes.append(image.size)
        except OSError:
            continue  # decoding will name it
    return sizes


def plan(source: Source, image_size: int | None, channels: int) -> Layout:
    """Decide how the images of a source are kept.

    Args:
        source: the data set that was found.
        image_size: side of the images wanted; None takes the images' own, and 128
            for photographs.
        channels: 1 or 3.
    """
    if source.train.images is not None:
        own = source.train.images.shape[-1]
        size = image_size or own
        # 8x8 digits are enlarged once; others where they are used, which is small.
        stored = max(size, own) if own < 16 else own
        return Layout(source.title, channels, size, stored, None)
    sizes = _peek(source) or [(128, 128)]
    shorter = int(statistics.median(min(s) for s in sizes))
    title = source.title
    if source.name == "imagenette":
        squares = all(s == (shorter, shorter) for s in sizes)
        title += f" ({shorter} px squares)" if squares else f" ({shorter} px)"
    elif source.name and source.train.paths[0].suffix.lower() in _LOSSY:
        title += " (JPEG copy)"  # the original is not; results differ from it
    if shorter <= SMALL:
        return Layout(title, channels, image_size or shorter, shorter, None)
    size = image_size or 128
    stored = max(size, min(shorter, math.ceil(size * PHOTO_MARGIN)))
    return Layout(title, channels, size, stored, CENTER)
