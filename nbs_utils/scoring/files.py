"""Image files that a trained network is asked about, decoded while it computes."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import runtime
from ..data.decoding import BadImage, decode_file, square
from ..data.folders import is_image
from ..data.protocols import resize, resized
from ..data.reading import in_order
from ..training.description import Description, normalizes


class PhotoFiles:
    """Image files as a split that `evaluate` and its protocols take.

    Each is turned upright, its shorter side resized, the central square cut out: what
    the validation split of the network's own training was made of.

    Args:
        paths: the files.
        description: of the network, for sizes and statistics.
        labels: int64 (N,), where the classes are known.
        classes: names that the labels count in; by default the network's own.
        device: where batches go.
        title: for people.

    Attributes:
        kept: positions of the files that the last pass could read, in order.
        bad: path -> sentence, of those that it could not.
    """

    name = ""

    def __init__(
        self,
        paths: Sequence[str | Path],
        description: Description,
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        *,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        title: str = "",
    ):
        self.paths = [Path(p) for p in paths]
        self.description = description
        count = len(self.paths)
        self.labels = (
            torch.zeros(count, dtype=torch.int64) if labels is None else labels
        )
        self.classes = list(description.classes if classes is None else classes)
        self.batch_size, self.title = batch_size, title
        self.device = torch.device(device or runtime.device())
        self.image_size = description.image_size
        self.mean = torch.tensor(description.mean or (0.0,) * description.channels)
        self.kept: list[int] = []
        self.bad: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"{len(self):,} photographs" + (f" of {self.title}" * bool(self.title))

    def path(self, i: int) -> Path:
        """Return the file of an image."""
        return self.paths[i]

    def normalize(self, x: Tensor) -> Tensor:
        """Turn images (uint8, or float in 0..1) into what the network sees."""
        return normalizes(self.description, x)

    def batches(
        self,
        batch_size: int | None = None,
        *,
        epoch: None = None,
        device: torch.device | str | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what the network sees, (B, C, H, W), and labels (B,), in order."""
        device = torch.device(device or self.device)
        for x, y in self.originals(batch_size or self.batch_size):
            yield self.normalize(self._center(x).to(device)), y.to(device)

    def originals(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the squares before any crop, uint8 (B, C, S, S), and labels (B,)."""
        self.kept, self.bad = [], {}
        waiting: list[Tensor] = []
        workers = runtime.cpu_cores()
        read = in_order(self._read, self.paths, workers, max(2 * workers, 2 * count))
        for i, found in enumerate(read):
            if isinstance(found, str):
                self.bad[self.paths[i]] = found
                continue
            waiting.append(found)
            self.kept.append(i)
            if len(waiting) == count:
                yield self._batch(waiting)
                waiting = []
        if waiting:
            yield self._batch(waiting)

    def images(self, indices: Tensor | list[int]) -> Tensor:
        """Return images as the network sees them, uint8 (N, C, H, W)."""
        found = [self._read(self.paths[int(i)]) for i in indices]
        x = self._center(torch.stack([x for x in found if not isinstance(x, str)]))
        return x if x.dtype == torch.uint8 else x.mul(255).round().byte()

    def notes(self) -> list[str]:
        """Say which files the last pass left out, and why; five by name."""
        said = [f"Left out: {text}" for text in list(self.bad.values())[:5]]
        if len(self.bad) > 5:
            said.append(f"Left out: {len(self.bad) - 5} more files.")
        return said

    def _batch(self, waiting: list[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.stack(waiting), self.labels[self.kept[-len(waiting) :]]

    def _read(self, path: Path) -> Tensor | str:
        try:
            image = decode_upright(path, self.description.channels)
        except BadImage as error:
            return str(error).partition(" Replace or")[0]
        side = self.description.stored or self.image_size
        if self.description.interpolation == "bicubic" and min(image.shape[1:]) != side:
            size = resized(*image.shape[1:], side)
            image = resize(image[None], size, "bicubic")[0]
        return square(image, side)

    def _center(self, x: Tensor) -> Tensor:
        if self.description.center:
            side = round(x.shape[-1] * self.description.center)
            corner = (x.shape[-1] - side) // 2
            x = x[..., corner : corner + side, corner : corner + side]
        if x.shape[-1] == self.image_size:
            return x
        size = (self.image_size, self.image_size)
        smaller = x.shape[-1] > self.image_size
        x = x if self.description.center else x.float() / 255
        return F.interpolate(x, size, mode="bilinear", antialias=smaller)


def decode_upright(path: Path, channels: int) -> Tensor:
    """Decode a file as a person sees it: its EXIF orientation applied.

    Raises:
        BadImage: it cannot be read; it is missing, truncated or no image.
    """
    if not path.is_file():
        raise BadImage(f"There is no file {path}.")
    return decode_file(path, channels, upright=True)


def list_images(places: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the image files that some names mean: files, folders, patterns.

    Args:
        places: a file is taken whatever its ending; of a folder, every image in it and
            below; a pattern as in "trip/*.jpg".

    Returns:
        the files, and a sentence about each name that means none.
    """
    found, said = [], []
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            files = sorted(
                Path(parent) / name
                for parent, _, names in os.walk(path)
                for name in names
                if is_image(name)
            )
            if not files:
                said.append(f"Left out: the folder {path} holds no image.")
        elif path.exists() or not glob.has_magic(str(path)):
            files = [path]
        else:
            files = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
            files = [file for file in files if file.is_file()]
            if not files:
                said.append(f"Left out: no file matches {path}.")
        found += files
    return found, said
