"""What is found of a data set, before it is decoded: its parts, and choices of them."""

import hashlib
import os
import unicodedata
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..runtime import derive_seed


@dataclass
class Part:
    """The images of one official split, as files or already as an array.

    Attributes:
        labels: int64 (N,).
        images: uint8 (N, C, H, W), or None where `paths` are given.
        paths: the image files, in the order of the labels.
        name: tells the parts of one data set apart in the cache.
        left_out: what was found beside the images: an ending, or "" for none, and how
            many files have it.
    """

    labels: Tensor
    images: Tensor | None = None
    paths: list[Path] = field(default_factory=list)
    name: str = ""
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Part":
        """Return the images at these positions as a part of its own."""
        images = None if self.images is None else self.images[indices]
        paths = [self.paths[i] for i in indices.tolist()] if self.paths else []
        return replace(self, labels=self.labels[indices], images=images, paths=paths)


@dataclass
class Source:
    """A data set that was found: its parts, its classes, where it lies.

    Attributes:
        name: of a data set that is known by name.
        own: True for a folder of one's own (`imagefolder:`), which may hold anything.
        pool: of class folders, the files that training and validation are drawn from,
            and the test split where it has no folder of its own.
        notes: what was unusual about its files, in sentences.
    """

    title: str
    classes: list[str]
    train: Part
    test: Part
    val: Part | None = None
    folder: Path = Path()
    name: str = ""
    own: bool = False
    pool: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def val_part(self) -> Part:
        """The part that the validation split is taken from."""
        return self.train if self.val is None else self.val

    @property
    def files(self) -> str:
        """A hash of the names in the pool of a folder of one's own; else ""."""
        if not (self.own and self.pool):
            return ""
        names = sorted(
            # systems write an umlaut in two ways
            unicodedata.normalize("NFC", os.path.relpath(path, self.folder))
            for path in self.pool
        )
        text = "\0".join(names).replace(os.sep, "/")
        return hashlib.blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()


def stratified(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Choose `count` positions with the classes in proportion, and the others.

    Args:
        labels: int64 (N,).
        count: how many to choose, at most N.
        seed: fixes the choice.

    Returns:
        the chosen positions and the rest, both sorted.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, 1009))
    sizes = labels.unique(return_counts=True)[1]
    members = labels.argsort(stable=True).split(sizes.tolist())  # one set per class
    exact = sizes.double() * count / max(1, len(labels))
    take = exact.floor().long()
    # What rounding down left over goes to the largest fractions.
    order = (exact - take).argsort(descending=True, stable=True)
    take[order[: count - int(take.sum())]] += 1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for places, n in zip(members, take.tolist()):
        chosen[places[torch.randperm(len(places), generator=generator)[:n]]] = True
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)
