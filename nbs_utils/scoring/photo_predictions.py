"""Names and probabilities for photographs: what a trained classifier is for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.decoding import square
from ..tables import Table
from ..training.description import Description
from .files import PhotoFiles, list_images


@dataclass(frozen=True)
class Predictions:
    """What a network says of some photographs.

    Attributes:
        classes: names, in the order of the columns.
        probabilities: float32 (N, K); each row sums to 1.
        names: of the photographs, (N,): their paths, or "image 0" and so on.
        left_out: one sentence for each file that could not be read.
    """

    classes: list[str]
    probabilities: Tensor = field(repr=False)
    names: list[str]
    left_out: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """Return for each photograph the k likeliest classes and their probabilities.

        Args:
            k: how many; more than there are classes counts as all.
        """
        found = self.probabilities.topk(min(k, len(self.classes)))
        return [
            [(self.classes[i], p) for i, p in zip(indices, values, strict=True)]
            for indices, values in zip(
                found.indices.tolist(), found.values.tolist(), strict=True
            )
        ]

    @property
    def best(self) -> list[str]:
        """The likeliest class of each photograph."""
        return [row[0][0] for row in self.top(1)]

    def table(self, k: int = 3) -> Table:
        """Return a table: a row for each photograph, its k likeliest classes."""
        rows = [
            (name, *(f"{kind} {100 * p:.1f} %" for kind, p in row))
            for name, row in zip(self.names, self.top(k), strict=True)
        ]
        width = min(k, len(self.classes))
        heads = ["likeliest", *(f"{i}." for i in range(2, width + 1))]
        return Table(rows, columns=["photograph", *heads])

    def __repr__(self) -> str:
        return "\n".join([str(self.table()), *self.left_out])


def description_of(network: nn.Module) -> Description:
    """Return what a network says of itself.

    Raises:
        ValueError: it says nothing, or has no statistics to normalize images with.
    """
    found = getattr(network, "description", None)
    if found is None:
        raise ValueError(
            f"This {type(network).__name__} does not know the names of its classes nor "
            "the size of its images. Load a trained one with nbs.load(folder), or train "
            "it with nbs.fit, which notes both."
        )
    if not found.mean:
        raise ValueError(
            "This network was trained on a Dataset that normalized its images itself, "
            "so how a photograph becomes its input is not known here. Evaluate it on "
            "such a Dataset: nbs.evaluate(network, dataset)."
        )
    return found


def predict_photographs(
    network: nn.Module,
    images,
    protocol="center",
    batch_size: int | None = None,
    precision: str = "auto",
    device=None,
) -> Predictions:
    """Return names and probabilities for photographs; see `nbs_utils.predict`."""
    from .prediction import Runner

    description = description_of(network)
    split, names, left_out = open_photographs(images, description)
    if not len(split):
        raise ValueError(
            " ".join(left_out) or "No photograph was given, so nothing was predicted."
        )
    run = Runner(network, split, protocol, batch_size, precision, device)
    with run:
        logits = [scores for scores, _ in run]
    left_out += split.notes()
    if not logits:
        raise ValueError(
            "None of the photographs could be read. " + " ".join(left_out[:3])
        )
    probabilities = torch.cat(logits).softmax(1).cpu()
    names = [names[i] for i in split.kept]
    return Predictions(list(description.classes), probabilities, names, left_out)


def open_photographs(images, description: Description):
    """Return what was given as a split, the names of its images, and what was wrong."""
    if isinstance(images, (str, Path)) or _is_picture(images):
        images = [images]
    if isinstance(images, (Tensor, np.ndarray)):
        images = list(images)
    images = list(images)
    if all(isinstance(x, (str, Path)) for x in images):
        paths, left_out = list_images(images)
        return PhotoFiles(paths, description), [str(p) for p in paths], left_out
    if any(isinstance(x, (str, Path)) for x in images):
        raise ValueError(
            "Files and images in memory are mixed in one list; predict each kind alone."
        )
    names = [f"image {i}" for i in range(len(images))]
    return InMemory(images, description), names, []


def _is_picture(x) -> bool:
    if isinstance(x, (Tensor, np.ndarray)):
        return x.ndim < 4
    return hasattr(x, "convert") and hasattr(x, "getexif")  # of PIL


class InMemory(PhotoFiles):
    """Images that are in memory already, as a split."""

    def __init__(self, images: Sequence, description: Description):
        super().__init__([Path(f"image {i}") for i in range(len(images))], description)
        self._images = dict(zip(self.paths, images, strict=True))

    def _read(self, path: Path) -> Tensor:
        image = to_bytes(self._images[path], self.description.channels)
        return square(image, self.description.stored or self.image_size)


def to_bytes(image, channels: int) -> Tensor:
    """Return an image in memory as uint8 (C, H, W).

    Args:
        image: a PIL image, or a tensor (C, H, W): uint8, or float in 0..1.
        channels: 1 or 3; gray becomes color and color becomes gray as is needed.

    Raises:
        ValueError: it has another shape, or values outside of 0..1.
    """
    if hasattr(image, "convert"):
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
        array = np.asarray(image).reshape(image.height, image.width, -1)
        return torch.from_numpy(array.copy()).permute(2, 0, 1)
    image = torch.as_tensor(image).detach().cpu()
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"An image has the shape {tuple(image.shape)}; expected (C, H, W) with 1 or "
            "3 channels, or a batch of these."
        )
    if image.dtype != torch.uint8:
        low, high = float(image.min()), float(image.max())
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"The values of an image run from {low:.3g} to {high:.3g}; give uint8, "
                "or float in 0..1 that is not normalized yet: the network's own mean "
                "and deviation are applied here."
            )
        image = (image * 255).round().byte()
    if image.shape[0] == 3 and channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R BT.601
        return (image * weights).sum(0, True).round().byte()
    return image.expand(channels, -1, -1)
