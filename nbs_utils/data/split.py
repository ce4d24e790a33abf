"""One split of a data set: its labels, and batches of its images on the device."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..augment import Augment, BatchGenerator
from ..runtime import derive_seed
from .storage import Store


def _resize(x: Tensor, size: int) -> Tensor:
    """Resize float images to squares; antialiased where they shrink."""
    if x.shape[-1] == size and x.shape[-2] == size:
        return x
    smaller = x.shape[-1] > size
    return F.interpolate(x, (size, size), mode="bilinear", antialias=smaller)


def _resize_bytes(x: Tensor, size: int) -> Tensor:
    """Resize uint8 images to squares that lie in planes."""
    if x.shape[-1] == size:
        return x.contiguous()
    if x.device.type == "cpu":  # has a kernel for bytes, several times as fast
        smaller = x.shape[-1] > size
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=smaller)
        return x.contiguous()
    return _resize(x.float(), size).round_().clamp_(0, 255).to(torch.uint8).contiguous()


@dataclass
class Split:
    """One split of a data set: its labels, and batches of its images.

    Attributes:
        name: "training", "validation" or "test".
        labels: int64 (N,).
        classes: names for people, in the order of the labels.
        mean, std: (C,) statistics of the training split, of values in 0..1.
        image_size: side of the images that come out, in pixels.
        positions: int64 (N,), where its images stand in the data set, if that is known.
    """

    name: str
    labels: Tensor
    classes: list[str]
    store: Store
    mean: Tensor
    std: Tensor
    image_size: int
    batch_size: int
    augment: Augment
    seed: int
    device: torch.device
    center: float | None  # share of the stored image that evaluation sees
    title: str
    share: tuple[int, int] = (0, 1)  # which part of how many; see `distributed`
    positions: Tensor | None = field(default=None, repr=False)
    _view: Tensor | None = field(default=None, repr=False)
    _constants: dict = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"{len(self):,} {self.name} images of {self.title}"

    def num_batches(self, batch_size: int | None = None, training: bool = True) -> int:
        """Return how many batches an epoch has.

        Args:
            batch_size: by default the data's own.
            training: True counts as in training, where a short last batch is
                dropped unless it is the only one.
        """
        size = batch_size or self.batch_size
        return max(1, len(self) // size) if training else math.ceil(len(self) / size)

    def batches(
        self,
        batch_size: int | None = None,
        *,
        epoch: int | None = None,
        start: int = 0,
        device: torch.device | str | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of normalized images and their labels.

        Args:
            batch_size: by default the data's own.
            epoch: None gives every image once, in order and as it is. A number gives
                the images of that training epoch: shuffled by (seed, epoch) and
                augmented by (seed, epoch, step), without a short last batch.
            start: step to begin at; what follows is the same as without it.
            device: where the batches go; by default the data's device.

        Yields:
            x float32 (B, C, image_size, image_size) and y int64 (B,).

        Raises:
            ValueError: the split is empty, or the batch size is not positive.
        """
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise ValueError(f"batch_size is {size}; it must be at least 1.")
        if not len(self):
            raise ValueError(
                f"The {self.name} split of {self.title} is empty, so there is nothing "
                "to go through. Ask for more images (val_size=..., limit=...)."
            )
        return self._batches(size, epoch, start, torch.device(device or self.device))

    def _batches(
        self, size: int, epoch: int | None, start: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self))
        if epoch is not None:
            shuffle = torch.Generator()
            shuffle.manual_seed(derive_seed(self.seed, epoch))
            order = torch.randperm(len(self), generator=shuffle)
        steps = self.num_batches(size, training=epoch is not None)
        # One transfer per epoch, not one per step.
        labels, order = self.labels.to(self.store.home), order.to(self.store.home)
        chosen = order.split(size)[start:steps]
        part, parts = self.share
        if epoch is None:
            chosen = chosen[part::parts]
        elif parts > 1:
            chosen = [batch.tensor_split(parts)[part] for batch in chosen]
        stored = epoch is not None and self.augment.from_stored
        # Made anew by every step's own seed: a resumed run draws the same numbers.
        generator = torch.Generator()
        if parts > 1:  # each process augments its part as one would the whole
            generator = BatchGenerator(part * (size // parts), size)
        for step, (x, kept) in enumerate(self._read(chosen, stored), start):
            if epoch is not None:
                generator.manual_seed(derive_seed(self.seed, epoch, step))
                x = self.augment(x, generator)
            if len(x):  # all files of a batch may have been skipped
                yield self._finish(x).to(device), labels[kept].to(device)

    def _read(
        self, chosen: tuple[Tensor, ...], stored: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 batches on the device, and the positions of their images."""
        if self.store.resident and not stored and self.center:
            view = self._center_view()
            for batch in chosen:
                yield view.index_select(0, batch), batch
            return
        for x, kept in self.store.read(chosen):
            x = x.to(self.device, non_blocking=True)
            yield (x if stored or not self.center else self._crop_center(x)), kept

    def _center_view(self) -> Tensor:
        """Return what evaluation sees of all images, made once: uint8."""
        if self._view is None:
            parts = torch.arange(len(self), device=self.store.home).split(256)
            views = [self._crop_center(x.to(self.device)) for x, _ in
                     self.store.read(parts)]  # fmt: skip
            self._view = torch.cat(views)
        return self._view

    def _crop_center(self, x: Tensor) -> Tensor:
        side = round(x.shape[-1] * self.center)
        corner = (x.shape[-1] - side) // 2
        x = x[..., corner : corner + side, corner : corner + side]
        return _resize_bytes(x, self.image_size)

    def _finish(self, x: Tensor) -> Tensor:
        """Bring a batch (uint8, or float in 0..1) to its size and normalize it."""
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        x = _resize(x.contiguous().float(), self.image_size)
        key = (x.device, scale)
        if key not in self._constants:
            std = self.std.to(x.device)[:, None, None]
            mean = self.mean.to(x.device)[:, None, None]
            self._constants[key] = 1 / (std * scale), -mean / std
        factor, offset = self._constants[key]
        # x / 255 minus the mean, over the deviation, in two passes instead of four.
        return x.mul_(factor).add_(offset) if scale != 1 else x * factor + offset

    def originals(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the stored squares, before any crop, in order; for test protocols.

        Args:
            count: how many at a time.

        Yields:
            uint8 (B, C, S, S) and labels int64 (B,), on the data's device.
        """
        part, parts = self.share
        chosen = torch.arange(len(self)).to(self.store.home).split(count)[part::parts]
        labels = self.labels.to(self.store.home)
        for x, kept in self.store.read(chosen):
            if len(x):
                x = x.to(self.device, non_blocking=True)
                yield x, labels[kept].to(self.device)

    def images(self, indices: Tensor | list[int]) -> Tensor:
        """Return images as evaluation sees them, before normalization.

        Args:
            indices: positions in this split, (N,).

        Returns:
            uint8 (N, C, image_size, image_size) on the data's device.
        """
        indices = torch.as_tensor(indices, dtype=torch.int64).cpu().reshape(-1)
        if len(indices) and not -1 < int(indices.min()) <= int(indices.max()) < len(
            self
        ):
            raise IndexError(
                f"The {self.name} split of {self.title} has images 0 to "
                f"{len(self) - 1}; {indices.tolist()[:5]} were asked for."
            )
        parts = indices.to(self.store.home).split(512)
        x = torch.cat([x for x, _ in self._read(parts, False)])
        return _resize_bytes(x, self.image_size)

    def normalize(self, x: Tensor) -> Tensor:
        """Turn images (uint8, or float in 0..1) into what a network sees."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        mean, std = (s.to(x.device)[:, None, None] for s in (self.mean, self.std))
        return (x - mean) / std

    def denormalize(self, x: Tensor) -> Tensor:
        """Turn what a network sees back into images, float in 0..1."""
        mean, std = (s.to(x.device)[:, None, None] for s in (self.mean, self.std))
        return (x * std + mean).clamp(0, 1)
