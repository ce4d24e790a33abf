"""Photographs as they lie in files, in their own shape: what protocols cut."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import runtime
from .decoding import BadImage, decode_file
from .folders import left_out_note
from .imagenet import find_validation
from .parts import stratified
from .protocols import cut, views
from .reading import in_order

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


@dataclass
class Findings:
    """What was unusual about the files of one pass, by position.

    Attributes:
        unreadable: position -> the sentence of the decoder; not scored.
        gray, cmyk: read as color images and scored.
        rotated: carry an EXIF orientation.
        enlarged: have a side that is smaller than the crop.
    """

    upright: bool = False
    unreadable: dict[int, str] = field(default_factory=dict)
    gray: list[int] = field(default_factory=list)
    cmyk: list[int] = field(default_factory=list)
    rotated: list[int] = field(default_factory=list)
    enlarged: list[int] = field(default_factory=list)

    def sentences(self, paths: list[Path]) -> list[str]:
        """Say what was found; each sentence names the first file."""
        said = []
        for i in sorted(self.unreadable)[:5]:
            said.append(f"Not scored: {self.unreadable[i]}")
        if len(self.unreadable) > 5:
            said.append(
                f"Not scored: {len(self.unreadable) - 5} more unreadable images."
            )
        turned = (
            "were turned upright by it"
            if self.upright
            else "were scored as they are stored, as published figures were "
            "(upright=True turns them)"
        )
        for what, where in (
            ("are gray and were read as three equal channels", self.gray),
            ("are CMYK and were converted to RGB", self.cmyk),
            (f"carry an EXIF orientation and {turned}", self.rotated),
            ("are smaller than the crop and were enlarged", self.enlarged),
        ):
            if where:
                first = paths[min(where)].name
                said.append(f"{len(where)} of {len(paths)} images {what}; {first}.")
        return said


def _components(data: memoryview) -> int:
    """Return the number of color components of a JPEG file; 0 where it is none."""
    if data[:2] != b"\xff\xd8":
        return 0
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[at + 9]
        at += 2 + length
    return 0


def _orientation(path: Path, data: memoryview) -> int:
    """Return the EXIF orientation of a file; 1 is upright."""
    if b"Exif\0\0" not in bytes(data[:65536]):
        return 1
    from PIL import Image

    try:
        with Image.open(path) as image:
            return int(image.getexif().get(0x0112, 1))
    except (OSError, ValueError, SyntaxError):  # a damaged header says nothing
        return 1


@dataclass
class Photographs:
    """Image files with labels, for evaluation: decoded while a network computes.

    Attributes:
        paths: the files.
        labels: int64 (N,).
        classes: names for people, in the order of the labels.
        columns: which of a published network's 1000 outputs belong to the classes.
        image_size: side of the crop that the network sees, in pixels.
        shorter: what `center` resizes the shorter side to; None is 256 at a crop of
            224, in proportion.
        interpolation: "bilinear" or "bicubic".
        mean, std: (3,), of values in 0..1.
        upright: apply the EXIF orientation. Published figures were measured without.
        workers: threads that decode.
        findings: what was unusual about the files of the last pass.
    """

    paths: list[Path]
    labels: Tensor
    classes: list[str]
    columns: Tensor | None = None
    image_size: int = 224
    shorter: int | None = None
    interpolation: str = "bilinear"
    mean: Tensor = field(default_factory=lambda: torch.tensor(MEAN))
    std: Tensor = field(default_factory=lambda: torch.tensor(STD))
    batch_size: int = 64
    device: torch.device = field(default_factory=runtime.device)
    upright: bool = False
    workers: int = field(default_factory=runtime.cpu_cores)
    title: str = ""
    name: str = "validation"
    findings: Findings = field(default_factory=Findings, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"{len(self):,} photographs of {self.title}, {len(self.classes)} classes"

    def part(self, rank: int, size: int) -> "Photographs":
        """Return every `size`-th photograph, from the one at `rank` on."""
        return replace(
            self,
            paths=self.paths[rank::size],
            labels=self.labels[rank::size],
            findings=Findings(),
        )

    def image(self, i: int) -> Tensor:
        """Return one photograph as it is stored (or upright), uint8 (3, H, W).

        Raises:
            BadImage: it cannot be read.
        """
        return self._decode(i, Findings())

    def _decode(self, i: int, findings: Findings) -> Tensor:
        path = self.paths[i]
        try:
            data = np.fromfile(path, np.uint8)
        except OSError as error:
            raise BadImage(f"The image {path} cannot be read: {error}.") from error
        image = decode_file(path, 3, data, upright=self.upright)
        data = memoryview(data)
        components = _components(data)
        if components == 1:
            findings.gray.append(i)
        elif components == 4:
            findings.cmyk.append(i)
        if _orientation(path, data) != 1:
            findings.rotated.append(i)
        if min(image.shape[1:]) < self.image_size:
            findings.enlarged.append(i)
        return image

    def stream(
        self, work: Callable[[Tensor], Any], ahead: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield (position, work(image)) for every readable photograph, in order.

        Args:
            work: called in a thread with uint8 (3, H, W).
            ahead: how many results may wait; it bounds the memory.
        """
        findings = self.findings = Findings(upright=self.upright)

        def read(i: int):
            try:
                image = self._decode(i, findings)
            except BadImage as error:
                findings.unreadable[i] = str(error).partition(" Replace or")[0]
                return None
            return work(image)

        ahead = ahead or 4 * self.workers
        for i, result in enumerate(
            in_order(read, range(len(self)), self.workers, ahead)
        ):
            if result is not None:
                yield i, result

    def center_crop(self, image: Tensor) -> Tensor:
        """Return what `center` sees of a photograph, uint8 (3, size, size)."""
        return self.cut(image, "center")[0][0]

    def cut(self, image: Tensor, protocol) -> list[Tensor]:
        """Cut a photograph (3, H, W) by a protocol; a list of uint8 (1, 3, h, w)."""
        center = protocol == "center" or getattr(protocol, "name", "") == "center"
        shorter = self.shorter if center else None
        wanted = views(
            protocol, *image.shape[-2:], crop=self.image_size, shorter=shorter
        )
        return cut(image[None], wanted, self.interpolation)

    def batches(
        self, batch_size: int | None = None, *, device: torch.device | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield center crops, normalized, (B, 3, size, size), and labels (B,)."""
        device = torch.device(device or self.device)
        size = batch_size or self.batch_size
        waiting: list = []
        for i, crop in self.stream(self.center_crop, ahead=2 * size):
            waiting.append((i, crop))
            if len(waiting) == size:
                yield self._batch(waiting, device)
                waiting = []
        if waiting:
            yield self._batch(waiting, device)

    def _batch(self, waiting: list, device: torch.device) -> tuple[Tensor, Tensor]:
        x = torch.stack([crop for _, crop in waiting])
        y = self.labels[[i for i, _ in waiting]]
        if device.type == "cuda":
            x, y = x.pin_memory(), y.pin_memory()
        x = x.to(device, non_blocking=True)
        return self.normalize(x), y.to(device, non_blocking=True)

    def normalize(self, x: Tensor) -> Tensor:
        """Turn uint8 images into what a network sees."""
        mean, std = (s.to(x.device)[:, None, None] for s in (self.mean, self.std))
        return x.float().mul_(1 / (255 * std)).sub_(mean / std)


def load_photographs(
    data: str | Path,
    *,
    image_size: int = 224,
    limit: int | None = None,
    **settings,
) -> Photographs:
    """Open a folder of photographs for evaluation; nothing is decoded yet.

    Args:
        data: a folder, or "imagefolder:PATH"; see `imagenet.find_validation` for the
            forms that are accepted: class folders, ImageNet's flat validation folder
            with the devkit's labels, Imagenette.
        image_size: side of the crop that the network sees, in pixels.
        limit: keep at most this many images, classes in proportion.
        **settings: other attributes of `Photographs`, for example upright=True.

    Raises:
        ValueError: no such folder, an empty one, or labels that are missing.
    """
    kind, colon, path = str(data).partition(":")
    folder = Path(path if colon and kind == "imagefolder" else str(data)).expanduser()
    part, classes, columns = find_validation(folder)
    for note in left_out_note(folder, part):
        warnings.warn(note, stacklevel=2)
    if limit is not None and limit < len(part):
        part = part.take(stratified(part.labels, limit, seed=0)[0])
    settings.setdefault("title", folder.resolve().name)
    return Photographs(
        part.paths, part.labels, classes, columns, image_size, **settings
    )
