"""PyTorch's own data sets and loaders, in the form that `fit` and `evaluate` take."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from .. import runtime
from .parts import stratified


class DatasetSplit:
    """A `Dataset` of (image, label) as a split: batches in order, or of an epoch.

    Its images are taken as they come: already of one size, already normalized. Its own
    transforms augment them, so that a run that is resumed goes on with other random
    crops than one that was not stopped.

    Args:
        dataset: items are (float tensor (C, H, W), class number).
        name: "training", "validation" or "test".
        batch_size: images per batch unless a batch is asked for otherwise.
        seed: of the order of an epoch.
        workers: processes that read.
        collate: makes a batch of items; by default PyTorch's own.
    """

    mean = std = None

    def __init__(
        self,
        dataset: Dataset,
        name: str = "test",
        *,
        batch_size: int = 128,
        seed: int = 0,
        workers: int = 0,
        collate=None,
    ):
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise ValueError(
                f"{type(dataset).__name__} has no length and no positions, so its "
                "images cannot be shuffled by a seed nor counted. Give a Dataset with "
                "__len__ and __getitem__."
            )
        if not len(dataset):
            raise ValueError(f"The {name} Dataset is empty, so there is nothing to do.")
        self.dataset, self.name, self.batch_size = dataset, name, batch_size
        self.seed, self.workers, self.collate = seed, workers, collate
        self.device = runtime.device()
        x, _ = self._item(0)
        self.channels, self.image_size = x.shape[0], x.shape[-1]
        self.labels = _labels(dataset)
        self.classes = _classes(dataset, self.labels)
        self.title = type(dataset).__name__

    def _item(self, i: int) -> tuple[Tensor, int]:
        item = self.dataset[i]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ValueError(
                f"An item of {type(self.dataset).__name__} is a {type(item).__name__}; "
                "expected a pair (image, label)."
            )
        x, y = item
        if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_floating_point():
            what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"An image of {type(self.dataset).__name__} is {what}; expected a "
                "float tensor (C, H, W). Let its transform end in torchvision's "
                "ToTensor and Normalize."
            )
        return x, y

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        return f"{len(self):,} {self.name} images of {self.title}"

    def num_batches(self, batch_size: int | None = None, training: bool = True) -> int:
        """Return how many batches an epoch has; see `Split.num_batches`."""
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
        """Yield batches of images and labels; see `Split.batches`."""
        size = batch_size or self.batch_size
        order = torch.arange(len(self))
        if epoch is not None:
            shuffle = torch.Generator()
            shuffle.manual_seed(runtime.derive_seed(self.seed, epoch))
            order = torch.randperm(len(self), generator=shuffle)
        steps = self.num_batches(size, training=epoch is not None)
        chosen = [batch.tolist() for batch in order.split(size)[start:steps]]
        device = torch.device(device or self.device)
        loader = DataLoader(
            self.dataset,
            batch_sampler=chosen,
            num_workers=self.workers,
            collate_fn=self.collate,
            pin_memory=device.type == "cuda",
            # torch's own generator must not advance: it belongs to the network
            generator=torch.Generator().manual_seed(0),
        )
        for x, y in loader:
            y = torch.as_tensor(y, dtype=torch.int64)
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


class DatasetData:
    """Two `Dataset`s as the data of `fit`: a training and a validation split."""

    mean = std = None

    def __init__(self, train: DatasetSplit, val: DatasetSplit):
        self.train, self.val = train, val
        self.classes = train.classes
        if len(val.classes) > len(self.classes):
            raise ValueError(
                f"The validation Dataset has {len(val.classes)} classes and the "
                f"training Dataset {len(self.classes)}; they must be the same."
            )
        self.num_classes, self.channels = len(self.classes), train.channels
        self.image_size, self.batch_size = train.image_size, train.batch_size
        self.name = self.title = train.title
        self.device, self.seed = train.device, train.seed


def _labels(dataset: Dataset) -> Tensor:
    """Return the labels of a Dataset, without reading images where it says them."""
    if isinstance(dataset, Subset):
        return _labels(dataset.dataset)[torch.as_tensor(dataset.indices)]
    for key in ("targets", "labels"):
        found = getattr(dataset, key, None)
        if found is not None and len(found) == len(dataset):
            return torch.as_tensor(found, dtype=torch.int64).flatten()
    tensors = getattr(dataset, "tensors", None)  # of a TensorDataset
    if tensors is not None and len(tensors) == 2:
        return tensors[1].to(torch.int64).flatten().cpu()
    return torch.tensor([int(dataset[i][1]) for i in range(len(dataset))])


def _classes(dataset: Dataset, labels: Tensor) -> list[str]:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    named = getattr(dataset, "classes", None)
    if named is not None:
        return [str(name) for name in named]
    return [str(k) for k in range(int(labels.max()) + 1)]


def as_split(data, name: str = "test"):
    """Return a `Dataset` or `DataLoader` as a split; anything else as it is."""
    if isinstance(data, DataLoader):
        return DatasetSplit(
            data.dataset,
            name,
            batch_size=data.batch_size or 128,
            workers=data.num_workers,
            collate=data.collate_fn,
        )
    return DatasetSplit(data, name) if isinstance(data, Dataset) else data


def as_data(data):
    """Return what `fit` was given as data with a training and a validation split.

    Args:
        data: what `load_data` returned, which is returned as it is; a `Dataset` or
            `DataLoader`; or a pair (training, validation) of these.

    Raises:
        TypeError: a path or a name was given, which `load_data` reads.
        ValueError: a Dataset is empty, or its items are no images and labels.
    """
    if isinstance(data, (str, Path)):
        raise TypeError(
            f"fit takes data, and {str(data)!r} is a name: pass nbs.load_data("
            f"{str(data)!r})."
        )
    if isinstance(data, (tuple, list)):
        train, val = (as_split(d, n) for d, n in zip(data, ("training", "validation")))
        return DatasetData(train, val)
    if not isinstance(data, (Dataset, DataLoader)):
        return data
    whole = as_split(data, "training")
    count = max(1, len(whole) // 10)
    val, train = (
        DatasetSplit(
            Subset(whole.dataset, where.tolist()),
            name,
            batch_size=whole.batch_size,
            workers=whole.workers,
            collate=whole.collate,
        )
        for where, name in zip(
            stratified(whole.labels, count, seed=0), ("validation", "training")
        )
    )
    train.classes = val.classes = whole.classes
    return DatasetData(train, val)
